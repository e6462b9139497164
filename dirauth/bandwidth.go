package dirauth

import (
	"math/rand/v2"
	"slices"
	"time"

	"torproxy/wire/netdoc"
)

const (
	valuesKept     = 5                // of a relay's measurements: their median is what is voted
	shareOfRound   = 8                // one transfer is at most this part of what may be sent in a round
	measureRounds  = 6                // a relay is measured once in so many rounds
	leastMeasureIn = 30 * time.Second // but not more often than this
	mostMeasureIn  = 6 * time.Hour
	settle         = time.Minute // at most so long, else a round, a relay has run before it is measured
)

// measurePlan says when relays are measured and with how much, from the length of the network's rounds.
type measurePlan struct {
	settle   time.Duration
	interval time.Duration
	most     int // bytes of one transfer
}

func newMeasurePlan(p netdoc.Params) measurePlan {
	round := time.Duration(p.Round)
	return measurePlan{
		settle:   min(round, settle),
		interval: min(max(measureRounds*round, leastMeasureIn), mostMeasureIn),
		most:     min(max(int(round.Seconds()*measureRate)/shareOfRound, leastTransfer), mostTransfer),
	}
}

// bandwidth is what measurements said of a relay.
type bandwidth struct {
	values    []uint64  // the latest, the newest last, at most valuesKept
	at        time.Time // of the newest
	next      time.Time // due then; the zero time: when the relay has run for a while
	measuring bool
}

// median returns what is voted, 0 if the relay was not measured.
func (b *bandwidth) median() uint64 {
	if len(b.values) == 0 {
		return 0
	}
	return lowerMedian(slices.Clone(b.values))
}

// size returns with how many bytes to measure: what the relay would carry in half a second, as far as is
// known, so that little is spent on a slow one and a fast one has time to show it.
func (p measurePlan) size(b *bandwidth) int {
	return int(min(max(b.median()/2, leastTransfer), uint64(p.most)))
}

// speed is the bandwidth by which a relay is compared with others: measured, or else what it says itself
// as far as it is believed.
func (m *member) speed() uint64 {
	if measured := m.bandwidth.median(); measured > 0 {
		return measured
	}
	return min(m.descriptor.Bandwidth, unmeasuredCap)
}

// nextMeasure returns the descriptor of a relay that is to be measured now and with how many bytes, of
// several the one that waits longest; nil if there is none, and when to ask again. The caller reports the
// result to measured.
func (r *roster) nextMeasure(now time.Time) (d *netdoc.Descriptor, size int, again time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	again = now.Add(r.plan.settle)
	var first *member
	var since time.Time
	for _, m := range r.members {
		if !m.running || m.bandwidth.measuring {
			continue
		}
		due := later(m.bandwidth.next, m.began.Add(r.plan.settle))
		switch {
		case due.After(now):
			if due.Before(again) {
				again = due
			}
		case first == nil || due.Before(since):
			first, since = m, due
		}
	}
	if first == nil {
		return nil, 0, again
	}
	first.bandwidth.measuring = true
	return first.descriptor, r.plan.size(&first.bandwidth), now
}

// measured notes how a measurement ended. 0 is one that failed: it takes the place of the oldest value, so
// that a relay which does not let itself be measured keeps no good name. The next one is due at a random
// time around the interval's end, so that relays that came together, and authorities, do not stay together.
func (r *roster) measured(d *netdoc.Descriptor, value uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[d.ID]
	if m == nil {
		return
	}
	b := &m.bandwidth
	b.measuring = false
	b.next = now.Add(r.plan.interval*3/4 + rand.N(r.plan.interval/2))
	if value > 0 {
		b.values, b.at = append(b.values, value), now
	}
	if len(b.values) > valuesKept || value == 0 && len(b.values) > 0 {
		b.values = slices.Delete(b.values, 0, 1)
	}
}
