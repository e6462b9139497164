package proxy

import (
	"time"

	"torproxy/wire/netdoc"
)

// A circuit takes no new streams any more, and goes with its last one, when
//
//	it is past its time                           tend
//	a new identity was asked for                  retireAll
//	the consensus does not list one of its relays retireGone
//	a stream found it gone, full or silent        retire
//	it has become slow, or mute                   answeredLocked, awaitEnd: slow.go
//
// It goes at once, and its streams with it, when a link on its way dies: pool.remove. So does one without streams
// when there are too many: makeRoomLocked.
const (
	usedLifetime  = 10 * time.Minute // so long after its first stream
	spareLifetime = 30 * time.Minute // an unused one is replaced: weights change, and relays come
	closeTimeout  = 30 * time.Second // for an exit to answer the end of a retired circuit's last stream

	// Circuits that stand, beyond which idle ones go: every page may have labels of its own, and some program
	// takes a new one for each connection. A person's hundred sites within usedLifetime are far fewer; a link
	// to a guard carries 16,384, and each costs its relays something.
	maxStanding = 512
)

// tend retires circuits that are past their time, and closes those whose exits do not answer in time. Of
// old spares one goes at a time, so that all are never missing at once; of a client that is not in use the
// last one stays: nothing is built for nobody.
func (p *pool) tend(now time.Time, inUse bool) {
	oldest, spares := p.oldestSpare()
	p.retireIf(func(h *held) bool {
		if h == oldest && h.spare() {
			return now.Sub(h.circuit.Began()) > spareLifetime && (inUse || spares > 1)
		}
		return h.used && now.Sub(h.firstUse) > usedLifetime
	})
}

// makeRoomLocked closes the circuit that has been idle the longest when there are too many, and with it
// whatever its last stream has still on its way. One with a stream stays, so there may be more; spares have a
// bound of their own. p.mu is held.
func (p *pool) makeRoomLocked() {
	var idlest *held
	standing := 0
	for _, h := range p.circuits {
		if h.crowded {
			continue
		}
		standing++
		if h.idle() && (idlest == nil || h.lastUse.Before(idlest.lastUse)) {
			idlest = h
		}
	}
	if standing > maxStanding && idlest != nil {
		idlest.retired, idlest.crowded = true, true
		idlest.circuit.Close()
		p.changedLocked()
	}
}

// idle reports whether a circuit carries nothing, and is no spare: it has a label, or waits for its guard.
func (h *held) idle() bool {
	return (h.used || h.guard != nil) && h.pending == 0 && len(h.streams) == 0
}

// oldestSpare returns the oldest spare, nil if there is none, and how many there are.
func (p *pool) oldestSpare() (oldest *held, spares int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.circuits {
		if !h.spare() {
			continue
		}
		spares++
		if oldest == nil || h.circuit.Began().Before(oldest.circuit.Began()) {
			oldest = h
		}
	}
	return oldest, spares
}

// retireGone retires circuits through relays that a consensus does not list: most often they are dead, and a
// new stream would wait for them until their link's time-out.
func (p *pool) retireGone(c *netdoc.Consensus) {
	p.retireIf(func(h *held) bool {
		for _, r := range h.circuit.Route() {
			if _, listed := c.Relay(r.ID); !listed {
				return true
			}
		}
		return false
	})
}

// retireIf retires the circuits that f says, and closes retired ones that are done with.
func (p *pool) retireIf(f func(*held) bool) {
	p.mu.Lock()
	var due []*held
	for _, h := range p.circuits {
		if !h.retired && f(h) {
			h.retired = true
			p.changedLocked()
		}
		if h.retired {
			due = append(due, h)
		}
	}
	p.mu.Unlock()
	for _, h := range due {
		p.closeIfDone(h)
	}
}

func (p *pool) retire(h *held) {
	p.mu.Lock()
	h.retired = true
	p.changedLocked()
	p.mu.Unlock()
	p.closeIfDone(h)
}

// linkGrace is how long after a circuit its link is seen to be dead, if it was that.
const linkGrace = 10 * time.Millisecond

// gone looks after a circuit that broke whether its link has died, and if so retires all others on it: else
// one dial might try one after the other.
func (p *pool) gone(broken *held) {
	l := broken.circuit.Link()
	grace := time.NewTimer(linkGrace)
	defer grace.Stop()
	select {
	case <-l.Done():
		p.retireIf(func(h *held) bool { return h.circuit.Link() == l })
	case <-grace.C:
	}
}

// retireAll retires every circuit that has carried a stream, and those that dials of this moment will take.
func (p *pool) retireAll() {
	p.mu.Lock()
	p.identity++
	p.changedLocked()
	var used []*held
	for _, h := range p.circuits {
		if h.used {
			h.retired = true
			used = append(used, h)
		}
	}
	p.mu.Unlock()
	for _, h := range used {
		p.closeIfDone(h)
	}
}

func (p *pool) closeIfDone(h *held) {
	p.mu.Lock()
	ended := h.ending == 0 || time.Since(h.lastClose) > closeTimeout
	done := h.retired && h.pending == 0 && len(h.streams) == 0 && ended
	p.mu.Unlock()
	if done {
		h.circuit.Close()
	}
}
