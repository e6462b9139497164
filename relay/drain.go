package relay

import (
	"context"
	"sync"
)

// drain is the state of a relay that is about to stop: it takes no circuit more, so that those that run
// can end by themselves.
type drain struct {
	once    sync.Once
	began   chan struct{} // closed
	circuit chan struct{} // of size 1: a circuit has ended
}

func newDrain() *drain {
	return &drain{began: make(chan struct{}), circuit: make(chan struct{}, 1)}
}

func (d *drain) under() bool {
	select {
	case <-d.began:
		return true
	default:
		return false
	}
}

// ended is called when a circuit has.
func (d *drain) ended() {
	select {
	case d.circuit <- struct{}{}:
	default:
	}
}

// Drain makes the relay turn new circuits away, as overloaded, and publish nothing more: the authorities'
// tests fail from then on, so the next consensus leaves it out. It returns when no circuit is left, or
// when ctx ends, how many are left then. Run goes on until its own context ends.
func (r *Relay) Drain(ctx context.Context) (left int) {
	r.drain.once.Do(func() { close(r.drain.began) })
	for {
		left = r.Circuits()
		if left == 0 {
			return 0
		}
		select {
		case <-r.drain.circuit:
		case <-ctx.Done():
			return left
		}
	}
}

// publish registers the relay until ctx ends or the relay is drained.
func (r *Relay) publish(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-ctx.Done():
		case <-r.drain.began:
			cancel()
		}
	})
	return r.publisher.Run(ctx)
}
