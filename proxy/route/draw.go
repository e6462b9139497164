package route

import (
	"errors"
	"math/rand/v2"
	"slices"

	"torproxy/wire/netdoc"
)

// A draw is made in one of two ways, with the same odds:
//
//	quick   by the tables of all relays, again until one fits; given up after quickDraws
//	thorough  out of a list of those that fit
//
// The thorough way goes on until there is a route or none is possible. Small networks, where most draws would
// miss, take it from the start.

const (
	quickDraws  = 64
	quickRelays = 64 // in a network of fewer nothing is drawn quickly

	// maxWork bounds one search, in relays looked at. Only a network in which almost any two relays exclude one
	// another can reach it; it then counts as having no route. A network of 20 relays is always searched to the
	// end.
	maxWork = 1 << 22
)

// draw is one search for a route.
type draw struct {
	ix     *Index
	req    *Request
	rnd    *rand.Rand
	rules  rules
	tables *tables
	work   int

	chosen error // what Request.First returned
}

// route draws the exit, and for each exit the rest: first hop first, exit last. It returns nil when there is
// no route.
func (d *draw) route() []*node {
	if exit := d.quick(atExit, d.isExit, nil); exit != nil {
		if route := d.rest(exit); route != nil || d.chosen != nil {
			return route
		}
	}
	exits := d.list(d.isExit)
	for len(exits) > 0 && d.work <= maxWork && d.chosen == nil {
		var exit *node
		exit, exits = d.pick(exits, atExit)
		if route := d.rest(exit); route != nil {
			return route
		}
	}
	return nil
}

// rest draws what stands before an exit. It returns nil if nothing fits.
func (d *draw) rest(exit *node) []*node {
	route := append(make([]*node, 0, d.req.Hops), exit)
	switch {
	case d.req.Hops == 1:
		return route
	case d.req.First != nil:
		route = d.byFirst(route)
	default:
		route = d.extend(route, nil)
	}
	if route == nil {
		return nil
	}
	return append(route[1:len(route):len(route)], exit)
}

// byFirst has the first hop chosen beside the exit, and draws the others. Whether there are others is part of
// whether a first hop fits: it is never chosen in vain.
func (d *draw) byFirst(exit []*node) []*node {
	var full []*node // with the first hop that was last found to fit
	fits := func(r *netdoc.Relay) bool {
		n := d.ix.find(r)
		if full = nil; n == nil || d.req.Exclude.Match(n.relay) || d.rules.conflict(n, exit[0]) {
			return false
		}
		full = d.extend(append(slices.Clip(exit), n), nil)
		return full != nil
	}
	chosen, err := d.req.First(fits)
	switch {
	case err != nil:
		d.chosen = err
	case chosen == nil:
		return nil
	case full != nil && full[1].relay.ID == chosen.ID || fits(chosen):
		return full
	default:
		d.chosen = errors.New("route: the first hop that was chosen does not fit")
	}
	return nil
}

// extend completes a route of which the exit, and perhaps the first hops, stand: in the order exit, first hop,
// second hop. candidates are the relays that fit beside all of it, nil if that is still to be found out;
// they are used up. One that leads nowhere is put aside and the next one drawn, so that a route is found
// whenever there is one.
func (d *draw) extend(route, candidates []*node) []*node {
	need := d.req.Hops - len(route)
	if need == 0 {
		return route
	}
	at := atMiddle
	if len(route) == 1 {
		at = atGuard
	}
	if candidates == nil {
		if next := d.quick(at, d.isWanted, route); next != nil {
			if full := d.extend(append(route, next), nil); full != nil {
				return full
			}
		}
		candidates = d.list(func(n *node) bool { return d.isWanted(n) && d.fits(n, route) })
	}
	for len(candidates) >= need && d.work <= maxWork {
		var next *node
		next, candidates = d.pick(candidates, at)
		if full := d.extend(append(route, next), d.compatible(candidates, next)); full != nil {
			return full
		}
	}
	return nil
}

// quick draws one relay that will do and fits beside the route, or gives up.
func (d *draw) quick(at position, will func(*node) bool, route []*node) *node {
	if len(d.ix.nodes) < quickRelays {
		return nil
	}
	for range quickDraws {
		i := d.tables.draw(d.rnd, at)
		if i < 0 {
			return nil
		}
		if n := &d.ix.nodes[i]; will(n) && d.fits(n, route) {
			return n
		}
	}
	return nil
}

// isExit reports whether a relay may be the last hop.
func (d *draw) isExit(n *node) bool {
	return n.class&exitOnly != 0 && d.isWanted(n) && d.req.leadsOut(n.relay)
}

// isWanted reports whether the request leaves a relay in.
func (d *draw) isWanted(n *node) bool {
	_, avoided := d.req.Avoid[n.relay.ID]
	return !avoided && !d.req.Exclude.Match(n.relay)
}

func (d *draw) fits(n *node, route []*node) bool {
	return !slices.ContainsFunc(route, func(other *node) bool { return d.rules.conflict(n, other) })
}

// list returns the relays that will do.
func (d *draw) list(will func(*node) bool) []*node {
	d.work += len(d.ix.nodes)
	list := make([]*node, 0, len(d.ix.nodes))
	for i := range d.ix.nodes {
		if n := &d.ix.nodes[i]; will(n) {
			list = append(list, n)
		}
	}
	return list
}

// compatible returns, in a slice of its own, the relays that may share a route with n.
func (d *draw) compatible(relays []*node, n *node) []*node {
	d.work += len(relays)
	fit := make([]*node, 0, len(relays))
	for _, other := range relays {
		if !d.rules.conflict(n, other) {
			fit = append(fit, other)
		}
	}
	return fit
}

// pick draws one relay in proportion to its weight and takes it out of relays, which it reorders. Relays whose
// weight is zero are drawn, evenly, when no other is left.
func (d *draw) pick(relays []*node, at position) (*node, []*node) {
	d.work += len(relays)
	i := d.index(relays, at)
	chosen, last := relays[i], len(relays)-1
	relays[i] = relays[last]
	return chosen, relays[:last]
}

// index draws a position. Uint64N rejects what would make it favour small numbers.
func (d *draw) index(relays []*node, at position) int {
	var total uint64 // cannot overflow: see tables
	for _, n := range relays {
		total += d.tables.weigh(n, at)
	}
	if total == 0 {
		return d.rnd.IntN(len(relays))
	}
	x := d.rnd.Uint64N(total)
	for i, n := range relays {
		w := d.tables.weigh(n, at)
		if x < w {
			return i
		}
		x -= w
	}
	panic("route: draw beyond the total weight")
}
