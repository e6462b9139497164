package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/guard"
	"torproxy/proxy/route"
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
	filed   bool // the first consensus is from a file
	allowed func(*netdoc.Relay) bool
}

// init begins with no guards; none of those that the user excludes is ever used.
func (g *guards) init(cfg Config, rnd *rand.Rand) {
	g.state, g.news = guard.New(cfg.Network.Name, rnd), make(chan struct{})
	g.allowed = func(r *netdoc.Relay) bool { return !cfg.Exclude.Match(r) }
}

// offline says that the first consensus did not come by the network, and so shows nothing of it.
func (g *guards) offline() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.filed = true
}

// follow makes the guards follow a consensus, but an older one than they know.
func (g *guards) follow(routes *route.Index, hops int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, now := routes.Consensus(), time.Now()
	if g.seen == c {
		return
	}
	if !g.state.Update(guard.Network{Consensus: c, Weight: routes.GuardWeight(hops), Filter: g.allowed}, now) {
		return
	}
	if g.seen == nil && !g.filed {
		g.state.Online(now)
	}
	g.seen = c
}

// first returns what chooses the first hop of a route, and notes it in the path: beside an attempt whose link
// is late, another guard; and none whose circuit is waiting already.
func (g *guards) first(next *path, late, waiting *guard.Attempt) func(func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
	return func(fits func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		now := time.Now()
		pick := g.state.Pick
		if late != nil {
			pick = func(fits func(*netdoc.Relay) bool, now time.Time) (*guard.Attempt, error) {
				return g.state.PickBeside(late, fits, now)
			}
		}
		a, err := pick(fits, now)
		switch {
		case a == nil:
			return nil, err
		case waiting != nil && a.Relay.ID == waiting.Relay.ID:
			g.state.Canceled(a, now)
			return nil, errGuardWaits
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
		if len(p.choice.exit) > 0 {
			g.state.Canceled(p.guard, now) // it is more likely the exit that was asked for
			break
		}
		var behind []wire.ID
		for _, r := range p.relays[1:] {
			behind = append(behind, r.ID)
		}
		g.state.Silent(p.guard, behind, now)
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
	unknown blame = iota // we gave it up ourselves, or have filled the link ourselves
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
	case errors.Is(err, context.Canceled), errors.Is(err, link.ErrClosed), errors.Is(err, link.ErrFull), failed == nil:
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

// MaxGuardState bounds what GuardState returns and OfferGuards takes.
const MaxGuardState = guard.MaxState

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
