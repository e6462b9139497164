package route

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// FuzzChoose draws from random networks, with relays excluded, exits chosen and the first hop out of a list of
// guards: a route keeps every rule, and where the search finds none, trying every set of relays finds none
// either, the error says so of the right rule, and Check agrees.
func FuzzChoose(f *testing.F) {
	f.Add(uint64(1), uint8(5), uint8(3), uint8(40), uint8(0))
	f.Add(uint64(2), uint8(9), uint8(8), uint8(0), uint8(1))
	f.Add(uint64(3), uint8(9), uint8(4), uint8(120), uint8(2))
	f.Add(uint64(4), uint8(0), uint8(1), uint8(255), uint8(3))
	f.Add(uint64(5), uint8(10), uint8(3), uint8(30), uint8(7))
	f.Add(uint64(6), uint8(10), uint8(3), uint8(0), uint8(15))
	f.Fuzz(func(t *testing.T, seed uint64, size, hops, density, options uint8) {
		rnd := seeded(seed)
		c := randomNetwork(t, rnd, int(size)%11, density)
		req := Request{Hops: 1 + int(hops)%wire.MaxHops, Target: TargetOf("example.com", 443), Avoid: map[wire.ID]struct{}{}}
		for i := range c.Relays {
			if rnd.IntN(8) == 0 {
				req.Avoid[c.Relays[i].ID] = struct{}{}
			}
		}
		if options&1 != 0 {
			req.Exclude = someOf(t, c, rnd)
		}
		if options&2 != 0 {
			req.Exit = someOf(t, c, rnd)
		}
		if options&8 != 0 { // so many that most of a route is drawn quickly
			for i := range 2 * quickRelays {
				c.Relays = append(c.Relays, relay(1000+i))
				req.Avoid[testID(1000+i)] = struct{}{}
			}
		}
		free := req
		if options&4 != 0 {
			req.First = firstOf(c, rnd)
		}
		ix := NewIndex(c)
		route, err := ix.Choose(req, rnd)
		if err == nil {
			checkRoute(t, c, req, route)
		} else if _, small := errors.AsType[*TooFewRelays](err); !small && routeExists(ix, req) {
			t.Errorf("there is a route, but: %v", err)
		}
		if tooFew, ok := errors.AsType[*TooFewDistinct](err); ok && (tooFew.Rule == RuleGuard) != routeExists(ix, free) {
			t.Errorf("without regard to guards there is a route: %v; the error is %v", routeExists(ix, free), err)
		}
		_, small := errors.AsType[*TooFewRelays](err)
		if possible := ix.Check(free) == nil; !small && possible != routeExists(ix, free) || err == nil && req.First == nil && !possible {
			t.Errorf("Check says that a route is possible: %v", possible)
		}
	})
}

// someOf returns selectors of some relays, by nickname or ID, and of one that is not there.
func someOf(t *testing.T, c *netdoc.Consensus, rnd *rand.Rand) Selectors {
	all := selectors(t, "nobody")
	for i := range c.Relays {
		switch rnd.IntN(6) {
		case 0:
			all = append(all, Selector{nickname: c.Relays[i].Nickname})
		case 1:
			all = append(all, Selector{id: c.Relays[i].ID})
		}
	}
	return all
}

// firstOf returns a Request.First that takes the first relay that fits out of some. It knows them from another
// copy of the consensus, as a caller may that has just got a newer one.
func firstOf(c *netdoc.Consensus, rnd *rand.Rand) func(func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
	var guards []*netdoc.Relay
	for i := range c.Relays {
		if rnd.IntN(3) == 0 {
			copied := c.Relays[i]
			guards = append(guards, &copied)
		}
	}
	return func(fits func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
		for _, r := range guards {
			if fits(r) {
				return r, nil
			}
		}
		return nil, nil
	}
}

func randomNetwork(t *testing.T, rnd *rand.Rand, n int, density uint8) *netdoc.Consensus {
	c := network(t, n, 0)
	c.Params = netdoc.ConsensusParams{MinRelays: rnd.IntN(4), SubnetRule: rnd.IntN(2) == 0}
	policies := []netdoc.Policy{policy(t, "accept *:443"), policy(t, "accept *:80"), {}}
	for i := range c.Relays {
		r := &c.Relays[i]
		r.Weight = rnd.Uint64() >> rnd.IntN(64)
		r.Policy = policies[rnd.IntN(3)]
		if rnd.IntN(10) == 0 {
			r.Flags |= netdoc.BadExit
		}
		if rnd.IntN(256) < int(density) {
			r.Addresses = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{77, byte(rnd.IntN(3)), 0, 1}), 1)}
		}
		for j := range i {
			if rnd.IntN(256) < int(density) {
				declare(c, i, j)
			}
		}
	}
	return c
}

// routeExists tries every set of relays that are not avoided, and every relay of a set as its first hop.
func routeExists(ix *Index, req Request) bool {
	d := &draw{ix: ix, req: &req, rules: ix.rules}
	var nodes []*node
	for i := range ix.nodes {
		if _, avoided := req.Avoid[ix.nodes[i].relay.ID]; !avoided || req.First != nil && i < 11 {
			nodes = append(nodes, &ix.nodes[i])
		}
	}
	for set := range 1 << len(nodes) {
		var chosen []*node
		for i, n := range nodes {
			if set&(1<<i) != 0 {
				chosen = append(chosen, n)
			}
		}
		if len(chosen) == req.Hops && isRoute(d, chosen) {
			return true
		}
	}
	return false
}

// isRoute reports whether relays make a route in some order: what stands in the middle is all the same.
func isRoute(d *draw, chosen []*node) bool {
	for i, n := range chosen {
		if d.req.Exclude.Match(n.relay) || !d.fits(n, append(chosen[:i:i], chosen[i+1:]...)) {
			return false
		}
	}
	var wanted int
	for _, n := range chosen {
		if d.isWanted(n) {
			wanted++
		}
	}
	for _, exit := range chosen {
		if !d.isExit(exit) {
			continue
		}
		if d.req.First == nil || len(chosen) == 1 {
			return wanted == len(chosen)
		}
		first, _ := d.req.First(func(r *netdoc.Relay) bool {
			n := d.ix.find(r)
			return n != exit && slices.Contains(chosen, n) && (wanted == len(chosen) || wanted == len(chosen)-1 && !d.isWanted(n))
		})
		if first != nil {
			return true
		}
	}
	return false
}
