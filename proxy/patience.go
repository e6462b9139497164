package proxy

import (
	"sync"
	"time"

	"torproxy/proxy/timing"
)

// patience is what package timing has learned, for concurrent use.
type patience struct {
	mu    sync.Mutex
	times timing.Times
}

// learn notes an attempt to build a circuit. One that failed tells nothing of time, unless it was given up.
func (p *patience) learn(took time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.times.Built(took)
	case failureOf(err) == FailureTimeout:
		p.times.GivenUp()
	}
}

// late and giveUp are timing's limits.
func (p *patience) late() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.times.Late()
}

func (p *patience) giveUp() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.times.GiveUp()
}

// A link to a guard counts as failed when it takes so many times as long as makes a circuit late, though it is a
// part of the path only, and never before minLink.
const (
	linkLate = 4
	minLink  = time.Second
)

// link is how long a guard is waited for.
func (p *patience) link() time.Duration { return max(linkLate*p.late(), minLink) }

func (p *patience) stats(s *Stats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.BuildMedian, s.Build80, s.Build95 = p.times.Quantile(0.5), p.times.Quantile(0.8), p.times.Quantile(0.95)
	s.Late, s.GiveUp = p.times.Late(), p.times.GiveUp()
}
