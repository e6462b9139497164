package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"torproxy/proxy/route"
)

// Pauses between spares that fail.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 10 * time.Second
)

// keepSpares builds circuits ahead of need until ctx ends. It waits ever longer after a build that failed,
// and after a spare that did not last: else a relay that accepts circuits and drops them would keep us
// building.
func (p *Proxy) keepSpares(ctx context.Context) error {
	tick := time.NewTicker(tendInterval)
	defer tick.Stop()
	retry := retryMin
	var again <-chan time.Time // none is built before
	for ctx.Err() == nil {
		changed := p.follower.Changed()
		if again == nil && p.pool.missing(p.cfg.Spares) > 0 {
			if !p.pool.lostSpare() && p.buildSpare(ctx) == nil {
				continue
			}
			again = time.After(retry)
			retry = min(2*retry, retryMax)
		}
		select {
		case <-ctx.Done():
		case <-p.pool.spares:
		case <-changed:
			retry, again = retryMin, nil
			if c := p.follower.Current(); c != nil {
				p.pool.retireGone(c)
			}
		case <-again:
			p.pool.lostSpare() // what was lost meanwhile has been waited for
			again = nil
		case now := <-tick.C:
			p.pool.tend(now)
			if p.pool.missing(p.cfg.Spares) <= 0 {
				retry = retryMin
			}
		}
	}
	return nil
}

func (p *Proxy) buildSpare(ctx context.Context) error {
	c, err := p.usable()
	if c == nil {
		return fmt.Errorf("%w: %w", ErrNotReady, errors.Join(err))
	}
	err = p.newBuild(c, route.Request{Hops: p.cfg.Hops}, nil, trace{}).run(ctx)
	if err != nil && ctx.Err() == nil {
		p.health.allFailed(err)
	}
	return err
}

// lostSpare reports, once, that a spare has ended by itself.
func (p *pool) lostSpare() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	lost := p.lost
	p.lost = false
	return lost
}

// missing returns how many spares are not there.
func (p *pool) missing(want int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.circuits {
		if !h.used && !h.retired {
			want--
		}
	}
	return want
}

func (p *pool) wakeSpares() {
	select {
	case p.spares <- struct{}{}:
	default:
	}
}
