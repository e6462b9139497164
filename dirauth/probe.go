package dirauth

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// testsAtOnce bounds the tests that run at a time: most of one is waiting for the relay.
const testsAtOnce = 16

// prober tests the relays of a roster when they are due.
type prober struct {
	roster *roster
	log    *slog.Logger

	// try makes one attempt at a relay: nil if it is fit to be in circuits.
	try func(ctx context.Context, d *netdoc.Descriptor) error
}

// run tests relays until ctx ends, waits for the tests that run, and returns nil.
func (p *prober) run(ctx context.Context) error {
	var tests sync.WaitGroup
	defer tests.Wait()
	ended := make(chan struct{}, testsAtOnce)
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for running := 0; ; {
		again := p.start(ctx, &tests, &running, ended)
		alarm.Reset(time.Until(again))
		select {
		case <-ctx.Done():
			return nil
		case <-alarm.C:
		case <-p.roster.changed:
		case <-ended:
			running--
		}
	}
}

// start begins the tests that are due, as far as they may run, and returns when to look again.
func (p *prober) start(ctx context.Context, tests *sync.WaitGroup, running *int, ended chan<- struct{}) time.Time {
	for *running < testsAtOnce {
		now := time.Now()
		d, again := p.roster.nextTest(now)
		if d == nil {
			if again.IsZero() {
				break
			}
			return again
		}
		*running++
		tests.Go(func() {
			p.test(ctx, d)
			ended <- struct{}{}
		})
	}
	return time.Now().Add(time.Hour) // until something ends or changes
}

// test makes up to two attempts and reports the result. A test that was broken off has none.
func (p *prober) test(ctx context.Context, d *netdoc.Descriptor) {
	var err error
	for range attempts {
		attempt, cancel := context.WithTimeout(ctx, p.roster.test.attempt)
		err = p.try(attempt, d)
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.log.Debug("relay does not answer", "relay", d.ID.Short(), "err", err)
	}
	p.roster.tested(d, err == nil, time.Now())
}

// handshake returns a try that does what a client would: a link that is pinned to the relay's identity,
// and a one-hop circuit that must come back ready.
func handshake(node *link.Node) func(context.Context, *netdoc.Descriptor) error {
	return func(ctx context.Context, d *netdoc.Descriptor) error {
		l, err := node.Link(ctx, d.ID, d.Addresses)
		if err != nil {
			return err
		}
		if !slices.Contains(d.Addresses, l.RemoteAddr()) {
			// A live link from before the relay moved, or claimed to have.
			return fmt.Errorf("the link to it leads to %v, which it does not advertise any more", l.RemoteAddr())
		}
		s, err := l.Open(ctx)
		if err != nil {
			return err
		}
		// Also when ctx ends, whatever the stream waits for then.
		stop := context.AfterFunc(ctx, func() { s.Reset(wire.ResetDestroyed) })
		defer stop()
		defer s.Reset(wire.ResetDestroyed)
		return create(s, d)
	}
}

// create builds the circuit of one hop.
func create(s *link.Stream, d *netdoc.Descriptor) error {
	packet, h, err := onion.Create([]onion.Hop{{ID: d.ID, OnionKey: d.OnionKeys[0].Public}}, time.Now())
	if err != nil {
		return err
	}
	if _, err := s.Write(packet); err != nil {
		return fmt.Errorf("send CREATE: %w", err)
	}
	created := make([]byte, wire.CreatedSize)
	if _, err := io.ReadFull(s, created); err != nil {
		return fmt.Errorf("await CREATED: %w", err)
	}
	_, err = h.Finish(created)
	return err
}
