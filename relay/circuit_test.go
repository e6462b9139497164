package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/onion"
)

// build makes a circuit and returns its stream and codec.
func (b *bed) build(path ...int) (*link.Stream, *onion.Client) {
	b.t.Helper()
	packet, h := b.create(path...)
	s, created, err := b.send(path[0], packet)
	if err != nil {
		b.t.Fatal(err)
	}
	keys, err := h.Finish(created)
	if err != nil {
		b.t.Fatal(err)
	}
	return s, onion.NewClient(keys, wire.CellSize)
}

// TestStatuses lets every kind of failure happen behind the second hop and checks which hop says what,
// after how long, and that the relay then waits for the client to close.
// The hops between learn nothing of it.
func TestStatuses(t *testing.T) {
	// Relay 2 answers nobody, relay 3 is not in the consensus, relay 4 is not where it says.
	configure := func(i int, c *Config) {
		switch i {
		case 3:
			c.Nickname = "unlisted"
		case 4:
			c.Advertise = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.99:9001")}
		}
	}
	const way = 10 * time.Millisecond // of one link
	for _, test := range []struct {
		path   []int
		status wire.Status
		hop    int // that says so
		took   time.Duration
	}{
		// All hops begin to wait at about the same time, so it is the first that gives up.
		{[]int{1, 2}, wire.StatusNextTimeout, 0, answerTimeout + 2*way},
		{[]int{0, 1, 2}, wire.StatusNextTimeout, 0, answerTimeout + 2*way},
		{[]int{0, 1, 3}, wire.StatusUnknownNext, 1, 4 * way},
		{[]int{0, 1, 4}, wire.StatusNextUnreachable, 1, extendTimeout + 4*way},
	} {
		t.Run(test.status.String(), func(t *testing.T) {
			onBed(t, 5, configure, func(b *bed) {
				b.build(0, 1) // warms the links
				b.build(1, 2)
				b.deafen(2)
				packet, h := b.create(test.path...)
				b.open(test.path[0]).Reset(wire.ResetDestroyed) // warms the first link
				began := time.Now()
				s, created, err := b.send(test.path[0], packet)
				if err != nil {
					t.Error(err)
					return
				}
				took := time.Since(began)
				var said *onion.HopError
				if _, err := h.Finish(created); !errors.As(err, &said) || said.Hop != test.hop || said.Status != test.status {
					t.Errorf("got %v, want %v by hop %d", err, test.status, test.hop+1)
				}
				if took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
				_, err = s.Read(make([]byte, 1))
				wantReset(t, err, wire.ResetDestroyed)
				if waited := time.Since(began) - took; waited != closeTimeout {
					t.Errorf("the relay closed after %v, want %v", waited, closeTimeout)
				}
			})
		})
	}
}

// deafen makes a relay read CREATEs and answer none.
func (b *bed) deafen(relay int) {
	pool := b.relays[relay].peel
	for range cap(pool.slots) {
		pool.slots <- struct{}{}
	}
	pool.deadline = time.Hour
}

// TestWayBack sends a relay a circuit whose next hop is the relay that it comes from: it is refused, by a
// relay that knows who is at the other end of its link.
func TestWayBack(t *testing.T) {
	onBed(t, 2, nil, func(b *bed) {
		packet, h := b.create(1, 0)
		addrs, _ := b.relays[1].addresses()
		l, err := b.relays[0].node.Link(b.t.Context(), b.ids[1], addrs)
		if err != nil {
			b.t.Fatal(err)
		}
		s, err := l.Open(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
		defer s.Reset(wire.ResetDestroyed)
		created := make([]byte, wire.CreatedSize)
		s.Write(packet)
		if _, err := io.ReadFull(s, created); err != nil {
			t.Fatal(err)
		}
		var said *onion.HopError
		if _, err := h.Finish(created); !errors.As(err, &said) || said.Hop != 0 || said.Status != wire.StatusRefused {
			t.Errorf("got %v, want refused by the first hop", err)
		}
	})
}

// TestNotAccepted checks that whatever is wrong with a CREATE, the sender learns one code, and nothing
// goes on to another relay.
func TestNotAccepted(t *testing.T) {
	onBed(t, 2, nil, func(b *bed) {
		good, _ := b.create(0, 1)
		flipped := bytes.Clone(good)
		flipped[5000] ^= 1
		other, _ := b.create(1, 0) // for another relay
		if _, _, err := b.send(0, good); err != nil {
			t.Fatal(err)
		}
		for name, packet := range map[string][]byte{
			"replay": good, "flipped bit": flipped, "another relay's": other, "zeros": make([]byte, wire.CreateSize),
		} {
			_, _, err := b.send(0, packet)
			if code, ok := link.ResetCodeOf(err); !ok || code != wire.ResetCreate {
				t.Errorf("%s: got %v, want a reset: %v", name, err, wire.ResetCreate)
			}
		}
	})
}

// TestShortCreate checks that a client that does not send its CREATE is not waited for for ever.
func TestShortCreate(t *testing.T) {
	onBed(t, 1, nil, func(b *bed) {
		s := b.open(0)
		began := time.Now()
		s.Write(make([]byte, 100))
		_, err := s.Read(make([]byte, 1))
		wantReset(t, err, wire.ResetDestroyed)
		if took, want := time.Since(began), createTimeout+20*time.Millisecond; took != want {
			t.Errorf("reset after %v, want %v", took, want)
		}
	})
}

// TestTooEarly checks that bytes behind CREATE, sent before CREATED, are a violation.
func TestTooEarly(t *testing.T) {
	onBed(t, 2, nil, func(b *bed) {
		packet, _ := b.create(0, 1)
		_, _, err := b.send(0, append(packet, 0))
		wantReset(t, err, wire.ResetViolation)
	})
}

// TestCodesStayBehind resets a circuit at one end with every code and checks that the other end only
// learns that it is gone.
func TestCodesStayBehind(t *testing.T) {
	onBed(t, 3, nil, func(b *bed) {
		for _, code := range []wire.ResetCode{wire.ResetDestroyed, wire.ResetCreate, wire.ResetOverloaded, wire.ResetViolation} {
			s, _ := b.build(0, 1, 2)
			s.Reset(code)
		}
		// The exit's end breaks the protocol from the client's point of view: a cell that does not open.
		s, _ := b.build(0, 1, 2)
		s.Write(make([]byte, wire.CellSize))
		_, err := s.Read(make([]byte, 1))
		wantReset(t, err, wire.ResetDestroyed)
		<-time.After(time.Second)
		for i, r := range b.relays {
			if n := r.Circuits(); n != 0 {
				t.Errorf("relay %d still has %d circuits", i, n)
			}
		}
	})
}

// TestClientGone checks that a client which gives up while the circuit is being built leaves nothing
// behind.
func TestClientGone(t *testing.T) {
	onBed(t, 3, nil, func(b *bed) {
		b.build(0, 1, 2)
		b.deafen(2)
		packet, _ := b.create(0, 1, 2)
		s := b.open(0)
		s.Write(packet)
		<-time.After(time.Second)
		before := b.relays[1].Circuits()
		s.Reset(wire.ResetDestroyed)
		<-time.After(time.Second)
		if after := b.relays[1].Circuits(); after != before-1 {
			t.Errorf("the second relay has %d circuits after, %d before", after, before)
		}
	})
}

// TestOverload checks that a full queue and a full bucket are resets that say so.
func TestOverload(t *testing.T) {
	t.Run("queue", func(t *testing.T) {
		onBed(t, 1, nil, func(b *bed) {
			b.deafen(0)
			b.relays[0].peel.deadline = peelDeadline
			packet, _ := b.create(0)
			began := time.Now()
			_, _, err := b.send(0, packet)
			wantReset(t, err, wire.ResetOverloaded)
			if waited := time.Since(began); waited < peelDeadline {
				t.Errorf("reset after %v, want the queue's deadline of %v to pass first", waited, peelDeadline)
			}
		})
	})
	t.Run("bucket", func(t *testing.T) {
		onBed(t, 1, nil, func(b *bed) {
			bucket := b.relays[0].admission.bucket(wire.ID{}, b.clientAddr())
			bucket.ReserveN(time.Now(), clientBurst)
			bucket.ReserveN(time.Now(), clientRate) // empty for a second
			packet, _ := b.create(0)
			_, _, err := b.send(0, packet)
			wantReset(t, err, wire.ResetOverloaded)
			<-time.After(time.Second)
			if _, _, err := b.send(0, packet); err != nil {
				t.Errorf("when it has filled again: %v", err)
			}
		})
	})
}

// TestLifetime checks that a circuit ends with its time.
func TestLifetime(t *testing.T) {
	onBed(t, 2, nil, func(b *bed) {
		s, _ := b.build(0, 1)
		began := time.Now()
		_, err := io.ReadFull(s, make([]byte, 1))
		wantReset(t, err, wire.ResetDestroyed)
		if lived := time.Since(began); lived < circuitLifetime-time.Second || lived > circuitLifetime+time.Second {
			t.Errorf("the circuit lived for %v, want %v", lived, circuitLifetime)
		}
	})
}

// TestKeyRotation checks that circuits made for the key before last are refused, those for the last one
// served, and that the old key goes when no consensus can list it.
func TestKeyRotation(t *testing.T) {
	onBed(t, 1, nil, func(b *bed) {
		first, _ := b.create(0)
		firstKey := b.relays[0].keys.published()[0]
		<-time.After(26 * time.Hour) // a first key may live a little longer than a day
		if b.relays[0].keys.published()[0].From == firstKey.From {
			t.Fatal("the key was not rotated")
		}
		// An hour has passed: the packet is too old, whatever its key.
		_, _, err := b.send(0, first)
		wantReset(t, err, wire.ResetCreate)
		hops := []onion.Hop{{ID: b.ids[0], OnionKey: firstKey.Public}}
		old, _, _ := onion.Create(hops, time.Now())
		if _, _, err := b.send(0, old); err != nil {
			t.Errorf("a circuit for the old key: %v", err)
		}
		if testing.Short() {
			return // four days more take long under the race detector
		}
		// The last consensus that can list it was made when it was replaced, and is valid for 100 hours.
		<-time.After(100*time.Hour + afterExpiry + 2*keyCheck)
		late, _, _ := onion.Create(hops, time.Now())
		_, _, err = b.send(0, late)
		wantReset(t, err, wire.ResetCreate)
	})
}

func TestPeelPool(t *testing.T) {
	p := newPeelPool()
	ctx, cancel := context.WithCancel(t.Context())
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	p.waiting.Store(peelQueue)
	if err := p.do(ctx, func() { t.Error("ran") }); !errors.Is(err, errOverloaded) {
		t.Errorf("full queue: %v", err)
	}
	p.waiting.Store(0)
	cancel()
	if err := p.do(ctx, func() { t.Error("ran") }); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	if got := p.waiting.Load(); got != 0 {
		t.Errorf("%d are counted as waiting", got)
	}
	<-p.slots
	ran := false
	if err := p.do(t.Context(), func() { ran = true }); err != nil || !ran {
		t.Errorf("free slot: %v, ran %v", err, ran)
	}
}
