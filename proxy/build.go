package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// How a circuit is made:
//
//  1. draw a route, build along it                                                     build.begin
//  2. it fails: leave out the relay that did, draw again; five times in all            build.learn
//  3. it is late: build along other relays beside it; the first that stands ends this  build.beside
//  4. the late one, when it stands after all, is a spare; it is measured like any other

const (
	buildAttempts = 5  // routes that are tried for one circuit
	maxBeside     = 2  // of them at once
	maxBuilding   = 64 // circuits being made at once; further ones wait, and no second attempt is made beside so many

	// A relay that has not got the newest consensus yet does not know the next one: it is given so long
	// before the next attempt, and twice as long before each after that.
	behindPause = 100 * time.Millisecond
)

// errStopped ends what waits for circuits when the proxy stops.
var errStopped = fmt.Errorf("%w: the proxy has stopped", ErrNotReady)

// build is the making of one circuit. It belongs to the goroutine that runs it.
type build struct {
	proxy     *Proxy
	consensus *netdoc.Consensus
	req       route.Request // its Avoid is our own, and grows
	turn      *turn         // who waits for the circuit; nil: it is to be a spare
	trace     trace

	outcomes chan outcome      // of attempts; it has room for all
	begun    int               // attempts
	under    [][]*netdoc.Relay // the routes of those that are under way
	failed   error             // why the last attempt did
	noRoute  error             // why there is no other
	pause    time.Duration     // before the next attempt, should a relay be behind
}

// outcome is that of an attempt.
type outcome struct {
	route []*netdoc.Relay
	err   error
}

// newBuild returns a build for a request, which it copies.
func (p *Proxy) newBuild(c *netdoc.Consensus, req route.Request, t *turn, tr trace) *build {
	avoid := map[wire.ID]struct{}{}
	maps.Copy(avoid, req.Avoid)
	req.Avoid = avoid
	return &build{
		proxy: p, consensus: c, req: req, turn: t, trace: tr,
		outcomes: make(chan outcome, buildAttempts), pause: behindPause,
	}
}

// run adds one circuit to the pool, or says why there is none. It returns as soon as one stands; a late one
// may follow. One for which nobody waits any more when it is its turn to be built is not.
func (b *build) run(ctx context.Context) error {
	p := b.proxy
	select {
	case p.pool.slots <- struct{}{}:
		defer func() { <-p.pool.slots }()
	case <-ctx.Done():
		return errStopped
	}
	if !p.pool.awaited(b.turn) {
		return nil
	}
	if !b.begin(b.req) {
		return b.err()
	}
	late := time.NewTimer(p.patience.late())
	defer late.Stop()
	var again <-chan time.Time
	for {
		select {
		case o := <-b.outcomes:
			if o.err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return o.err
			}
			again = time.After(b.learn(o))
		case <-again:
			again = nil
			if b.begin(b.req) {
				late.Reset(p.patience.late())
			} else if len(b.under) == 0 {
				return b.err()
			}
		case <-late.C:
			b.beside()
		case <-ctx.Done():
			return errStopped
		}
	}
}

// begin begins an attempt. It reports false if there is no route, or if it would be one too many.
func (b *build) begin(req route.Request) bool {
	if b.begun == buildAttempts {
		return false
	}
	relays, err := b.proxy.routes.Of(b.consensus).Choose(req, b.proxy.rnd)
	if err != nil {
		b.noRoute = err
		return false
	}
	same := func(other []*netdoc.Relay) bool { return slices.Equal(other, relays) }
	if slices.ContainsFunc(b.under, same) {
		return false // that would tell nothing new
	}
	b.begun++
	b.under = append(b.under, relays)
	if !b.proxy.pool.whileOpen(func() { b.outcomes <- outcome{relays, b.proxy.buildAlong(relays, b.turn, b.trace)} }) {
		b.outcomes <- outcome{relays, errStopped}
	}
	return true
}

// beside begins a second attempt beside one that is late: along other relays, but if there are none, along
// another route of the same. The relays of the first are not blamed: any may be the slow one.
func (b *build) beside() {
	if len(b.under) >= maxBeside || b.proxy.pool.busy() {
		return
	}
	req := b.req
	req.Avoid = maps.Clone(b.req.Avoid)
	for _, r := range b.under[0] {
		req.Avoid[r.ID] = struct{}{}
	}
	if !b.begin(req) {
		b.begin(b.req)
	}
	b.noRoute = nil // there is one, and it is under way
}

// learn notes an attempt that failed, and returns how long to wait before the next.
func (b *build) learn(o outcome) time.Duration {
	b.proxy.log.Debug("circuit not built", "cause", o.err)
	b.failed = o.err
	b.under = slices.DeleteFunc(b.under, func(r []*netdoc.Relay) bool { return slices.Equal(r, o.route) })
	if culprit := suspect(o.route, o.err); culprit != nil {
		b.req.Avoid[culprit.ID] = struct{}{}
		return 0
	}
	if !behind(o.err) {
		return 0
	}
	pause := b.pause
	b.pause *= 2
	return pause
}

// err says why there is no circuit.
func (b *build) err() error {
	if b.noRoute != nil {
		// What is left after leaving out the relays that failed is not the network's fault alone.
		return errors.Join(noRoute(b.noRoute), b.failed)
	}
	return fmt.Errorf("proxy: no circuit in %d attempts: %w", b.begun, b.failed)
}

// noRoute gives a missing exit the reason that an exit itself would give.
func noRoute(err error) error {
	var none *route.NoExit
	if errors.As(err, &none) && (none.Why == route.LackPolicy || none.Why == route.LackAllowed) {
		return errors.Join(err, &wire.EndError{Reason: wire.ReasonPolicy})
	}
	return err
}

// buildAlong builds one circuit along a route and adds it to the pool, for those who wait in t.
func (p *Proxy) buildAlong(relays []*netdoc.Relay, t *turn, tr trace) error {
	ctx, cancel := context.WithTimeout(p.alive, p.patience.giveUp())
	defer cancel()
	attempt := p.pool.begin(relays)
	built, err := circuit.Build(ctx, p.node, relays)
	took := time.Since(attempt.began)
	p.attempted(took, err)
	tr.built(attempt.id, relays, took, err)
	if err != nil {
		p.pool.failed(attempt)
		return err
	}
	p.pool.add(attempt.id, built, t, p.runCircuit)
	p.readyOnce.Do(func() { close(p.ready) })
	return nil
}

// attempted notes the outcome of an attempt.
func (p *Proxy) attempted(took time.Duration, err error) {
	p.counts.attempted(err)
	p.patience.learn(took, err)
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
