package guard

import (
	"slices"
	"time"

	"torproxy/wire"
)

// Verdict says what is to be done with a circuit that stands.
type Verdict int

// The verdicts.
const (
	// Wait: it must not carry streams yet, since a better guard may be there after all. For what the circuit
	// was built for, Pick is asked again at once; Check is asked when something was heard of another attempt.
	Wait Verdict = iota
	// Use: it may carry streams, and that does not change.
	Use
	// Discard: it has waited too long, or its guard is none any more. It is closed.
	Discard
)

// Built says that the circuit stands.
func (s *State) Built(a *Attempt, now time.Time) Verdict {
	g := s.end(a, now)
	if g == nil {
		return Discard
	}
	s.alive(g)
	g.tally.count(true)
	a.waits = now
	return s.Check(a, now)
}

// Answered says that the circuit failed behind the guard: it was the guard, or the way to a later hop, that
// said so.
func (s *State) Answered(a *Attempt, now time.Time) {
	if g := s.end(a, now); g != nil {
		s.alive(g)
		g.tally.count(false)
	}
}

// Failed says that no link to the guard could be made, or that it refused the circuit itself.
func (s *State) Failed(a *Attempt, now time.Time) {
	if g := s.end(a, now); g != nil {
		s.fail(g, a)
	}
}

// Silent says that the link to the guard stood, but that no answer came in time: any hop may be the silent
// one. behind are the later hops. Only when that happens again and again it is the guard, and a silence counts
// only if no hop behind was there in one that has been counted: one relay, or a user who keeps to one exit,
// makes no more than one silence.
func (s *State) Silent(a *Attempt, behind []wire.ID, now time.Time) {
	g := s.end(a, now)
	if g == nil || slices.ContainsFunc(behind, func(id wire.ID) bool { return slices.Contains(g.suspects, id) }) {
		return
	}
	g.tally.count(false)
	g.suspects = append(g.suspects, behind...)
	if g.silent++; g.silent >= s.silences {
		g.silent, g.suspects = 0, nil
		s.fail(g, a)
	}
}

// Canceled says that the attempt was given up and nothing is known.
func (s *State) Canceled(a *Attempt, now time.Time) { s.end(a, now) }

// end returns the guard of an attempt that has ended: nil if it is none any more, or the end was told before.
func (s *State) end(a *Attempt, now time.Time) *guard {
	s.advance(now)
	if a.done {
		return nil
	}
	a.done = true
	g := s.find(a.id)
	if g == nil || g.pending == 0 {
		return nil
	}
	if g.pending--; g.pending == 0 {
		g.dial = 0
	}
	return g
}

func (s *State) alive(g *guard) {
	s.answered(g)
	g.dial = 0
	s.blockade = false
	g.reach, g.silent, g.suspects = yes, 0, nil
	g.retry, g.delay = time.Time{}, 0
}

func (s *State) fail(g *guard, a *Attempt) {
	g.dial = 0
	if a.turn < s.net.up {
		return // the network was not known to be there: the next attempt counts
	}
	switch {
	case g.reach == yes && s.net.seen < a.turn:
		s.net.up = 0 // nothing has answered since: it may be the network that has gone
		fallthrough
	case g.reach != no:
		s.net.left = max(s.net.left-1, 0)
	}
	g.reach, g.failed = no, a.turn
	s.schedule(g)
	s.blockade = s.blockade || s.certain() && s.allFail()
	if !s.certain() {
		s.endRound(false)
	}
}

// schedule sets when a guard that failed is tried again: after a delay drawn between the least and three
// times the one before, so that a client is not known by its rhythm (dir-spec section 5.5, "decorrelated
// jitter").
func (s *State) schedule(g *guard) {
	least, most := otherRetry, otherRetryMax
	if s.isPrimary(g) {
		least, most = primaryRetry, primaryRetryMax
	}
	g.delay = min(least+time.Duration(s.rnd.Int64N(int64(max(3*g.delay-least, least)))), most)
	g.retry = s.now.Add(g.delay)
}

// Check returns what is to be done with a circuit that stands and has been waiting.
func (s *State) Check(a *Attempt, now time.Time) Verdict {
	s.advance(now)
	g := s.find(a.id)
	switch {
	case g == nil || !g.listed():
		return Discard
	case !s.blocked(a):
		s.confirm(g)
		return Use
	case now.Sub(a.waits) > waitLifetime:
		return Discard
	}
	return Wait
}

// blocked reports whether a better guard may be there. A primary is not when an attempt failed that began
// while the network was there; another guard only if it is being tried, or has answered.
func (s *State) blocked(a *Attempt) bool {
	for _, id := range a.better {
		b := s.find(id)
		if b == nil || !b.listed() || !b.keyless.IsZero() {
			continue
		}
		known := b.reach == no && s.net.up != 0 && b.failed >= s.net.up
		trying := b.reach == maybe && b.pending > 0 && s.now.Before(b.tried.Add(exploreBlock))
		if b.reach == yes || trying || s.isPrimary(b) && !known {
			return true
		}
	}
	return false
}
