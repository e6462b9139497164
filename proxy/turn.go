package proxy

import "torproxy/proxy/route"

// purpose is what a circuit is built for when no spare fits, and turn one dial's turn to build it: all
// others that want the same wait for it.
type purpose struct {
	label
	target route.Target
}

type turn struct {
	done chan struct{}
	err  error // after done: why it failed, if another dial's would too
}

// takeTurn returns the turn to build for a purpose; mine is false if it is another dial's.
func (p *pool) takeTurn(why purpose) (t *turn, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.turns[why]; t != nil {
		return t, false
	}
	t = &turn{done: make(chan struct{})}
	p.turns[why] = t
	return t, true
}

// endTurn lets those go on who waited for a turn.
func (p *pool) endTurn(why purpose, t *turn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.turns, why)
	t.err = err
	close(t.done)
}
