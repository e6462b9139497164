package guard

import (
	"fmt"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// Attempt is one circuit that is to be built through a guard. Its end is told, once, by one of Built, Answered,
// Silent, Failed and Canceled.
type Attempt struct {
	Relay *netdoc.Relay

	id     wire.ID
	turn   uint64    // when it began, or the attempt whose dial it shares
	better []wire.ID // guards that would rather have been taken; none: the circuit need not wait for any
	done   bool
	waits  time.Time // since when its circuit has been waiting
}

// WaitError says that there is no guard to try at the moment.
type WaitError struct {
	Until time.Time // when to ask again, if nothing is heard of an attempt before
	Down  bool      // nothing answers: the network seems to be down
	Now   time.Time
}

func (e *WaitError) Error() string {
	in := max(e.Until.Sub(e.Now), 0).Round(time.Second)
	if e.Down {
		return fmt.Sprintf("no guard answers: is this machine connected? The next attempt is in %v", in)
	}
	return fmt.Sprintf("no guard that fits answers; the next attempt is in %v", in)
}

// Pick chooses the first hop of a circuit that is built now: the best guard that fits and is not known to
// fail. fits reports whether a route with this first hop exists beside the exit that was drawn; nil: it does.
//
// Nil and no error: no guard of the sample fits, whatever its state. Nil and a *WaitError: those that fit
// have failed just now, or what is heard of another attempt is to be waited for.
func (s *State) Pick(fits func(*netdoc.Relay) bool, now time.Time) (*Attempt, error) {
	return s.pick(nil, fits, now)
}

// PickBeside is Pick beside an attempt whose link is late in coming: it chooses the next best guard, if that is
// a primary or has answered before. Its circuit waits until the late guard has failed.
func (s *State) PickBeside(late *Attempt, fits func(*netdoc.Relay) bool, now time.Time) (*Attempt, error) {
	return s.pick(late, fits, now)
}

func (s *State) pick(late *Attempt, fits func(*netdoc.Relay) bool, now time.Time) (*Attempt, error) {
	s.advance(now)
	p := search{s: s, late: late, fits: fits, until: now.Add(otherRetryMax)}
	if i := p.choose(); i >= 0 {
		return s.begin(p.fitting[i], p.fitting[:i]), nil
	}
	if len(p.fitting) == 0 {
		return nil, nil
	}
	if late == nil && s.allFail() {
		s.endRound(true)
		p.until = earlier(p.until, s.net.round)
	}
	if !p.until.After(now) {
		p.until = now.Add(roundMin)
	}
	return nil, &WaitError{Until: p.until, Down: s.Down(), Now: now}
}

// search is one search for a guard.
type search struct {
	s       *State
	late    *Attempt // nil: none
	fits    func(*netdoc.Relay) bool
	fitting []*guard // those seen so far, the best first
	until   time.Time
	waits   bool // what is heard of an attempt under way decides
}

// choose returns the position of the guard to take among those that fit, -1 if there is none.
func (p *search) choose() int {
	s := p.s
	for _, g := range s.ranked() {
		if !p.suits(g) {
			continue
		}
		i := len(p.fitting)
		p.fitting = append(p.fitting, g)
		switch {
		case !g.keyless.IsZero():
			p.wait(g.keyless.Add(keyPatience))
			return -1
		case p.late != nil && p.late.id == g.id:
			p.waits = true
		case g.reach == yes:
			return i
		case g.reach == no && s.now.Before(g.retry):
			p.until = earlier(p.until, g.retry)
		case s.isPrimary(g) && g.reach == maybe:
			return i
		case g.pending > 0 && s.now.Before(g.tried.Add(exploreAlone)):
			p.wait(g.tried.Add(exploreAlone))
		case s.isPrimary(g):
			return i // another attempt at one that failed, one at a time
		case p.waits || !s.mayWalk():
		case g.idle(s.now):
			return i
		}
	}
	return p.leastRecent()
}

// suits reports whether a guard fits, as far as can be told: a primary whose onion key is on its way is taken
// to fit.
func (p *search) suits(g *guard) bool {
	if g.keyless.IsZero() {
		return p.fits == nil || p.fits(g.relay)
	}
	return p.s.isPrimary(g) && p.s.now.Before(g.keyless.Add(keyPatience))
}

// leastRecent returns, when the network seems to be down and a guard that is no primary is due, the one that
// has not been tried for longest.
func (p *search) leastRecent() int {
	if p.waits || p.s.net.rounds == 0 || !p.s.mayWalk() {
		return -1
	}
	oldest := -1
	for i, g := range p.fitting {
		if !p.s.isPrimary(g) && g.idle(p.s.now) && (oldest < 0 || g.tried.Before(p.fitting[oldest].tried)) {
			oldest = i
		}
	}
	return oldest
}

// wait has the search end without a guard that has not answered yet.
func (p *search) wait(until time.Time) {
	p.waits = true
	p.until = earlier(p.until, until)
}

// idle reports whether nothing is under way at a guard. An attempt whose end is not told is given up for lost.
func (g *guard) idle(now time.Time) bool { return g.pending == 0 || now.Sub(g.tried) > waitLifetime }

func (s *State) begin(g *guard, better []*guard) *Attempt {
	s.turn++
	a := &Attempt{Relay: g.relay, id: g.id}
	for _, b := range better {
		a.better = append(a.better, b.id)
	}
	if !s.isPrimary(g) && g.reach != yes {
		s.walked()
	}
	if g.dial == 0 {
		g.dial = s.turn
	}
	a.turn = g.dial
	g.pending++
	g.tried = s.now
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
