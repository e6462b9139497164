package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

const (
	buildTimeout  = 10 * time.Second // for one circuit: a path that slow is of no use
	buildAttempts = 5                // routes that one request for a circuit tries
	retryMin      = 100 * time.Millisecond
	retryMax      = 10 * time.Second

	// A relay that has not got the newest consensus yet does not know the next one: it is given so long
	// before the next attempt, and twice as long before each after that.
	behindPause = 100 * time.Millisecond
)

// circuitFor returns a circuit for a stream, from the pool or built for it.
func (p *Proxy) circuitFor(ctx context.Context, w *want) (*held, error) {
	// A new circuit is a spare like any other until somebody takes it. Under load that may be another
	// dial; then this one builds again.
	began, result := time.Now(), "ready"
	for {
		c, err := p.awaitRoute(ctx)
		if err != nil {
			return nil, err
		}
		p.pool.retireGone(c)
		if h := p.pool.take(w.label, w.fits); h != nil {
			w.trace.found(h, time.Since(began), result)
			return h, nil
		}
		if err := p.buildFor(ctx, c, w); err != nil {
			return nil, err
		}
		result = "built"
	}
}

// buildFor adds a circuit for a purpose to the pool, or waits for the one that another dial builds for it:
// many dials at once, as of a browser that starts, want one circuit and not many.
func (p *Proxy) buildFor(ctx context.Context, c *netdoc.Consensus, w *want) error {
	req := w.route(p.cfg.Hops)
	if len(w.avoid) > 0 {
		return p.build(ctx, c, req, w.trace) // what fits this dial is no longer what fits the others
	}
	t, mine := p.pool.takeTurn(w.purpose)
	if !mine {
		select {
		case <-t.done:
			return t.err
		case <-ctx.Done():
			return fmt.Errorf("proxy: waiting for a circuit: %w", ctx.Err())
		}
	}
	err := p.build(ctx, c, req, w.trace)
	if ctx.Err() != nil {
		p.pool.endTurn(w.purpose, t, nil) // this dial gave up; the next one tries
	} else {
		p.pool.endTurn(w.purpose, t, err)
	}
	return err
}

// build adds one circuit to the pool, and notes each attempt. A relay that failed is left out of the next attempt's route.
func (p *Proxy) build(ctx context.Context, c *netdoc.Consensus, req route.Request, t trace) error {
	exclude := map[wire.ID]struct{}{}
	for id := range req.Avoid {
		exclude[id] = struct{}{}
	}
	req.Avoid = exclude
	var failed error
	pause := behindPause
	for attempt := 1; attempt <= buildAttempts; attempt++ {
		relays, err := route.Choose(c, req, p.rnd)
		if err != nil {
			// What is left after leaving out the relays that failed is not the network's fault alone.
			return errors.Join(noRoute(err), failed)
		}
		if failed = p.buildAlong(ctx, relays, t); failed == nil {
			return nil
		}
		if ctx.Err() != nil || p.alive.Err() != nil {
			return failed
		}
		p.log.Debug("circuit not built", "cause", failed)
		if culprit := suspect(relays, failed); culprit != nil {
			exclude[culprit.ID] = struct{}{}
		} else if behind(failed) && attempt < buildAttempts {
			select {
			case <-time.After(pause):
				pause *= 2
			case <-ctx.Done():
				return failed
			}
		}
	}
	return fmt.Errorf("proxy: no circuit in %d attempts: %w", buildAttempts, failed)
}

// noRoute gives a missing exit the reason that an exit itself would give.
func noRoute(err error) error {
	var none *route.NoExit
	if errors.As(err, &none) && (none.Why == route.LackPolicy || none.Why == route.LackAllowed) {
		return errors.Join(err, &wire.EndError{Reason: wire.ReasonPolicy})
	}
	return err
}

// buildAlong builds one circuit along a route and adds it to the pool.
func (p *Proxy) buildAlong(ctx context.Context, relays []*netdoc.Relay, t trace) error {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	stop := context.AfterFunc(p.alive, cancel)
	defer stop()
	attempt := p.pool.begin(relays)
	built, err := circuit.Build(ctx, p.node, relays)
	p.attempted(err)
	t.built(attempt.id, relays, time.Since(attempt.began), err)
	if err != nil {
		p.pool.failed(attempt)
		return err
	}
	p.pool.add(attempt.id, built, p.runCircuit)
	p.readyOnce.Do(func() { close(p.ready) })
	return nil
}

// attempted notes the outcome of an attempt.
func (p *Proxy) attempted(err error) {
	p.counts.attempted(err)
	switch {
	case err == nil:
		p.health.built()
	case failureOf(err) != FailureGivenUp:
		p.health.attemptFailed(err)
	}
}

// runCircuit serves a circuit to its end.
func (p *Proxy) runCircuit(c *circuit.Circuit) {
	if err := c.Run(p.alive); errors.Is(err, wire.ErrViolation) {
		p.log.Warn("a circuit was destroyed: a relay on it broke the protocol", "cause", err)
	}
}

// suspect returns the relay to leave out after a failed build: the one that could not be reached by the
// hop before it, or that answered with a fault of its own. Nil: it can't be told.
func suspect(relays []*netdoc.Relay, err error) *netdoc.Relay {
	var failed *circuit.BuildError
	if !errors.As(err, &failed) {
		return nil
	}
	if failed.Hop > 0 && errors.Is(err, context.DeadlineExceeded) {
		return nil // any hop may be the silent one, and none shall have the others left out
	}
	at := max(failed.Hop, 1) - 1
	var said *onion.HopError
	if errors.As(err, &said) {
		switch said.Status {
		case wire.StatusUnknownNext:
			return nil // one of the two has another consensus than we do, and will have ours
		case wire.StatusNextUnreachable, wire.StatusNextTimeout, wire.StatusNextReset:
			at++
		}
	}
	if at >= len(relays) {
		return nil
	}
	return relays[at]
}

// behind reports whether a build failed because a relay did not know the next one.
func behind(err error) bool {
	var said *onion.HopError
	return errors.As(err, &said) && said.Status == wire.StatusUnknownNext
}
