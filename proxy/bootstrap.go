package proxy

import (
	"context"
	"fmt"
	"time"

	"torproxy/proxy/route"
	"torproxy/wire/netdoc"
)

// Progress is how far the proxy is on its way to carry a connection.
type Progress struct {
	Percent int    // 0 to 100; 100 is ready
	Summary string // a sentence for a person: what it waits for and, if something is wrong, what
}

// The steps of the bootstrap, in percent.
const (
	percentAsking   = 10  // no usable consensus
	percentRelays   = 40  // a consensus, but no route in it
	percentBuilding = 75  // a route, but no circuit has stood yet
	percentReady    = 100 // a circuit has stood
)

// reportInterval is how often the state is looked at besides when the consensus changes: clocks and
// documents run out without an event.
const reportInterval = time.Second

// waitReady is how long a Dial waits for the network before it says what is missing.
const waitReady = 20 * time.Second

// Ready is closed when the first circuit stands.
func (p *Proxy) Ready() <-chan struct{} { return p.ready }

// Progress returns how far the bootstrap is now. It goes back when the consensus runs out.
func (p *Proxy) Progress() Progress {
	c, err := p.usable()
	if c == nil {
		if err == nil {
			return Progress{percentAsking, "asking the authorities for the consensus"}
		}
		return Progress{percentAsking, err.Error()}
	}
	if err := p.routable(c); err != nil {
		return Progress{percentRelays, err.Error()}
	}
	select {
	case <-p.ready:
		return Progress{percentReady, "ready"}
	default:
		return Progress{percentBuilding, fmt.Sprintf("consensus with %d relays; building the first circuit", len(c.Relays))}
	}
}

// usable returns the consensus to route by; without one, why (nil: none was seen yet).
func (p *Proxy) usable() (*netdoc.Consensus, error) {
	c := p.follower.Current()
	if c == nil {
		return nil, p.follower.Problem()
	}
	if err := c.Check(time.Now()); err != nil {
		return nil, err
	}
	return c, nil
}

// routable reports why the consensus has no route of our length, nil if it has.
func (p *Proxy) routable(c *netdoc.Consensus) error {
	_, err := route.Choose(c, route.Request{Hops: p.cfg.Hops}, p.rnd)
	return err
}

// report tells Config.Progress about every change until ctx ends.
func (p *Proxy) report(ctx context.Context) error {
	if p.cfg.Progress == nil {
		return nil
	}
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	ready := p.ready
	var last Progress
	for {
		changed := p.follower.Changed()
		if now := p.Progress(); now != last {
			last = now
			p.cfg.Progress(now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ready:
			ready = nil
		case <-changed:
		case <-tick.C:
		}
	}
}

// awaitRoute waits until the consensus has a route, for a while, and returns the consensus. The error
// wraps ErrNotReady and says what is missing.
func (p *Proxy) awaitRoute(ctx context.Context) (*netdoc.Consensus, error) {
	ctx, cancel := context.WithTimeout(ctx, waitReady)
	defer cancel()
	for {
		changed := p.follower.Changed()
		c, err := p.usable()
		if c != nil {
			if err = p.routable(c); err == nil {
				return c, nil
			}
		}
		select {
		case <-changed:
		case <-p.alive.Done():
			return nil, fmt.Errorf("%w: the proxy has stopped", ErrNotReady)
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("no authority has answered yet")
			}
			return nil, fmt.Errorf("%w: %w", ErrNotReady, err)
		}
	}
}
