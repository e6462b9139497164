package dirauth

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

const (
	measuresAtOnce = 2                // more would share this authority's own line, and measure that
	measureTime    = 10 * time.Second // for one, handshake and all: what is slower has no value
	measureRate    = 256 << 10        // bytes per second that all measurements together send, on average
	leastTransfer  = 64 << 10         // bytes of one measurement
	mostTransfer   = 2 << 20
)

// meter measures how much the relays of a roster carry, one now and then.
type meter struct {
	roster *roster
	log    *slog.Logger

	// try sends size bytes through a relay and returns how many came back in a second.
	try func(ctx context.Context, d *netdoc.Descriptor, size int) (bandwidth uint64, err error)

	counts meterCounts
}

// run measures until ctx ends, waits for what runs, and returns nil.
func (m *meter) run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	budget := rate.NewLimiter(measureRate, mostTransfer)
	slots := make(chan struct{}, measuresAtOnce)
	for {
		d, size, again := m.roster.nextMeasure(time.Now())
		if d == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Until(again)):
			}
			continue
		}
		if budget.WaitN(ctx, size) != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case slots <- struct{}{}:
		}
		work.Go(func() {
			defer func() { <-slots }()
			m.measure(ctx, d, size)
		})
	}
}

// measure measures a relay and reports the result. One that was broken off has none.
func (m *meter) measure(ctx context.Context, d *netdoc.Descriptor, size int) {
	attempt, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	bandwidth, err := m.try(attempt, d, size)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		m.counts.unmeasured.Add(1)
		m.log.Debug("relay not measured", "relay", d.ID.Short(), "err", err)
	} else {
		m.counts.measured.Add(1)
		m.log.Debug("relay measured", "relay", d.ID.Short(), "bandwidth", bandwidth, "sent", size)
	}
	m.roster.measured(d, bandwidth, time.Now())
}

// echo returns a try that has the relay echo bytes, over a circuit of one hop on a link of its own
// (section 4.1 of SPEC.md).
func echo(node *link.Node) func(context.Context, *netdoc.Descriptor, int) (uint64, error) {
	return func(ctx context.Context, d *netdoc.Descriptor, size int) (uint64, error) {
		s, keys, err := oneHop(ctx, node, d, d.Addresses[0])
		if err != nil {
			return 0, err
		}
		session := mux.NewSession(mux.Config{})
		var running sync.WaitGroup
		defer running.Wait()
		defer s.Link().Close()
		stop := context.AfterFunc(ctx, s.Link().Close)
		defer stop()
		running.Go(func() { session.Run(s, onion.NewClient(keys, wire.CellSize)) })
		st, err := session.Open(wire.KindEcho, wire.EchoTarget)
		if err != nil {
			return 0, err
		}
		if err := st.Connected(ctx); err != nil {
			return 0, err
		}
		return timeEcho(st, size)
	}
}

// wholeFactor is by how much the timed part may be faster than the whole: for round trips and a slow start.
const wholeFactor = 4

// timeEcho sends bytes that nobody can know beforehand, and times how they come back. The first quarter is
// not timed: it pays for the way there and back, and for the link to find its pace. A relay could hold the first
// quarter back until it has the rest, and then return all at once; so the whole exchange, which it cannot
// shorten, bounds the result.
func timeEcho(st io.ReadWriter, size int) (bandwidth uint64, err error) {
	sent := make([]byte, size)
	var seed [32]byte
	crand.Read(seed[:])
	rand.NewChaCha8(seed).Read(sent)
	started := time.Now()
	writing := make(chan struct{})
	defer func() { <-writing }() // the caller ends the stream, should it be blocked
	go func() {
		defer close(writing)
		st.Write(sent)
	}()
	var began time.Time
	got, untimed := make([]byte, size), 0
	for have := 0; have < size; {
		n, err := st.Read(got[have:min(have+size/8, size)])
		if err != nil {
			return 0, fmt.Errorf("after %d of %d bytes: %w", have, size, err)
		}
		if have += n; began.IsZero() && have >= size/4 {
			began, untimed = time.Now(), have
		}
	}
	took := time.Since(began)
	if !bytes.Equal(got, sent) {
		return 0, errors.New("other bytes came back than were sent")
	}
	return min(bandwidthOf(size-untimed, took), wholeFactor*bandwidthOf(size, time.Since(started))), nil
}

// bandwidthOf returns bytes per second. Less than a millisecond is not to be measured.
func bandwidthOf(n int, took time.Duration) uint64 {
	perSecond := uint64(n) * uint64(time.Second) / uint64(max(took, time.Millisecond))
	return min(max(perSecond, 1), netdoc.MaxBandwidth)
}
