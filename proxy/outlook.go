package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"torproxy/proxy/need"
	"torproxy/proxy/route"
	"torproxy/wire/netdoc"
)

// waitReady is how long a Dial waits for the network before it says what is missing.
const waitReady = 20 * time.Second

// outlooks is whether one consensus has routes of our length, and where to. Each is found out once: a
// consensus never changes, and a copy of it with more onion keys is another one. The zero kind is anywhere.
type outlooks struct {
	mu        sync.Mutex
	consensus *netdoc.Consensus
	found     map[need.Kind]error // why there is none
}

// maxOutlooks bounds the kinds that are remembered; those that are predicted are fewer.
const maxOutlooks = 64

// anywhere asks for a route of our length to wherever it leads.
func (p *Proxy) anywhere() route.Request {
	return route.Request{Hops: p.cfg.Hops, Exit: p.cfg.Exit, Exclude: p.cfg.Exclude}
}

// routable reports why the consensus has no route of our length, nil if it has.
func (p *Proxy) routable(c *netdoc.Consensus) error { return p.routableTo(c, p.anywhere()) }

// routableTo reports why the consensus has no route for circuits of a kind, nil if it has.
func (p *Proxy) routableTo(c *netdoc.Consensus, req route.Request) error {
	o := &p.outlooks
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.consensus != c || len(o.found) > maxOutlooks {
		o.consensus, o.found = c, map[need.Kind]error{}
	}
	kind := p.demand.kindOf(req)
	err, known := o.found[kind]
	if !known {
		err = p.routes.Of(c).Check(req)
		o.found[kind] = err
	}
	return err
}

// usable returns the consensus to route by; without one, why (nil: none was seen yet).
func (p *Proxy) usable() (*netdoc.Consensus, error) {
	c := p.follower.Current()
	if c == nil {
		return nil, p.follower.Problem()
	}
	if err := c.Check(time.Now()); err != nil {
		if problem := p.follower.Problem(); problem != nil { // which says, too, who could be asked
			err = problem
		}
		return nil, err
	}
	return c, nil
}

// newest returns the consensus to route by, nil if there is none that has a route.
func (p *Proxy) newest() *netdoc.Consensus {
	c, _ := p.usable()
	if c == nil || p.routable(c) != nil {
		return nil
	}
	return c
}

// awaitRoute waits until the consensus has a route, for a while, and returns the consensus. The error
// wraps ErrNotReady and says what is missing.
func (p *Proxy) awaitRoute(ctx context.Context) (*netdoc.Consensus, error) {
	ctx, cancel := context.WithTimeout(ctx, waitReady)
	defer cancel()
	var tick <-chan time.Time // a clock that is set right makes no other event
	for {
		changed := p.follower.Changed()
		c, err := p.usable()
		if c != nil {
			if err = p.routable(c); err == nil {
				return c, nil
			}
		}
		if tick == nil {
			clock := time.NewTicker(reportInterval)
			defer clock.Stop()
			tick = clock.C
		}
		select {
		case <-changed:
		case <-tick:
		case <-p.alive.Done():
			return nil, errStopped
		case <-ctx.Done():
			if err == nil {
				err = errors.New("no authority has answered yet")
			}
			return nil, fmt.Errorf("%w: %w", ErrNotReady, err)
		}
	}
}

// health is what the last attempts to build tell of whether circuits can be built.
type health struct {
	mu     sync.Mutex
	failed error // of the last attempt; nil when it has succeeded, or before the first
	dead   error // all that was tried for a spare has failed, and nothing has succeeded since
}

// built notes that a circuit stands.
func (h *health) built() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed, h.dead = nil, nil
}

// attemptFailed notes that one route has failed.
func (h *health) attemptFailed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = firstOfKind(h.failed, err)
}

// allFailed notes that every route has failed that was tried for a circuit to anywhere.
func (h *health) allFailed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = firstOfKind(h.dead, err)
}

// firstOfKind keeps the first of errors that say the same of another relay: it is no news.
func firstOfKind(held, err error) error {
	if held != nil && failureOf(held) == failureOf(err) {
		return held
	}
	return err
}

// trouble returns why no circuit can be built, nil if one can for all that is known. standing says that
// there are circuits for what comes next: one failed attempt is no trouble then.
func (h *health) trouble(standing bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead != nil || standing {
		return h.dead
	}
	return h.failed
}
