// Package route chooses the relays of a circuit from a consensus.
//
// A route is drawn in this order:
//
//  1. the exit, among the relays whose policy fits the target;
//  2. the first hop, then the hops between, each among the relays that fit beside those already drawn.
//
// Every draw is random in proportion to the relays' weights, without replacement. Two relays of one route
// are never the same relay, never of one family, and, where the consensus asks for it, never of one
// subnet (IPv4 /16, IPv6 /32). No rule is ever relaxed: when the rules leave no route, the error says
// which of them does. Exits are spared for the last place as far as they are scarce (see weights.go).
//
// The package is pure: the consensus, and the source of randomness, come in as arguments.
package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// Target is where a circuit's streams shall go, as far as an exit policy can tell in advance. The zero
// Target accepts any exit: for a circuit built before its target is known.
type Target struct {
	Addr netip.Addr // zero for a host name: what it resolves to, only the exit finds out
	Port uint16
}

// TargetOf makes the Target of a validated HOST and port, where HOST is a name or an IP address without
// brackets.
func TargetOf(host string, port uint16) Target {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return Target{Port: port}
	}
	return Target{Addr: addr.Unmap(), Port: port}
}

// fits reports whether a policy accepts the target. For a name it can only say that some address with
// this port would be accepted.
func (t Target) fits(p *netdoc.Policy) bool {
	switch {
	case t == Target{}:
		return p.IsExit()
	case t.Addr.IsValid():
		return p.Allows(netip.AddrPortFrom(t.Addr, t.Port))
	default:
		return p.AllowsPort(t.Port)
	}
}

// Request is what a route has to satisfy.
type Request struct {
	Hops    int                  // 1 to wire.MaxHops; 1 is the exit alone
	Target  Target               // what the exit's policy must fit
	Exit    Selectors            // the last hop is one of these; none given: any
	Exclude Selectors            // relays that the user wants at no hop
	Avoid   map[wire.ID]struct{} // relays to leave out because they failed lately

	// First, if given, chooses the first hop of routes of two hops and more: the guard. It is called once
	// the exit is drawn, with fits, which reports whether a route with that exit and this first hop exists;
	// what it returns must fit. Nil: none of its relays fits, and another exit is tried. An error ends the
	// search and is returned as it is. Avoid does not count for what it chooses: guards that failed are
	// First's to know. Without First the first hop is drawn like the others.
	First func(fits func(*netdoc.Relay) bool) (*netdoc.Relay, error)
}

// Choose draws a route: Hops relays, the first hop first and the exit last. They are the consensus's own
// and must not be changed. It is safe for concurrent use if rnd is (NewRand's is).
//
// Whether the consensus suits the clock is the caller's to check. When no route satisfies the request the
// error is a *TooFewRelays, *NoExit or *TooFewDistinct, or what Request.First returned.
func Choose(c *netdoc.Consensus, req Request, rnd *rand.Rand) ([]*netdoc.Relay, error) {
	if req.Hops < 1 || req.Hops > wire.MaxHops {
		return nil, fmt.Errorf("route: %d hops asked for, possible are 1 to %d", req.Hops, wire.MaxHops)
	}
	running := runningRelays(c)
	if len(running) < c.Params.MinRelays {
		return nil, &TooFewRelays{Have: len(running), Need: c.Params.MinRelays}
	}
	wanted := wantedBy(running, req.Exclude)
	relays := without(wanted, req.Avoid)
	exits := exitsFor(relays, req)
	if len(exits) == 0 {
		return nil, noExit(running, req)
	}
	d := draw{rnd: rnd, rules: rules{family: true, subnet: c.Params.SubnetRule}, weigh: weigh(relays, req.Hops)}
	if req.First != nil && req.Hops > 1 {
		d.first, d.firsts = req.First, wanted
	}
	if route := d.route(relays, exits, req.Hops); route != nil {
		return route, nil
	}
	if d.err != nil {
		return nil, d.err
	}
	return nil, explain(d, running, relays, req)
}

// runningRelays leaves out relays whose onion key is not at hand: none can be built through.
func runningRelays(c *netdoc.Consensus) []*netdoc.Relay {
	running := make([]*netdoc.Relay, 0, len(c.Relays))
	for i := range c.Relays {
		if r := &c.Relays[i]; r.Flags.Has(netdoc.Running) && r.OnionKey() != nil {
			running = append(running, r)
		}
	}
	return running
}

func without(relays []*netdoc.Relay, exclude map[wire.ID]struct{}) []*netdoc.Relay {
	if len(exclude) == 0 {
		return relays
	}
	kept := make([]*netdoc.Relay, 0, len(relays))
	for _, r := range relays {
		if _, out := exclude[r.ID]; !out {
			kept = append(kept, r)
		}
	}
	return kept
}

// wantedBy leaves out what the user excludes.
func wantedBy(relays []*netdoc.Relay, exclude Selectors) []*netdoc.Relay {
	if len(exclude) == 0 {
		return relays
	}
	kept := make([]*netdoc.Relay, 0, len(relays))
	for _, r := range relays {
		if !exclude.Match(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// exitsFor returns the relays that may be the last hop, whatever the request leaves out.
func exitsFor(relays []*netdoc.Relay, req Request) []*netdoc.Relay {
	var exits []*netdoc.Relay
	for _, r := range relays {
		if !r.Flags.Has(netdoc.BadExit) && req.Target.fits(&r.Policy) && (len(req.Exit) == 0 || req.Exit.Match(r)) {
			exits = append(exits, r)
		}
	}
	return exits
}
