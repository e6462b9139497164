package relay

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"
)

// errOverloaded means that a CREATE could not be looked at in time.
var errOverloaded = errors.New("relay: too many circuits wait to be peeled")

// peelPool lets as many goroutines peel at once as there are processors, and a bounded number wait: so
// circuits being built cannot starve the circuits in use.
type peelPool struct {
	slots    chan struct{}
	waiting  atomic.Int64
	deadline time.Duration // that one may wait
}

func newPeelPool() *peelPool {
	return &peelPool{slots: make(chan struct{}, runtime.GOMAXPROCS(0)), deadline: peelDeadline}
}

// do runs f in a slot; errOverloaded if the queue is full or its deadline passes first.
func (p *peelPool) do(ctx context.Context, f func()) error {
	if p.waiting.Add(1) > peelQueue {
		p.waiting.Add(-1)
		return errOverloaded
	}
	timeout := time.NewTimer(p.deadline)
	defer timeout.Stop()
	select {
	case p.slots <- struct{}{}:
		p.waiting.Add(-1)
	case <-timeout.C:
		p.waiting.Add(-1)
		return errOverloaded
	case <-ctx.Done():
		p.waiting.Add(-1)
		return ctx.Err()
	}
	defer func() { <-p.slots }()
	f()
	return nil
}
