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
	LackAllowed              // Exit names relays whose exit policy does not accept the target
	LackWanted               // every exit that would do is excluded by the user
	LackReliable             // every exit that would do is avoided, because it failed lately
)

func (e *NoExit) Error() string {
	named := "--exit " + e.Exit.String()
	switch {
	case e.Why == LackRelay && len(e.Exit) == 1 && e.Exit[0].nickname != "":
		return named + ": no running relay has that nickname"
	case e.Why == LackRelay && len(e.Exit) == 1:
		return named + ": no running relay has that ID"
	case e.Why == LackRelay:
		return named + ": none of these relays runs"
	case e.Why == LackAllowed && e.Target == Target{}:
		return named + ": is no exit"
	case e.Why == LackAllowed:
		return named + ": its exit policy does not accept " + e.port()
	case e.Why == LackWanted:
		return "--exclude: every exit that would do is excluded: " + e.what()
	case e.Why == LackReliable:
		return "every exit that would do has failed just now: " + e.what()
	default:
		return "no exit's policy fits: " + e.what()
	}
}

func (e *NoExit) port() string {
	if e.Target.Addr.IsValid() {
		return fmt.Sprintf("this address, port %d", e.Target.Port)
	}
	return fmt.Sprintf("port %d", e.Target.Port)
}

// noExit finds out why no relay may be the last hop.
func noExit(running []*netdoc.Relay, req Request) *NoExit {
	e := &NoExit{Target: req.Target, Exit: req.Exit}
	any := req
	any.Exit = nil
	switch {
	case len(exitsFor(running, any)) == 0 && len(req.Exit) == 0:
		e.Why = LackPolicy
	case len(req.Exit) > 0 && !slices.ContainsFunc(running, req.Exit.Match):
		e.Why = LackRelay
	case len(exitsFor(running, req)) == 0:
		e.Why = LackAllowed
	case len(exitsFor(wantedBy(running, req.Exclude), req)) == 0:
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
	RuleExclude  Rule = "excluded relays are left out"
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

// explain finds the rule that leaves no route by searching again without it. What is found on the way is
// never used.
func explain(d draw, running, relays []*netdoc.Relay, req Request) error {
	e := &TooFewDistinct{Hops: req.Hops, Running: len(running)}
	strict := d.rules
	possible := func(r rules, relays []*netdoc.Relay) bool {
		d.rules = r
		return d.route(relays, exitsFor(relays, req), req.Hops) != nil
	}
	switch {
	case len(running) < req.Hops:
		e.Rule = RuleDistinct
	case possible(strict, running):
		e.Rule = RuleExclude
	case strict.subnet && possible(rules{family: true}, relays):
		e.Rule = RuleSubnet
	case possible(rules{subnet: strict.subnet}, relays):
		e.Rule = RuleFamily
	default:
		e.Rule = RuleBoth
	}
	return e
}
