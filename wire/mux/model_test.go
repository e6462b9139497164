package mux

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// plan is what both applications of one stream do; the client's chosen target carries its number.
type plan struct {
	up, down   int // bytes that the client and the exit send
	upEnd      ending
	downEnd    ending
	slowClient bool // the client starts to read only when the exit has stalled
	pushes     int  // streams that the exit pushes for it, of pushSize bytes each
}

// pushSize is more than a pushed stream may carry without a WINDOW.
const pushSize = wire.InitialCredit + 12345

type ending int

const (
	half2half ending = iota // CloseWrite, then read to the end
	cutShort                // End(ReasonReset) behind the last byte
)

// TestApplications runs many streams with random plans at once over narrow pipes, in a bubble: a lost
// wake-up shows as a deadlock. Streams that both sides finish carry every byte; a stream that one side
// cuts short gives the other a prefix and the reason.
func TestApplications(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) { runPlans(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func runPlans(t *testing.T, rnd *rand.Rand) {
	plans := map[string]plan{}
	var targets []string
	for i := range 20 {
		p := plan{up: rnd.IntN(600 << 10), down: rnd.IntN(600 << 10), slowClient: rnd.IntN(4) == 0, pushes: rnd.IntN(5)}
		if rnd.IntN(4) == 0 {
			p.upEnd = cutShort
		}
		if rnd.IntN(4) == 0 {
			p.downEnd = cutShort
		}
		target := string(rune('a'+i)) + ":1"
		plans[target] = p
		targets = append(targets, target)
	}
	var wg sync.WaitGroup
	var pushes atomic.Int64 // that the client has yet to see the end of
	c := newCircuit(t, circuitOptions{
		cells: 1 + rnd.IntN(3),
		accept: func(st *Stream) {
			st.Connect()
			p := plans[st.Target()]
			var pushing sync.WaitGroup
			defer pushing.Wait()
			for range p.pushes {
				pushing.Go(func() { pushOne(t, st, p.upEnd == cutShort, &pushes) })
			}
			perform(t, st, p.down, p.up, p.downEnd, p.upEnd, false)
		},
		pushed: func(parent uint16, st *Stream) { wg.Go(func() { takePush(t, parent, st); pushes.Add(-1) }) },
	})
	for _, target := range targets {
		st, err := c.client.Open(wire.KindTCP, target)
		if err != nil {
			t.Fatal(err)
		}
		p := plans[target]
		wg.Go(func() { perform(t, st, p.up, p.down, p.upEnd, p.downEnd, p.slowClient) })
	}
	wg.Wait()
	c.accepted.Wait()
	synctest.Wait()
	wg.Wait() // for what was pushed last
	synctest.Wait()
	if n := c.client.Streams() + c.exit.Streams() + c.client.Pushes() + c.exit.Pushes(); n != 0 {
		t.Errorf("%d streams left", n)
	}
	if n := pushes.Load(); n != 0 {
		t.Errorf("%d pushed streams did not reach the client's application", n)
	}
	checkInvariants(t, c.client)
	checkInvariants(t, c.exit)
}

// pushOne pushes a stream for st, whole or, for every third, cut short, and says that it did. A client that
// cuts st short may have done so before st was connected.
func pushOne(t *testing.T, st *Stream, cut bool, pushes *atomic.Int64) {
	push, err := st.session.Push(st.ID())
	if err == ErrBusy || err == ErrParent && cut {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer push.Close()
	pushes.Add(1)
	n := pushSize
	if push.ID()%3 == 0 {
		n /= 2
	}
	if _, err := io.Copy(push, newNoise(byte(push.ID()), n)); err != nil {
		t.Errorf("pushing: %v", err)
	}
	if n == pushSize {
		push.CloseWrite()
	} else {
		push.End(wire.ReasonReset)
	}
}

// takePush reads a pushed stream to its end.
func takePush(t *testing.T, parent uint16, st *Stream) {
	defer st.Close()
	if parent%2 == 0 || st.Connected(t.Context()) != nil {
		t.Errorf("stream %d pushed for %d is not connected", st.ID(), parent)
	}
	n, err := io.Copy(io.Discard, st)
	var end *wire.EndError
	switch {
	case st.ID()%3 != 0 && (err != nil || n != pushSize):
		t.Errorf("pushed stream %d: %d bytes, %v", st.ID(), n, err)
	case st.ID()%3 == 0 && (!errors.As(err, &end) || end.Reason != wire.ReasonReset || !end.Remote):
		t.Errorf("pushed stream %d, cut short: %d bytes, %v", st.ID(), n, err)
	}
}

// perform is one side's application: it sends n bytes and expects peer bytes.
func perform(t *testing.T, st *Stream, n, peer int, mine, theirs ending, slow bool) {
	var wg sync.WaitGroup
	defer st.Close()
	wg.Go(func() {
		_, err := io.Copy(st, newNoise(7, n))
		if mine == cutShort {
			st.End(wire.ReasonReset)
			return
		}
		if err != nil && theirs != cutShort {
			t.Errorf("writing %d bytes: %v", n, err)
		}
		st.CloseWrite()
	})
	if slow {
		<-time.After(time.Second) // virtual: by then the exit has stalled
	}
	var got bytes.Buffer
	_, err := io.Copy(&got, st)
	wg.Wait()
	want := make([]byte, peer)
	io.ReadFull(newNoise(7, peer), want)
	if !bytes.HasPrefix(want, got.Bytes()) {
		t.Errorf("received %d bytes that were not sent", got.Len())
	}
	if mine == cutShort {
		return
	}
	switch {
	case theirs == cutShort:
		if e, ok := err.(*wire.EndError); !ok || e.Reason != wire.ReasonReset || !e.Remote {
			t.Errorf("stream cut short by its peer ended with %v", err)
		}
	case err != nil:
		t.Errorf("reading: %v", err)
	case sha256.Sum256(got.Bytes()) != sha256.Sum256(want):
		t.Errorf("%d bytes arrived of %d", got.Len(), peer)
	}
}
