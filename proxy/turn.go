package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"torproxy/proxy/route"
	"torproxy/wire/netdoc"
)

// How a dial gets its circuit:
//
//  1. one that carries its label already, else a spare: at once                        pool.take
//  2. none: it waits in the turn for its purpose, which the first dial to come has opened; many dials at
//     once, as of a browser that starts, want one circuit and not many                  pool.join
//  3. the turn's circuit is built for those who wait and reserved for them; whatever else arrives meanwhile
//     and fits, they take                                                              build.go, pool.add
//  4. who gives up leaves; the circuit that nobody waits for any more is a spare       pool.leave

// purpose is what a circuit is built for when no spare fits.
type purpose struct {
	label
	target route.Target
}

// turn is a circuit being built for a purpose, and the dials that wait for it. Its fields are under pool.mu
// but for err, which is set before done is closed.
type turn struct {
	label   label
	waiting int
	given   bool  // a circuit for it has arrived
	gives   *held // that one, reserved until it is taken
	done    chan struct{}
	err     error // why there is none
}

// circuitFor returns a circuit for a stream, from the pool or built for it. It counts as pending.
func (p *Proxy) circuitFor(ctx context.Context, w *want) (*held, error) {
	began, result := time.Now(), "ready"
	var t *turn
	defer func() {
		if t != nil {
			p.pool.leave(t)
		}
	}()
	for {
		c, err := p.awaitRoute(ctx)
		if err != nil {
			return nil, err
		}
		p.pool.retireGone(c)
		arrived := p.pool.arrivals()
		if h, fresh := p.pool.take(w.label, w.choice.key(), w.fits); h != nil {
			p.demand.asked(w.route(p.cfg.Hops), fresh)
			p.pool.wakeSpares()
			w.trace.found(h, time.Since(began), result)
			return h, nil
		}
		if t == nil {
			t = p.joinTurn(c, w)
		}
		select {
		case <-t.done:
			if t.err != nil {
				if _, none := errors.AsType[*route.NoExit](t.err); none {
					p.demand.asked(w.route(p.cfg.Hops), false) // another consensus may have one, and Progress says that this has not
				}
				return nil, t.err
			}
			p.pool.leave(t)
			t = nil
		case <-arrived:
		case <-ctx.Done():
			return nil, fmt.Errorf("proxy: waiting for a circuit: %w", ctx.Err())
		}
		result = "built"
	}
}

// joinTurn waits in the turn for what is wanted, and begins to build if that is new. What is built is built
// to the end, whoever gives up.
func (p *Proxy) joinTurn(c *netdoc.Consensus, w *want) *turn {
	shared := len(w.avoid) == 0 // else what fits this dial is not what fits others
	t, first := p.pool.join(w.purpose, shared)
	if first {
		b := p.newBuild(c, w.route(p.cfg.Hops), t, w.trace)
		why := w.purpose
		begun := p.pool.whileOpen(func() {
			err := b.run(p.alive)
			p.pool.endTurn(why, t, err)
		})
		if !begun {
			p.pool.endTurn(why, t, errStopped)
		}
	}
	return t
}

// join enters a dial in the turn for its purpose; first says that it has just been made. A turn that is not
// shared is always new.
func (p *pool) join(why purpose, shared bool) (t *turn, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t = p.turns[why]; t == nil || !shared {
		t, first = &turn{label: why.label, done: make(chan struct{})}, true
		if shared {
			p.turns[why] = t
		}
	}
	t.waiting++
	return t, first
}

// leave ends a dial's wait. The circuit of a turn that nobody waits in is everybody's.
func (p *pool) leave(t *turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.waiting--
	if t.waiting == 0 && t.gives != nil {
		t.gives.reserved, t.gives = nil, nil
		p.arrivedLocked()
	}
}

// endTurn lets those go on who waited in a turn: its circuit stands, or err says why not.
func (p *pool) endTurn(why purpose, t *turn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.turns[why] == t {
		delete(p.turns, why)
	}
	t.err = err
	close(t.done)
}

// awaited reports whether anybody waits in a turn; nil is for nobody in particular.
func (p *pool) awaited(t *turn) bool {
	if t == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return t.waiting > 0
}

// arrivals returns a channel that is closed when the next circuit has arrived. Take it before looking.
func (p *pool) arrivals() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.arrived
}

// arrivedLocked wakes those who wait for any circuit that fits. p.mu is held.
func (p *pool) arrivedLocked() {
	close(p.arrived)
	p.arrived = make(chan struct{})
}
