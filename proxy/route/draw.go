package route

import (
	"errors"
	"math/rand/v2"
	"slices"

	"torproxy/wire/netdoc"
)

// maxWork bounds one search, in relays looked at. The first attempt nearly always succeeds, after one look
// at each relay per hop. Only a network in which almost any two relays exclude one another can reach the
// bound; it then counts as having no route. A network of 20 relays is always searched to the end.
const maxWork = 1 << 22

// draw is one search for a route.
type draw struct {
	rnd   *rand.Rand
	rules rules
	weigh weights
	work  int

	first  func(fits func(*netdoc.Relay) bool) (*netdoc.Relay, error) // nil: the first hop is drawn
	firsts []*netdoc.Relay                                            // which of them first may choose
	err    error                                                      // of first
}

// route draws the exit, and for each exit the rest. It returns nil when there is none.
func (d *draw) route(relays, exits []*netdoc.Relay, hops int) []*netdoc.Relay {
	d.work = 0
	exits = slices.Clone(exits)
	for len(exits) > 0 && d.work <= maxWork {
		var exit *netdoc.Relay
		exit, exits = d.pick(exits, d.weigh.exit)
		route := append(make([]*netdoc.Relay, 0, hops), exit)
		if d.first != nil {
			route = d.extendByFirst(route, d.compatible(relays, exit), hops-1)
		} else {
			route = d.extend(route, d.compatible(relays, exit), hops-1)
		}
		if route != nil {
			return append(route[1:hops:hops], exit)
		}
		if d.err != nil {
			return nil
		}
	}
	return nil
}

// extendByFirst has the first hop chosen beside the exit, and adds the others out of candidates.
func (d *draw) extendByFirst(route, candidates []*netdoc.Relay, need int) []*netdoc.Relay {
	var full []*netdoc.Relay // of the last first hop that was found to fit
	fits := func(r *netdoc.Relay) bool {
		if !slices.Contains(d.firsts, r) || d.rules.conflict(r, route[0]) {
			return false
		}
		full = d.extend(append(slices.Clip(route), r), d.compatible(candidates, r), need-1)
		return full != nil
	}
	chosen, err := d.first(fits)
	switch {
	case err != nil:
		d.err = err
		return nil
	case chosen == nil:
		return nil
	case full != nil && full[1] == chosen || fits(chosen):
		return full
	}
	d.err = errors.New("route: the first hop that was chosen does not fit")
	return nil
}

// extend adds need relays out of candidates, each of which fits beside all of the route. A candidate that
// leads nowhere is put aside and the next one drawn, so that a route is found whenever there is one. It
// uses candidates up.
func (d *draw) extend(route, candidates []*netdoc.Relay, need int) []*netdoc.Relay {
	if need == 0 {
		return route
	}
	for len(candidates) >= need && d.work <= maxWork {
		var next *netdoc.Relay
		next, candidates = d.pick(candidates, d.weigh.inner)
		if full := d.extend(append(route, next), d.compatible(candidates, next), need-1); full != nil {
			return full
		}
	}
	return nil
}

// compatible returns, in a slice of its own, the relays that may share a route with r.
func (d *draw) compatible(relays []*netdoc.Relay, r *netdoc.Relay) []*netdoc.Relay {
	d.work += len(relays)
	fit := make([]*netdoc.Relay, 0, len(relays))
	for _, other := range relays {
		if !d.rules.conflict(r, other) {
			fit = append(fit, other)
		}
	}
	return fit
}

// pick draws one relay in proportion to its weight and takes it out of relays, which it reorders.
func (d *draw) pick(relays []*netdoc.Relay, weight func(*netdoc.Relay) uint64) (*netdoc.Relay, []*netdoc.Relay) {
	d.work += len(relays)
	i := d.index(relays, weight)
	chosen, last := relays[i], len(relays)-1
	relays[i] = relays[last]
	return chosen, relays[:last]
}

// index draws a position. Uint64N rejects what would make it favour small numbers. Relays whose weight is
// zero are drawn, evenly, when no other is left.
func (d *draw) index(relays []*netdoc.Relay, weight func(*netdoc.Relay) uint64) int {
	var total uint64 // cannot overflow: see weights
	for _, r := range relays {
		total += weight(r)
	}
	if total == 0 {
		return d.rnd.IntN(len(relays))
	}
	x := d.rnd.Uint64N(total)
	for i, r := range relays {
		w := weight(r)
		if x < w {
			return i
		}
		x -= w
	}
	panic("route: draw beyond the total weight")
}
