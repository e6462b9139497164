// Package timing learns how long circuits take to build: when one is late, so that another is tried beside
// it, and when it is given up. The model is Tor's path-spec, "Learning when to give up on circuit
// construction" (https://spec.torproject.org/path-spec/learning-timeouts.html).
//
//	Late     the time in which four of five circuits stand, and a quarter more: who waits longer waits for
//	         two. The late one goes on, is measured when it stands, and kept as a spare.
//	GiveUp   twice the slowest of the last hundred, 15 s at least: nobody waits any longer.
//
// What is as there: the quantile of 80 %; circuits that are given up tell nothing of how long circuits take,
// most often a relay on them was gone, so they only count as late; when more than 18 of the last 20 were
// late, what was learned before them is forgotten; as long as nothing is known, a row of failures doubles
// the limits.
//
// What differs, and why. Tor fits a Pareto curve, for it stops measuring at a limit of its own and has to
// guess the tail; here late circuits are measured to their end, and order statistics of the last hundred
// assume nothing of the curve's shape. Tor closes what is late, so that a limit which is too short starves
// it; here a limit that is too short costs a second circuit, which then is a spare. Tor builds circuits for
// measuring only; here none is.
//
// Why it cannot lock up: a circuit that is late still comes, and is learned from. Only giving up could keep
// every circuit away; but three in a row double that limit, up to a minute, more than a request waits.
//
// The package is pure: times come in as arguments, nothing is kept but the last hundred, and they are of
// circuits of one length to wherever they went.
package timing

import (
	"math"
	"slices"
	"time"
)

const (
	historySize = 100 // Tor keeps 1,000, for its curve; a client of ours has replaced these within hours
	minKnown    = 20  // with fewer nothing is said to be learned; Tor waits for 100
	recentSize  = 20  // as Tor's cbtrecentcount
	maxRecent   = 18  // late ones of them, as Tor's cbtmaxtimeouts: beyond, the network is another one
	maxRow      = 3   // given up in a row: the limit may be the cause

	lateQuantile = 0.8 // as Tor's cbtquantile
	lateMargin   = 4   // a fourth more: where all take equally long, none is late

	// Before anything is known: a first circuit meets cold links, which take two more round trips each.
	initialLate   = 3 * time.Second
	initialGiveUp = 20 * time.Second

	minLate = 100 * time.Millisecond // nobody notices a shorter wait
	maxLate = maxGiveUp / 2

	// A link that has died is noticed before this, and its circuits with it: who is given up was slow.
	minGiveUp = 15 * time.Second
	maxGiveUp = 60 * time.Second // a request waits no longer
)

// Times is what was learned. The zero value knows nothing. It is not safe for concurrent use.
type Times struct {
	history []time.Duration // of the last circuits that stood, oldest first
	recent  []outcome       // the last circuits, oldest first
	row     int             // how many have been given up since one stood
	doubled int             // how often the initial limits were doubled
}

type outcome struct{ late, stood bool }

// Built notes that a circuit stands, late or not, and how long that took.
func (t *Times) Built(took time.Duration) {
	t.row = 0
	late := took > t.Late()
	t.history = push(t.history, took, historySize)
	if len(t.history) >= minKnown {
		t.doubled = 0
	}
	t.note(outcome{late: late, stood: true})
}

// GivenUp notes that a circuit was given up after GiveUp. One that failed before is not told here: it says
// nothing of time.
func (t *Times) GivenUp() {
	t.row++
	if t.row%maxRow == 0 {
		// What was learned before is of another network, or of none.
		t.history, t.recent = nil, nil
		if initialGiveUp<<t.doubled < maxGiveUp {
			t.doubled++
		}
		return
	}
	t.note(outcome{late: true})
}

// note adds to the recent circuits, and forgets what was learned before them when nearly all are late.
func (t *Times) note(o outcome) {
	t.recent = push(t.recent, o, recentSize)
	late, stood := 0, 0
	for _, r := range t.recent {
		if r.late {
			late++
		}
		if r.stood {
			stood++
		}
	}
	if late > maxRecent {
		t.history = slices.Clone(t.history[max(0, len(t.history)-stood):])
		t.recent = nil
	}
}

// push appends to a list of at most size, from which the oldest goes.
func push[T any](list []T, v T, size int) []T {
	if len(list) == size {
		copy(list, list[1:])
		list = list[:size-1]
	}
	return append(list, v)
}

// Late returns after how long a second circuit is worth its cost.
func (t *Times) Late() time.Duration {
	if len(t.history) < minKnown {
		return min(initialLate<<t.doubled, maxLate)
	}
	quantile := t.Quantile(lateQuantile)
	return min(max(quantile+quantile/lateMargin, minLate), maxLate)
}

// GiveUp returns after how long a circuit is given up. It is never less than Late.
func (t *Times) GiveUp() time.Duration {
	if len(t.history) < minKnown {
		return min(initialGiveUp<<t.doubled, maxGiveUp)
	}
	return max(min(2*slices.Max(t.history), maxGiveUp), minGiveUp, t.Late())
}

// Known returns how many circuits Quantile speaks of.
func (t *Times) Known() int { return len(t.history) }

// Quantile returns within which time this part (0 to 1) of the last hundred circuits stood; 0 before the first.
func (t *Times) Quantile(part float64) time.Duration {
	if len(t.history) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t.history))
	rank := int(math.Ceil(part*float64(len(sorted)))) - 1 // nearest rank
	return sorted[min(max(rank, 0), len(sorted)-1)]
}
