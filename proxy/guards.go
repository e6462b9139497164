package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/guard"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// guards is which first hops this client uses, for concurrent use: package guard's state, told of what becomes
// of circuits. Circuits of one hop have no guard.
type guards struct {
	mu    sync.Mutex
	state *guard.State
	seen  *netdoc.Consensus // the state knows it
	news  chan struct{}     // closed and replaced when something was told

	offered bool // the state is an earlier run's
}

// init begins with no guards.
func (g *guards) init(network string, rnd *rand.Rand) {
	g.state, g.news = guard.New(network, rnd), make(chan struct{})
}

// first returns what chooses the first hop of a route by a consensus, and notes it in the path. shun, if given,
// is a guard to do without.
func (g *guards) first(next *path, c *netdoc.Consensus, shun *netdoc.Relay) func(func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
	return func(fits func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		now := time.Now()
		if g.seen != c {
			g.state.Update(guard.Network{Consensus: c}, now)
			g.seen = c
		}
		a, err := g.state.Pick(func(r *netdoc.Relay) bool { return r != shun && fits(r) }, now)
		if a == nil {
			return nil, err
		}
		next.guard = a
		return a.Relay, nil
	}
}

// ended tells how an attempt ended, and returns what is to be done with its circuit, if there is one.
func (g *guards) ended(p *path, err error) guard.Verdict {
	if p.guard == nil {
		return guard.Use
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() {
		close(g.news)
		g.news = make(chan struct{})
	}()
	now := time.Now()
	switch blameGuard(err) {
	case nobody:
		return g.state.Built(p.guard, now)
	case another:
		g.state.Answered(p.guard, now)
	case anybody:
		g.state.Silent(p.guard, now)
	case itself:
		g.state.Failed(p.guard, now)
	default:
		g.state.Canceled(p.guard, now)
	}
	return guard.Discard
}

// check returns what is to be done with a circuit that waits.
func (g *guards) check(a *guard.Attempt) guard.Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state.Check(a, time.Now())
}

// heard returns a channel that is closed when the next attempt has ended.
func (g *guards) heard() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.news
}

// blame is who is to blame for an attempt that failed, as far as the guard is concerned.
type blame int

const (
	unknown blame = iota // we gave it up ourselves
	nobody               // it has not failed
	another              // a hop behind the guard; the guard itself has answered
	anybody              // no answer in time, or one that nobody can have meant
	itself               // no link to the guard, or it would not
)

func blameGuard(err error) blame {
	failed, _ := errors.AsType[*circuit.BuildError](err)
	said, hopSaid := errors.AsType[*onion.HopError](err)
	switch {
	case err == nil:
		return nobody
	case errors.Is(err, context.Canceled), errors.Is(err, link.ErrClosed), failed == nil:
		return unknown
	case hopSaid && said.Hop == 0 && (said.Status == wire.StatusOverloaded || said.Status == wire.StatusRefused):
		return itself
	case hopSaid:
		return another
	case failed.Hop > 0 && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, wire.ErrViolation)):
		return anybody
	default:
		return itself
	}
}

// GuardState returns this client's guards, for OfferGuards of a later run; nil if it has none yet. It tells by
// which relays this client enters the network: keep it from others.
func (p *Proxy) GuardState() []byte {
	p.guards.mu.Lock()
	defer p.guards.mu.Unlock()
	if p.guards.state.Changes() == 0 && !p.guards.offered {
		return nil
	}
	return p.guards.state.Encode()
}

// OfferGuards gives the proxy what GuardState of an earlier run returned, before Run. The error says why it is
// of no use; the proxy then begins with other guards.
func (p *Proxy) OfferGuards(data []byte) error {
	state, err := guard.Parse(data, p.cfg.Network.Name, p.rnd)
	if err != nil {
		return err
	}
	p.guards.mu.Lock()
	defer p.guards.mu.Unlock()
	p.guards.state, p.guards.offered, p.guards.seen = state, true, nil
	return nil
}
