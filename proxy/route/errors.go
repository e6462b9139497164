package route

import (
	"fmt"

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

// NoExit says that no running relay's exit policy accepts the target. The text names the port only.
type NoExit struct {
	Target   Target
	Excluded bool // there is such an exit, but the request excludes it
}

func (e *NoExit) Error() string {
	switch {
	case e.Excluded:
		return "every exit that would do is excluded: " + e.what()
	default:
		return "no exit's policy fits: " + e.what()
	}
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
		return d.route(relays, exitsFor(relays, req.Target), req.Hops) != nil
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
