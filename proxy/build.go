package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"torproxy/proxy/guard"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// How a circuit is made:
//
//  1. draw a route behind a guard, build along it                                      build.begin
//  2. it fails: leave out the relay that did, draw again; five times by one consensus  build.learn
//  3. it is late: build along other relays beside it; the first that stands ends this  build.beside
//  4. the late one, when it stands after all, is a spare; it is measured like any other
//  5. no guard can be tried just now: wait for one, as long as somebody waits for us   build.next

const (
	buildAttempts = 5  // routes by one consensus that are tried for one circuit
	maxBeside     = 2  // of them at once
	maxBuilding   = 64 // circuits being made at once; further ones wait, and no second attempt is made beside so many

	// A relay that has not got the newest consensus yet does not know the next one: it is given so long
	// before the next attempt, and twice as long before each after that.
	// Also what else went wrong twice may be over in a moment: relays that have started again are known by
	// the next consensus.
	behindPause = 100 * time.Millisecond

	guardPause = 10 * time.Millisecond // after news of guards: others end in the same moment
)

// errStopped ends what waits for circuits when the proxy stops.
var errStopped = fmt.Errorf("%w: the proxy has stopped", ErrNotReady)

// build is the making of one circuit. It belongs to the goroutine that runs it.
type build struct {
	proxy     *Proxy
	consensus *netdoc.Consensus
	req       route.Request        // its Avoid is our own, and grows
	avoid     map[wire.ID]struct{} // what the request itself avoids
	turn      *turn                // who waits for the circuit; nil: it is to be a spare
	trace     trace
	since     time.Time

	outcomes chan outcome     // of attempts; it has room for all
	begun    int              // attempts
	under    []*path          // those under way
	again    <-chan time.Time // when to begin the next; nil: there is no need
	guards   bool             // it is a guard that is waited for
	waiting  *guard.Attempt   // of the last circuit that stands but waits; nil: none
	stood    bool             // one did
	failed   error            // why the last attempt did
	noRoute  error            // why there is no other
	pause    time.Duration    // before the next attempt, should a relay be behind
}

// outcome is that of an attempt.
type outcome struct {
	path *path
	err  error
}

// newBuild returns a build for a request, which it copies.
func (p *Proxy) newBuild(c *netdoc.Consensus, req route.Request, t *turn, tr trace) *build {
	b := &build{
		proxy: p, req: req, avoid: cloneAvoid(req.Avoid), turn: t, trace: tr, since: time.Now(),
		outcomes: make(chan outcome, buildAttempts), pause: behindPause,
	}
	b.follow(c)
	return b
}

// cloneAvoid returns a copy that is not nil.
func cloneAvoid(avoid map[wire.ID]struct{}) map[wire.ID]struct{} {
	own := map[wire.ID]struct{}{}
	maps.Copy(own, avoid)
	return own
}

// follow goes on with another consensus: what failed by the old one is worth another attempt.
func (b *build) follow(c *netdoc.Consensus) {
	b.consensus, b.begun = c, len(b.under)
	b.req.Avoid = cloneAvoid(b.avoid)
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
	late := time.NewTimer(p.patience.late())
	defer late.Stop()
	b.again = time.After(0)
	for {
		var heard <-chan struct{}
		if b.guards {
			heard = p.guards.heard()
		}
		select {
		case o := <-b.outcomes:
			if o.err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return o.err
			}
			b.learn(o)
		case <-b.again:
			if !p.pool.awaited(b.turn) {
				return nil
			}
			if b.next() {
				late.Reset(p.patience.late())
			} else if len(b.under) == 0 && b.again == nil {
				return b.err()
			}
		case <-heard:
			b.again = time.After(guardPause)
		case <-late.C:
			b.beside()
		case <-ctx.Done():
			return errStopped
		}
	}
}

// next begins the next attempt, or sets when to try again if it is a guard that is missing, for as long as
// anybody waits for the circuit, within bounds. It reports whether an attempt has begun.
func (b *build) next() bool {
	b.again, b.guards = nil, false
	if c := b.proxy.newest(); c != nil && c != b.consensus && time.Since(b.since) < waitReady {
		b.follow(c)
	}
	if b.waiting != nil && b.proxy.guards.check(b.waiting) != guard.Wait {
		b.waiting = nil
	}
	if b.begin(b.req, nil) {
		return true
	}
	missing, ok := errors.AsType[*guard.WaitError](b.noRoute)
	switch {
	case b.turn == nil || time.Since(b.since) > waitReady:
	case ok:
		b.guards, b.again = true, time.After(min(max(time.Until(missing.Until), 0), guardInterval))
	case errors.Is(b.noRoute, errGuardWaits):
		b.guards, b.again = true, time.After(guardInterval)
	}
	return false
}

// begin begins an attempt; late is the guard's of one whose link is late in coming, nil if there is none. It
// reports false if there is no route, or if it would be one attempt too many.
func (b *build) begin(req route.Request, late *guard.Attempt) bool {
	if b.begun == buildAttempts || len(b.under) == maxBeside {
		return false
	}
	p, next := b.proxy, &path{choice: choice{req.Exit, req.Exclude}}
	if c := p.newest(); c != nil {
		b.consensus = c // guards do not go back to an older one
	}
	routes := p.routes.Of(b.consensus)
	if req.Hops > 1 {
		p.guards.follow(routes, req.Hops)
		req.First = p.guards.first(next, late, b.waiting)
	}
	if next.relays, b.noRoute = routes.Choose(req, p.rnd); b.noRoute != nil {
		p.guards.ended(next, context.Canceled)
		return false
	}
	same := func(other *path) bool { return slices.Equal(other.relays, next.relays) }
	if slices.ContainsFunc(b.under, same) {
		p.guards.ended(next, context.Canceled)
		return false // that would tell nothing new
	}
	b.begun++
	b.under = append(b.under, next)
	if !p.pool.whileOpen(func() { b.outcomes <- outcome{next, p.buildAlong(next, b.turn, b.trace)} }) {
		p.guards.ended(next, context.Canceled)
		b.outcomes <- outcome{next, errStopped}
	}
	return true
}

// beside begins a second attempt beside one that is late: along other relays, but if there are none, along
// another route of the same. The relays of the first are not blamed: any may be the slow one. Through the same
// guard, but if it is the guard that there is no link to yet.
func (b *build) beside() {
	if len(b.under) != maxBeside-1 || b.proxy.pool.busy() {
		return
	}
	first, failed := b.under[0], b.noRoute
	req := b.req
	req.Avoid = cloneAvoid(b.req.Avoid)
	for _, r := range first.relays {
		req.Avoid[r.ID] = struct{}{}
	}
	var late *guard.Attempt
	if !first.linked.Load() {
		late = first.guard
	}
	if !b.begin(req, late) {
		b.begin(b.req, late)
	}
	b.noRoute = failed // there is one, and it is under way
}

// learn notes an attempt that failed, and sets when the next one begins.
func (b *build) learn(o outcome) {
	b.proxy.log.Debug("circuit not built", "cause", o.err)
	if errors.Is(o.err, errGuardWaits) {
		b.waiting, b.stood = o.path.guard, true
	} else {
		b.failed = o.err
	}
	if b.turn != nil && time.Since(b.since) < waitReady && guardsOwn(o) {
		b.begun-- // guards have bounds of their own, and one after the other may have to be found out
	}
	b.under = slices.DeleteFunc(b.under, func(p *path) bool { return p == o.path })
	if culprit := suspect(o.path.relays, o.err); culprit != nil {
		b.req.Avoid[culprit.ID] = struct{}{}
	}
	wait := time.Duration(0)
	if behind(o.err) || b.begun > 1 {
		wait = b.pause
		b.pause *= 2
	}
	b.again, b.guards = time.After(wait), false
}

// guardsOwn reports whether an attempt came to nothing by its guard alone.
func guardsOwn(o outcome) bool {
	return o.path.guard != nil &&
		(errors.Is(o.err, errGuardWaits) || errors.Is(o.err, errGuardGone) || blameGuard(o.err) == itself)
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
	refused := []route.Lack{route.LackPolicy, route.LackExit, route.LackAllowed}
	if errors.As(err, &none) && slices.Contains(refused, none.Why) {
		return errors.Join(err, &wire.EndError{Reason: wire.ReasonPolicy})
	}
	return err
}
