package dirauth

import (
	"slices"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

const (
	attempts     = 2                      // of one test: a second one, as datagrams and links get lost
	leastAttempt = 500 * time.Millisecond // a busy machine with short rounds
	mostAttempt  = 5 * time.Second        // a relay that needs longer is of no use in a circuit
	mostInterval = 10 * time.Minute       // between tests of one relay, in networks with long rounds
	memoryRounds = 60                     // for so many rounds a silent relay is remembered, within the next two
	leastMemory  = 5 * time.Minute
	mostMemory   = 24 * time.Hour
)

// testPlan says when relays are tested, from the length of the network's rounds.
type testPlan struct {
	params  netdoc.Params
	attempt time.Duration // what one attempt may take
	lead    time.Duration // by how much a test begins before a vote: a failed one too is over by then
	gap     time.Duration // least time between regular tests of one relay
	retry   time.Duration // after a failed test
	memory  time.Duration // a relay silent for longer is forgotten
}

func newTestPlan(p netdoc.Params) testPlan {
	round := time.Duration(p.Round)
	attempt := min(max(round/10, leastAttempt), mostAttempt)
	return testPlan{
		params:  p,
		attempt: attempt,
		lead:    attempts*attempt + attempt/2,
		gap:     min(round/2, mostInterval),
		retry:   min(round/4, mostInterval),
		memory:  min(max(memoryRounds*round, leastMemory), mostMemory),
	}
}

// next returns when a relay whose test ended at t is tested again: so that the answer is there, and fresh,
// when the next vote is made, but not before gap has passed, nor later than mostInterval.
func (p testPlan) next(t time.Time) time.Time {
	validAfter := p.params.NextRound(t)
	for {
		due := newSchedule(p.params, validAfter).open.Add(-p.lead)
		if due.Sub(t) >= mostInterval {
			return t.Add(mostInterval)
		}
		if due.Sub(t) >= p.gap {
			return due
		}
		validAfter = p.params.NextRound(validAfter)
	}
}

// membership is what tests said of a relay.
type membership struct {
	running  bool      // the latest test succeeded
	tested   bool      // there was a test
	since    time.Time // running, or not, since then, less the time in which this authority did not look
	began    time.Time // running, or not, since then, as far as this process saw it
	seen     time.Time // the latest test ended
	answered time.Time // the latest test that succeeded ended
	due      time.Time // of the next test
	testing  bool      // one is under way
}

// silent reports whether the relay was tested and does not answer.
func (m *membership) silent() bool { return m.tested && !m.running }

// before reports whether a relay whose test is due is tested before another one: those that run first, as
// clients rely on them, then those that are new. However many strangers register relays that do not
// answer, they wait for one another only.
func (m *membership) before(other *member) bool {
	if m.rank() != other.rank() {
		return m.rank() < other.rank()
	}
	return m.due.Before(other.due)
}

func (m *membership) rank() int {
	switch {
	case m.running:
		return 0
	case !m.tested:
		return 1
	default:
		return 2
	}
}

// schedule makes a test due at a time, if none is due earlier.
func (r *roster) schedule(m *member, at time.Time) {
	if !m.due.IsZero() && !at.Before(m.due) {
		return
	}
	m.due = at
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// revive tests a silent relay that registers again, now, unless it was tested just before.
func (r *roster) revive(m *member, now time.Time) {
	if m.silent() {
		r.schedule(m, now.Add(r.test.retry/4))
	}
}

// nextTest returns the descriptor of a relay whose test is due, nil if there is none, and when to ask
// again at the latest, the zero time if there is nothing to wait for. The caller reports the test's result
// to tested. Relays that were silent for too long are forgotten here.
func (r *roster) nextTest(now time.Time) (d *netdoc.Descriptor, again time.Time) {
	defer r.forgetDropped()
	r.mu.Lock()
	defer r.mu.Unlock()
	var gone []wire.ID
	for id, m := range r.members {
		switch {
		case m.testing:
		case m.silent() && now.Sub(later(m.answered, m.came)) > r.test.memory:
			r.log.Info("relay forgotten", "relay", id.Short())
			gone = append(gone, id)
		case !m.due.After(now) && (d == nil || m.before(r.members[d.ID])):
			d = m.descriptor
		case again.IsZero() || m.due.Before(again):
			again = m.due
		}
	}
	r.remove(gone...)
	if d == nil {
		return nil, again
	}
	r.members[d.ID].testing = true
	return d, now
}

// tested notes the result of a test that ended at now. A failed test of a descriptor that was replaced
// meanwhile says nothing.
func (r *roster) tested(d *netdoc.Descriptor, ok bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[d.ID]
	if m == nil {
		return
	}
	m.testing = false
	if m.descriptor.Digest() != d.Digest() {
		m.due = now
		return
	}
	if !m.tested || m.running != ok {
		m.began, m.since = now, m.sinceBefore(ok, now)
		r.log.Info("relay found running or not", "relay", d.ID.Short(), "nickname", d.Nickname, "running", ok)
	}
	m.tested, m.running, m.seen = true, ok, now
	m.due = r.test.next(now)
	if ok {
		m.answered = now
	} else if again := now.Add(r.test.retry); again.Before(m.due) {
		m.due = again
	}
}

// entries lists every relay that was tested, for a vote at now, ascending by ID.
func (r *roster) entries(now time.Time) []netdoc.VoteEntry {
	r.mu.Lock()
	defer r.mu.Unlock()
	bar := r.barLocked(now)
	entries := make([]netdoc.VoteEntry, 0, len(r.members))
	for id, m := range r.members {
		if m.tested {
			entries = append(entries, netdoc.VoteEntry{
				ID:         id,
				Descriptor: m.descriptor.Digest(),
				Published:  m.descriptor.Published,
				Measured:   m.bandwidth.median(),
				Flags:      bar.flags(m, now) | r.warnings(id),
			})
		}
	}
	slices.SortFunc(entries, func(a, b netdoc.VoteEntry) int { return netdoc.CompareIDs(a.ID, b.ID) })
	return entries
}

// running returns how many relays run, of how many that are known.
func (r *roster) running() (running, known int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		if m.running {
			running++
		}
	}
	return running, len(r.members)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
