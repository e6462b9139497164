package route

import (
	"fmt"
	"slices"

	"torproxy/wire/netdoc"
)

// TooFewRelays says that the network is smaller than its own minimum: with so few relays a route would
// hide nothing.
type TooFewRelays struct {
	Have, Need int // relays running, and the network's minimum
}

func (e *TooFewRelays) Error() string {
	return fmt.Sprintf("the network has %d running relays, its minimum is %d", e.Have, e.Need)
}

// NoExit says that no relay may be the last hop. The text names the port and the request's own selectors
// only.
type NoExit struct {
	Target Target
	Exit   Selectors // the request's: no others would do; none: any would
	Why    Lack
}

// Lack is why there is no exit: the first of these that holds.
type Lack int

// The values of NoExit.Why.
const (
	LackPolicy   Lack = iota // no running relay's exit policy accepts the target
	LackRelay                // Exit names no relay that runs
	LackExit                 // Exit names relays that are no exits
	LackAllowed              // Exit names exits whose exit policy does not accept the target
	LackWanted               // every exit that would do is excluded by the user
	LackReliable             // every exit that would do is avoided, because it failed lately
)

func (e *NoExit) Error() string { return e.text("--exit " + e.Exit.String()) }

// Unnamed is the text without the relays that were asked for.
func (e *NoExit) Unnamed() string { return e.text("--exit") }

// text is the text where the relays that were asked for are called named.
func (e *NoExit) text(named string) string {
	switch {
	case e.Why == LackRelay && len(e.Exit) == 1 && e.Exit[0].nickname != "":
		return named + ": no running relay has that nickname"
	case e.Why == LackRelay && len(e.Exit) == 1:
		return named + ": no running relay has that ID"
	case e.Why == LackRelay:
		return named + ": none of these relays runs"
	case e.Why == LackExit && len(e.Exit) == 1:
		return named + ": is no exit"
	case e.Why == LackExit:
		return named + ": none is an exit"
	case e.Why == LackAllowed:
		return named + ": " + e.notAllowed()
	case e.Why == LackWanted:
		return "--exclude: every exit that would do is excluded: " + e.what()
	case e.Why == LackReliable:
		return "every exit that would do has failed just now: " + e.what()
	default:
		return "no exit's policy fits: " + e.what()
	}
}

// notAllowed says what the exits asked for do not do.
func (e *NoExit) notAllowed() string {
	port := fmt.Sprintf("port %d", e.Target.Port)
	if e.Target.Addr.IsValid() {
		port = "this address, " + port
	}
	if len(e.Exit) == 1 {
		return "its exit policy does not accept " + port
	}
	return "the exit policy of none accepts " + port
}

// noExit finds out why no relay may be the last hop; nil if one may.
func (d *draw) noExit() error {
	any := func(will func(*netdoc.Relay) bool) bool {
		return slices.ContainsFunc(d.ix.nodes, func(n node) bool { return will(n.relay) })
	}
	leadsOut := func(r *netdoc.Relay) bool { return isExit(r) && d.req.leadsOut(r) }
	e := &NoExit{Target: d.req.Target, Exit: d.req.Exit}
	switch {
	case slices.ContainsFunc(d.ix.nodes, func(n node) bool { return d.isExit(&n) }):
		return nil
	case len(e.Exit) > 0 && !any(e.Exit.Match):
		e.Why = LackRelay
	case len(e.Exit) > 0 && !any(func(r *netdoc.Relay) bool { return isExit(r) && e.Exit.Match(r) }):
		e.Why = LackExit
	case len(e.Exit) > 0 && !any(leadsOut):
		e.Why = LackAllowed
	case !any(leadsOut):
		e.Why = LackPolicy
	case !any(func(r *netdoc.Relay) bool { return leadsOut(r) && !d.req.Exclude.Match(r) }):
		e.Why = LackWanted
	default:
		e.Why = LackReliable
	}
	return e
}

func (e *NoExit) what() string {
	switch {
	case e.Target == Target{}:
		return "any exit"
	case e.Target.Addr.IsValid():
		return fmt.Sprintf("an exit for an address, port %d", e.Target.Port)
	default:
		return fmt.Sprintf("an exit for a host name, port %d", e.Target.Port)
	}
}

// Rule names what leaves no route.
type Rule string

// The rules of a TooFewDistinct.
const (
	RuleDistinct Rule = "every hop is another relay"
	RuleAvoid    Rule = "relays that failed just now are left out"
	RuleExclude  Rule = "--exclude leaves relays out"
	RuleExit     Rule = "the last hop is --exit"
	RuleGuard    Rule = "the first hop is one of the guards that this client keeps to"
	RuleFamily   Rule = "no two hops of one family"
	RuleSubnet   Rule = "no two hops of one subnet"
	RuleBoth     Rule = "no two hops of one family or subnet"
)

// TooFewDistinct says that exits and relays exist, but not enough that may stand in one route.
type TooFewDistinct struct {
	Hops    int  // asked for
	Running int  // relays running, excluded ones among them
	Rule    Rule // without this rule there would be a route
}

func (e *TooFewDistinct) Error() string {
	return fmt.Sprintf("no route of %d hops among %d running relays: %s", e.Hops, e.Running, e.Rule)
}

// explain finds out why there is no route: what is missing, or which rule leaves none. For that it searches
// without each of them; what is found on the way is never used.
func (d *draw) explain() error {
	if err := d.noExit(); err != nil {
		return err
	}
	e := &TooFewDistinct{Hops: d.req.Hops, Running: len(d.ix.nodes)}
	possible := func(without func(*Request, *rules)) bool {
		req, rules := *d.req, d.rules
		without(&req, &rules)
		again := &draw{ix: d.ix, req: &req, rnd: d.rnd, rules: rules, tables: d.tables}
		return again.route() != nil
	}
	own := d.req.First
	d.req.First = nil // nobody is asked for a first hop that is not used
	switch {
	case e.Running < e.Hops:
		e.Rule = RuleDistinct
	case own != nil && possible(func(*Request, *rules) {}):
		e.Rule = RuleGuard
	case len(d.req.Avoid) > 0 && possible(func(r *Request, _ *rules) { r.Avoid = nil }):
		e.Rule = RuleAvoid
	case len(d.req.Exclude) > 0 && possible(func(r *Request, _ *rules) { r.Avoid, r.Exclude = nil, nil }):
		e.Rule = RuleExclude
	case len(d.req.Exit) > 0 && possible(func(r *Request, _ *rules) { r.Exit = nil }):
		e.Rule = RuleExit
	case d.rules.subnet && possible(func(_ *Request, r *rules) { r.subnet = false }):
		e.Rule = RuleSubnet
	case possible(func(_ *Request, r *rules) { r.family = false }):
		e.Rule = RuleFamily
	default:
		e.Rule = RuleBoth
	}
	return e
}
