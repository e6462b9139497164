// Package route chooses the relays of a circuit from a consensus.
//
//	NewIndex   prepare a consensus once: classes, weights by position, subnets     index.go, weights.go
//	Choose     draw a route, in this order                                         draw.go
//	             1. the exit, among the relays whose policy fits the target
//	             2. the first hop: this client's guard (Request.First), or drawn
//	             3. the hops between, each among the relays that fit beside those already drawn
//	           no route: say which rule or which option leaves none                errors.go
//
// Every draw is random in proportion to the relays' weights for the position, without replacement. Two relays
// of one route are never the same relay, never of one family, and, where the consensus asks for it, never of
// one subnet (IPv4 /16, IPv6 /32). No rule is ever relaxed.
//
// The exit is drawn as if there were no guards: beside an exit that the first guard does not fit, the next
// guard is used that does, and only if none does, another exit is drawn. Else whoever sees a client's exits
// could tell its guard from the exits that it never uses.
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

// fits reports whether a policy accepts the target. For a name it can only say that most
// addresses with this port would be accepted.
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

// leadsOut reports whether a relay that is an exit would do as the last hop.
func (req *Request) leadsOut(r *netdoc.Relay) bool {
	return (len(req.Exit) == 0 || req.Exit.Match(r)) && req.Target.fits(&r.Policy)
}

// Choose draws a route: Hops relays, the first hop first and the exit last. They are the consensus's own
// and must not be changed. It is safe for concurrent use if rnd is (NewRand's is).
//
// Whether the consensus suits the clock is the caller's to check. When no route satisfies the request the
// error is a *TooFewRelays, *NoExit or *TooFewDistinct, or what Request.First returned.
func (ix *Index) Choose(req Request, rnd *rand.Rand) ([]*netdoc.Relay, error) {
	if req.Hops < 1 || req.Hops > wire.MaxHops {
		return nil, fmt.Errorf("route: %d hops asked for, possible are 1 to %d", req.Hops, wire.MaxHops)
	}
	if least := ix.consensus.Params.MinRelays; len(ix.nodes) < least {
		return nil, &TooFewRelays{Have: len(ix.nodes), Need: least}
	}
	d := &draw{ix: ix, req: &req, rnd: rnd, rules: ix.rules, tables: ix.tables[req.Hops]()}
	route := d.route()
	switch {
	case d.chosen != nil:
		return nil, d.chosen
	case route == nil:
		return nil, d.explain()
	}
	relays := make([]*netdoc.Relay, len(route))
	for i, n := range route {
		relays[i] = n.relay
	}
	return relays, nil
}
