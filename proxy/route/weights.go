package route

import (
	"math"
	"math/rand/v2"
	"slices"

	"torproxy/wire/netdoc"
)

// class is what a relay may be besides a hop in the middle, which every relay may be.
type class int

const (
	plain class = iota
	guardOnly
	exitOnly
	guardExit
	classes
)

func classOf(r *netdoc.Relay, guard bool) class {
	c := plain
	if guard {
		c |= guardOnly
	}
	if isExit(r) {
		c |= exitOnly
	}
	return c
}

func isExit(r *netdoc.Relay) bool {
	return !r.Flags.Has(netdoc.BadExit) && r.Policy.IsExit()
}

// position is a place in a route.
type position int

const (
	atGuard position = iota
	atMiddle
	atExit
	positions
)

// shares say how much of the bandwidth of each class serves at each position, from 0 to 1. What two relays'
// weights in a draw are to each other is their bandwidth times the share of their class.
type shares [classes][positions]float64

// divide gives every class its shares, in the manner of the bandwidth-weights of Tor's dir-spec (section
// 3.8.3), but for a route of any length n: guard and exit each carry 1/n of the traffic, so that each wants
// 1/n of the bandwidth, T/n; the hops between want the rest. G, E, D and M are the bandwidths of the classes
// that may be guards only, exits only, both, and neither; T is their sum.
//
//	G, E >= T/n   neither is scarce: D serves everywhere alike; G and E where they alone can, and with what
//	              that leaves of them in the middle
//	G, E < T/n    both are scarce: they serve nowhere else. D gives each what it lacks, and the rest to the
//	              middle; if it is too little for both, it evens them out
//	one < T/n     the scarce one serves nowhere else. D gives it what it lacks, and the rest to the others; if
//	              it is too little, the others share what they have
//
// A class whose share is 0 is still drawn when no other relay fits.
func divide(bandwidth [classes]float64, n int) (s shares) {
	if n == 1 { // the exit is all there is
		s[exitOnly][atExit], s[guardExit][atExit] = 1, 1
		return s
	}
	g, e, d, m := bandwidth[guardOnly], bandwidth[exitOnly], bandwidth[guardExit], bandwidth[plain]
	hops, total := float64(n), g+e+d+m
	want := total / hops
	var guards, exits, both [2]float64 // shares of G at the guard, of E at the exit, of D at both
	switch {
	case g >= want && e >= want:
		both = [2]float64{1 / hops, 1 / hops}
		guards[0], exits[1] = part((total-d)/hops, g), part((total-d)/hops, e)
	case g < want && e < want:
		guards[0], exits[1] = 1, 1
		both = [2]float64{part(want-g, d), part(want-e, d)}
		if both[0]+both[1] > 1 {
			both[0] = part(d+e-g, 2*d)
			both[1] = 1 - both[0]
		}
	case e < want:
		exits[1] = 1
		guards[0], both[0], both[1] = oneScarce(g, e, d, m, hops)
	default:
		guards[0] = 1
		exits[1], both[1], both[0] = oneScarce(e, g, d, m, hops)
	}
	s[plain] = [positions]float64{atMiddle: 1}
	s[guardOnly] = [positions]float64{atGuard: guards[0], atMiddle: 1 - guards[0]}
	s[exitOnly] = [positions]float64{atExit: exits[1], atMiddle: 1 - exits[1]}
	s[guardExit] = [positions]float64{atGuard: both[0], atMiddle: max(1-both[0]-both[1], 0), atExit: both[1]}
	return s
}

// oneScarce divides where one of guards and exits is scarce and the other plentiful. It returns the share of
// the plentiful class at its position, and those of D at that position and at the scarce one.
func oneScarce(plenty, scarce, d, m, hops float64) (own, other, lacking float64) {
	want := (plenty + scarce + d + m) / hops
	lacking = part(want-scarce, d)
	if scarce+d <= want {
		return part((plenty+m)/(hops-1), plenty), 0, 1
	}
	other = (1 - lacking) / (hops - 1)
	return part(want-other*d, plenty), other, lacking
}

// part returns a/b, between 0 and 1; 1 where there is no b to take it from.
func part(a, b float64) float64 {
	if b <= 0 {
		return 1
	}
	return min(max(a/b, 0), 1)
}

// shareUnit is the denominator of the shares in a draw.
const shareUnit = 1024

// tables hold, for routes of one length, what draws are made from.
type tables struct {
	limit  uint64 // a single relay's weight is cut here: shareUnit times all of them still fits
	shares [classes][positions]uint64
	sums   [positions][]uint64 // of the weights of the nodes up to each
}

func (ix *Index) tabulate(hops int) *tables {
	t := &tables{limit: math.MaxUint64 / shareUnit / uint64(max(len(ix.nodes), 1))}
	var bandwidth [classes]float64
	for i := range ix.nodes {
		n := &ix.nodes[i]
		bandwidth[n.class] += float64(t.bandwidth(n))
	}
	for c, row := range divide(bandwidth, hops) {
		for p, share := range row {
			t.shares[c][p] = uint64(math.Round(share * shareUnit))
		}
	}
	for p := range t.sums {
		sums, sum := make([]uint64, len(ix.nodes)), uint64(0)
		for i := range ix.nodes {
			sum += t.weigh(&ix.nodes[i], position(p))
			sums[i] = sum
		}
		t.sums[p] = sums
	}
	return t
}

// bandwidth returns a relay's bandwidth, at least 1: a relay without a weight is new, not worthless.
func (t *tables) bandwidth(n *node) uint64 { return min(max(n.relay.Weight, 1), max(t.limit, 1)) }

// weigh returns a relay's weight in the draw for a position.
func (t *tables) weigh(n *node, p position) uint64 { return t.bandwidth(n) * t.shares[n.class][p] }

// draw returns the number of a node, drawn by the weights for a position; -1 if all are zero.
func (t *tables) draw(rnd *rand.Rand, p position) int {
	sums := t.sums[p]
	if len(sums) == 0 || sums[len(sums)-1] == 0 {
		return -1
	}
	i, _ := slices.BinarySearch(sums, 1+rnd.Uint64N(sums[len(sums)-1]))
	return i
}
