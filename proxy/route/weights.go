package route

import (
	"math"

	"torproxy/wire/netdoc"
)

// shareUnit is the denominator of an exit's share: weights are held in its fractions.
const shareUnit = 1024

// weights gives a relay's weight in a draw.
//
// Exits are what a network is short of. If traffic is to load all relays evenly, the exit position, one of
// Hops, needs 1/Hops of the whole bandwidth. With E the exits' bandwidth and T everybody's:
//
//	E <= T/Hops:  exits serve as exits only
//	else:         at other positions an exit counts with the part of it that is to spare, (E - T/Hops) / E
//
// Exits that count with nothing are still drawn when no other relay fits.
type weights struct {
	limit uint64 // a single relay's weight is cut here: shareUnit times all of them still fits
	share uint64 // of an exit at other positions, in 1/shareUnit
}

func weigh(relays []*netdoc.Relay, hops int) weights {
	w := weights{limit: math.MaxUint64 / shareUnit / uint64(max(len(relays), 1))}
	var exits, all uint64
	for _, r := range relays {
		weight := w.of(r)
		all += weight
		if isExit(r) {
			exits += weight
		}
	}
	needed := all / uint64(hops)
	if exits > needed {
		w.share = (exits - needed) * shareUnit / exits
	}
	return w
}

// of returns a relay's plain weight, at least 1: a relay without a weight is new, not worthless.
func (w weights) of(r *netdoc.Relay) uint64 { return min(max(r.Weight, 1), max(w.limit, 1)) }

// exit returns the weight in the draw of an exit.
func (w weights) exit(r *netdoc.Relay) uint64 { return w.of(r) }

// inner returns the weight in the draw of any other hop.
func (w weights) inner(r *netdoc.Relay) uint64 {
	if isExit(r) {
		return w.of(r) * w.share
	}
	return w.of(r) * shareUnit
}

func isExit(r *netdoc.Relay) bool {
	return !r.Flags.Has(netdoc.BadExit) && r.Policy.IsExit()
}
