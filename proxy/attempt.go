package proxy

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/guard"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// path is one attempt's: the relays, and the guard among them.
type path struct {
	relays []*netdoc.Relay
	choice choice         // that they were drawn for
	guard  *guard.Attempt // nil with one hop
	linked atomic.Bool    // there is a link to the first relay
}

// Why a circuit that stands is not used.
var (
	errGuardWaits = errors.New("proxy: the circuit stands, but waits for a better guard to answer or fail")
	errGuardGone  = errors.New("proxy: the circuit's guard is none any more")
)

// buildAlong builds one circuit and adds it to the pool, for those who wait in t.
func (p *Proxy) buildAlong(along *path, t *turn, tr trace) error {
	ctx, cancel := context.WithTimeout(p.alive, p.patience.giveUp())
	defer cancel()
	attempt := p.pool.begin(along, t)
	built, err := p.buildCircuit(ctx, along)
	took := time.Since(attempt.began)
	p.attempted(took, err)
	verdict := p.guards.ended(along, err)
	switch {
	case err != nil || verdict == guard.Use:
	case verdict == guard.Wait:
		err = errGuardWaits
	default:
		err = errGuardGone
	}
	tr.built(attempt.id, along.relays, took, err)
	if built != nil {
		p.judge(attempt, built, verdict)
	} else {
		p.pool.failed(attempt)
	}
	p.heardGuards()
	return err
}

// heardGuards has the circuits that wait for better guards judged anew.
func (p *Proxy) heardGuards() {
	if p.pool.heard(p.guards.check) {
		p.stands()
	}
}

// stands notes that a circuit may carry streams.
func (p *Proxy) stands() {
	p.health.built()
	p.readyOnce.Do(func() { close(p.ready) })
}

// buildCircuit builds a circuit as soon as there is a link to the first hop. Guards have times of their own for
// another attempt: for that, it must be found out how it is now, and in a time that suits what is known of this
// network. A dial that takes longer goes on, for attempts to come.
func (p *Proxy) buildCircuit(ctx context.Context, along *path) (*circuit.Circuit, error) {
	first := along.relays[0]
	linking := ctx
	if along.guard != nil {
		p.node.Forget(first.ID)
		var cancel context.CancelFunc
		linking, cancel = context.WithTimeout(ctx, p.patience.link())
		defer cancel()
	}
	if _, err := p.node.Link(linking, first.ID, first.Addresses); err != nil {
		return nil, &circuit.BuildError{Hop: 0, Relay: first.Nickname, Err: err}
	}
	along.linked.Store(true)
	return circuit.Build(ctx, p.node, along.relays)
}

// judge adds a circuit that stands to the pool, or closes it, as its guard demands.
func (p *Proxy) judge(a *attempt, built *circuit.Circuit, v guard.Verdict) {
	switch v {
	case guard.Use:
		p.pool.add(a, built, nil, p.runCircuit)
		p.stands()
	case guard.Wait:
		p.pool.add(a, built, a.path.guard, p.runCircuit)
	default:
		p.pool.failed(a)
		built.Close()
		p.runCircuit(built)
	}
}

// attempted notes the outcome of an attempt; that its circuit may be used, stands does.
func (p *Proxy) attempted(took time.Duration, err error) {
	p.counts.attempted(err)
	p.patience.learn(took, err)
	if err != nil && failureOf(err) != FailureGivenUp {
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
	if errors.Is(err, link.ErrFull) {
		return nil // it is we who have filled it
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
