package dirauth

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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

	counts proberCounts
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
		p.counts.silent.Add(1)
		p.log.Debug("relay does not answer", "relay", d.ID.Short(), "err", err)
	} else {
		p.counts.answered.Add(1)
	}
	p.roster.tested(d, err == nil, time.Now())
}

// handshake returns a try that does, at every address that the relay advertises, what a client would: a
// new link that is pinned to the relay's identity, and a one-hop circuit that must come back ready. A link
// from an earlier test would show neither that the relay still listens nor where.
func handshake(node *link.Node) func(context.Context, *netdoc.Descriptor) error {
	return func(ctx context.Context, d *netdoc.Descriptor) error {
		all, ctx := errgroup.WithContext(ctx)
		for _, addr := range d.Addresses {
			all.Go(func() error {
				s, _, err := oneHop(ctx, node, d, addr)
				if err != nil {
					return fmt.Errorf("at %v: %w", addr, err)
				}
				s.Link().Close()
				return nil
			})
		}
		return all.Wait()
	}
}

// oneHop builds a circuit of one hop over a link of its own. Closing the link ends both.
func oneHop(ctx context.Context, node *link.Node, d *netdoc.Descriptor, addr netip.AddrPort) (*link.Stream, []onion.HopKeys, error) {
	l, err := node.Dial(ctx, d.ID, addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, l.Close) // whatever the circuit waits for then
	s, keys, err := create(ctx, l, d)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	return s, keys, nil
}

// create builds the circuit of one hop on a link.
func create(ctx context.Context, l *link.Link, d *netdoc.Descriptor) (*link.Stream, []onion.HopKeys, error) {
	packet, h, err := onion.Create([]onion.Hop{{ID: d.ID, OnionKey: d.OnionKeys[0].Public}}, time.Now())
	if err != nil {
		return nil, nil, err
	}
	s, err := l.Open(ctx)
	if err != nil {
		return nil, nil, err
	}
	created := make([]byte, wire.CreatedSize)
	_, err = s.Write(packet)
	if err == nil {
		_, err = io.ReadFull(s, created)
	}
	var keys []onion.HopKeys
	if err == nil {
		keys, err = h.Finish(created)
	}
	if err != nil {
		s.Reset(wire.ResetDestroyed)
		return nil, nil, fmt.Errorf("create a circuit: %w", err)
	}
	return s, keys, nil
}
