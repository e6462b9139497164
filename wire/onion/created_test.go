package onion

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"testing"

	"torproxy/wire"
)

// errorStatuses are the statuses that end a circuit.
var errorStatuses = []wire.Status{wire.StatusUnknownNext, wire.StatusNextUnreachable, wire.StatusNextTimeout,
	wire.StatusNextReset, wire.StatusOverloaded, wire.StatusRefused}

// TestBuild: paths of every length, from CREATE to cells in both directions under the keys that came of it.
func TestBuild(t *testing.T) {
	for n := 1; n <= wire.MaxHops; n++ {
		t.Run(fmt.Sprintf("hops=%d", n), func(t *testing.T) {
			net := newTestNet(t, n)
			packet, h := net.create(t)
			created, relays := net.carry(t, packet, n, wire.StatusReady)
			if equalRun(created) {
				t.Error("CREATED is not random")
			}
			hops, err := h.Finish(created)
			if err != nil || len(hops) != n {
				t.Fatalf("%d hops: %v", len(hops), err)
			}
			c := &circuit{client: NewClient(hops, wire.CellSize), cellSize: wire.CellSize}
			for i, keys := range relays {
				if hops[i] != *keys {
					t.Fatalf("hop %d and the client differ in their keys", i+1)
				}
				if keys.Forward == keys.Backward {
					t.Fatal("one key for both directions")
				}
				c.outward = append(c.outward, NewLayer(&keys.Forward, wire.CellSize))
				c.inward = append(c.inward, NewLayer(&keys.Backward, wire.CellSize))
			}
			cell := c.cell(1)
			c.client.Seal(cell)
			if !c.send(cell) || !bytes.Equal(cell[16:], c.cell(1)[16:]) {
				t.Error("an outward cell did not arrive")
			}
			c.originate(cell)
			if !c.client.Open(cell) || !bytes.Equal(cell[16:], c.cell(1)[16:]) {
				t.Error("an inward cell did not arrive")
			}
		})
	}
}

// TestStatuses: every error at every hop of every path reaches the client as that hop's, and no relay gets keys.
func TestStatuses(t *testing.T) {
	for n := 1; n <= wire.MaxHops; n++ {
		net := newTestNet(t, n)
		for ends := 1; ends <= n; ends++ {
			for _, status := range errorStatuses {
				t.Run(fmt.Sprintf("hops=%d/%d says %v", n, ends, status), func(t *testing.T) {
					packet, h := net.create(t)
					created, keys := net.carry(t, packet, ends, status)
					if keys[ends-1] != nil {
						t.Error("an error comes with keys")
					}
					if equalRun(created) {
						t.Error("the slots of hops not reached are not random")
					}
					wantHopError(t, h, created, ends-1, status)
				})
			}
		}
	}
}

// TestUnreachedSlots: what stands in the slots of hops not reached is the pad of the hop where the packet ended,
// exactly, and the client checks it.
func TestUnreachedSlots(t *testing.T) {
	const hops, ends = 5, 2
	net := newTestNet(t, hops)
	packet, h := net.create(t)
	created, _ := net.carry(t, packet, ends, wire.StatusNextTimeout)
	in := bytes.Clone(created)
	for i := range ends {
		keystream(&h.hops[i].first.reply).XORKeyStream(in, in)
		in = in[answerSize:]
	}
	pad := make([]byte, wire.CreatedSize)
	h.hops[ends-1].first.fillPad(pad)
	// Each slot put in front has pushed 72 bytes out at the end.
	if want := pad[:len(in)]; !bytes.Equal(in, want) {
		t.Errorf("got %.32x, want %.32x", in, want)
	}
}

// TestFlippedCreated: any changed byte of CREATED, whoever on the way changed it, is a violation to the client; it
// is never read as another hop's error. That holds for a circuit that stands and for one that failed.
func TestFlippedCreated(t *testing.T) {
	const hops = 3
	for _, c := range []struct {
		ends   int
		status wire.Status
	}{{hops, wire.StatusReady}, {2, wire.StatusNextReset}} {
		for at := range c.ends { // changed behind hop at
			t.Run(fmt.Sprintf("%v, behind hop %d", c.status, at+1), func(t *testing.T) {
				t.Parallel()
				net := newTestNet(t, hops)
				packet, h := net.create(t)
				peeled := net.carryOut(t, packet, c.ends)
				behind, _ := (&testNet{}).carryBack(t, peeled[at:], c.status)
				for i := range behind {
					changed := bytes.Clone(behind)
					changed[i] ^= 1 << (i % 8)
					created := rewrap(t, peeled[:at], changed)
					if keys, err := h.again().Finish(created); !errors.Is(err, wire.ErrViolation) || keys != nil {
						t.Fatalf("byte %d: %v", i, err)
					}
				}
				created := rewrap(t, peeled[:at], behind)
				_, err := h.Finish(created)
				if status := new(HopError); c.status == wire.StatusReady && err != nil ||
					c.status != wire.StatusReady && !errors.As(err, &status) {
					t.Fatalf("unchanged: %v", err)
				}
			})
		}
	}
}

// rewrap lets copies of peeled forward what came, so that they can do it again.
func rewrap(t *testing.T, peeled []*Peeled, came []byte) []byte {
	t.Helper()
	for i := len(peeled) - 1; i >= 0; i-- {
		var err error
		if came, _, err = copyPeeled(t, peeled[i]).Answer(wire.StatusForwarded, came); err != nil {
			t.Fatal(err)
		}
	}
	return came
}

// copyPeeled returns a Peeled that has not been answered.
func copyPeeled(t *testing.T, p *Peeled) *Peeled {
	t.Helper()
	th, err := p.transcript.(hash.Cloner).Clone()
	if err != nil {
		t.Fatal(err)
	}
	first := *p.first
	return &Peeled{Verdict: p.Verdict, Last: p.Last, Next: p.Next, Packet: p.Packet, transcript: th, first: &first,
		y: p.y, dh: bytes.Clone(p.dh)}
}

// forge makes p's CREATED as a hop that holds the keys but not to the protocol: edit changes the slot before it is
// authenticated. What edit leaves in auth is added to the right one; came is nil where the packet ended.
func forge(t *testing.T, p *Peeled, came []byte, edit func(a *answer)) []byte {
	t.Helper()
	a := answer{status: wire.StatusReady, y: p.y}
	edit(&a)
	spoil := a.auth
	second, err := newSecondPass(p.transcript, &a, p.dh, &p.first.chain)
	if err != nil {
		t.Fatal(err)
	}
	var back [32]byte
	if a.auth, back, err = second.proofs(); err != nil {
		t.Fatal(err)
	}
	for i := range a.auth {
		a.auth[i] ^= spoil[i]
	}
	b := make([]byte, wire.CreatedSize)
	if came == nil {
		p.first.fillPad(b)
	}
	copy(b, came)
	p.first.wrapAnswer(b, &a, &back)
	return b
}

// TestLyingHops: what a hop of the path may not say is a violation even when it proves that it said it.
func TestLyingHops(t *testing.T) {
	const hops = 3
	lies := map[string]func(a *answer){
		"status 0":       func(a *answer) { a.status = 0 },
		"status 9":       func(a *answer) { a.status = wire.StatusRefused + 1 },
		"status 255":     func(a *answer) { a.status = 255 },
		"wrong auth":     func(a *answer) { a.auth[15] = 1 },
		"reserved first": func(a *answer) { a.reserved[0] = 1 },
		"reserved last":  func(a *answer) { a.reserved[6] = 0x80 },
		"another Y":      func(a *answer) { a.y[0] ^= 1 },
	}
	for i, point := range lowOrderPoints(t) {
		lies[fmt.Sprintf("low-order Y %d", i)] = func(a *answer) { a.y = point }
	}
	for name, lie := range lies {
		for ends := 1; ends <= hops; ends++ {
			t.Run(fmt.Sprintf("%s by hop %d", name, ends), func(t *testing.T) {
				net := newTestNet(t, hops)
				packet, h := net.create(t)
				peeled := net.carryOut(t, packet, ends)
				created := rewrap(t, peeled[:ends-1], forge(t, peeled[ends-1], nil, lie))
				if keys, err := h.Finish(created); !errors.Is(err, wire.ErrViolation) || keys != nil {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

// TestWrongPlace: "ready" before the path's end, and "forwarded" at it.
func TestWrongPlace(t *testing.T) {
	const hops = 3
	for ends := 1; ends <= hops; ends++ {
		net := newTestNet(t, hops)
		packet, h := net.create(t)
		peeled := net.carryOut(t, packet, ends)
		status := wire.StatusReady
		var came []byte
		if ends == hops {
			status, came = wire.StatusForwarded, make([]byte, wire.CreatedSize)
			fillTest(came, 1)
		}
		created := rewrap(t, peeled[:ends-1], forge(t, peeled[ends-1], came, func(a *answer) { a.status = status }))
		if keys, err := h.Finish(created); !errors.Is(err, wire.ErrViolation) || keys != nil {
			t.Errorf("%v by hop %d of %d: %v", status, ends, hops, err)
		}
	}
}

// TestNonsenseForwarded: a hop that puts its slot in front of nonsense is not blamed for it, but the circuit is over.
func TestNonsenseForwarded(t *testing.T) {
	net := newTestNet(t, 3)
	packet, h := net.create(t)
	peeled := net.carryOut(t, packet, 1)
	noise := make([]byte, wire.CreatedSize)
	fillTest(noise, 2)
	if _, err := h.Finish(rewrap(t, peeled, noise)); !errors.Is(err, wire.ErrViolation) {
		t.Errorf("got %v", err)
	}
}

// TestAnotherCreated: CREATED of one circuit does not fit another, not even over the same path, and a packet of
// another size fits none. A handshake takes one only.
func TestAnotherCreated(t *testing.T) {
	net := newTestNet(t, 2)
	packet, h := net.create(t)
	created, _ := net.carry(t, packet, 2, wire.StatusReady)
	_, other := net.create(t)
	if _, err := other.Finish(created); !errors.Is(err, wire.ErrViolation) {
		t.Errorf("another circuit's CREATED: %v", err)
	}
	for _, b := range [][]byte{nil, created[:575], append(bytes.Clone(created), 0)} {
		if _, err := h.again().Finish(b); !errors.Is(err, wire.ErrViolation) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
	if _, err := h.Finish(created); err != nil {
		t.Fatal(err)
	}
	if keys, err := h.Finish(created); err == nil || keys != nil {
		t.Error("finished twice")
	}
}

// TestAnswerArguments: what a relay may not answer is refused without using up its one answer.
func TestAnswerArguments(t *testing.T) {
	net := newTestNet(t, 2)
	packet, h := net.create(t)
	peeled := net.carryOut(t, packet, 2)
	came := make([]byte, wire.CreatedSize)
	for _, c := range []struct {
		hop    int
		status wire.Status
		came   []byte
	}{
		{0, 0, nil}, {0, 9, nil}, {0, wire.StatusReady, nil}, {0, wire.StatusForwarded, nil},
		{0, wire.StatusForwarded, came[1:]}, {0, wire.StatusNextReset, came},
		{1, wire.StatusForwarded, came}, {1, wire.StatusReady, came}, {1, wire.StatusForwarded, nil},
	} {
		if created, keys, err := peeled[c.hop].Answer(c.status, c.came); err == nil || created != nil || keys != nil {
			t.Errorf("hop %d answered %v with %d bytes", c.hop+1, c.status, len(c.came))
		}
	}
	created, _ := net.carryBack(t, peeled, wire.StatusReady)
	for i, status := range []wire.Status{wire.StatusNextTimeout, wire.StatusReady} {
		if again, keys, err := peeled[i].Answer(status, nil); err == nil || again != nil || keys != nil {
			t.Errorf("hop %d answered twice", i+1)
		}
	}
	if _, err := h.Finish(created); err != nil {
		t.Error(err)
	}
}

func TestHopError(t *testing.T) {
	err := error(&HopError{Hop: 1, Status: wire.StatusNextTimeout})
	if got, want := err.Error(), "hop 2: next relay timed out"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzFinish: no bytes but the relays' own make a circuit, and none make Finish panic. The fuzzer's bytes come as
// they are, and as what a hop of the path received and forwarded.
func FuzzFinish(f *testing.F) {
	net := newTestNet(f, 2)
	packet, h := net.create(f)
	peeled := net.carryOut(f, packet, 2)
	last := peeled[1]
	inner, _, err := last.Answer(wire.StatusReady, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(inner, byte(wire.StatusForwarded))
	f.Add([]byte{}, byte(wire.StatusReady))
	f.Add(make([]byte, wire.CreatedSize), byte(0))
	f.Add(make([]byte, answerSize), byte(wire.StatusRefused))
	f.Fuzz(func(t *testing.T, b []byte, status byte) {
		if _, err := h.again().Finish(b); !errors.Is(err, wire.ErrViolation) {
			t.Fatalf("%d bytes as CREATED: %v", len(b), err)
		}
		came := make([]byte, wire.CreatedSize)
		copy(came, b)
		created := forge(t, copyPeeled(t, peeled[0]), came, func(a *answer) { a.status = wire.Status(status) })
		keys, err := h.again().Finish(created)
		good := bytes.Equal(came, inner) && wire.Status(status) == wire.StatusForwarded
		if good != (err == nil) || good != (len(keys) == 2) || err != nil && !errors.Is(err, wire.ErrViolation) {
			t.Fatalf("status %d: %v", status, err)
		}
	})
}
