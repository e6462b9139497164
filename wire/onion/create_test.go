package onion

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"torproxy/wire"
)

// craft builds a packet as Create does, except for what edit changes in the heads.
func (n *testNet) craft(tb testing.TB, edit func(heads []head)) ([]byte, *Handshake) {
	tb.Helper()
	hops, heads, err := plan(n.path, testNow)
	if err != nil {
		tb.Fatal(err)
	}
	edit(heads)
	return wrap(hops, heads), &Handshake{hops: hops}
}

func TestCreateArguments(t *testing.T) {
	net := newTestNet(t, 8)
	long := append(append([]Hop(nil), net.path...), Hop{ID: wire.ID{9}, OnionKey: net.path[0].OnionKey})
	short := Hop{ID: wire.ID{9}, OnionKey: net.path[0].OnionKey[:PublicKeySize-1]}
	invalid := Hop{ID: wire.ID{9}, OnionKey: bytes.Repeat([]byte{0xff}, PublicKeySize)} // coefficients above q
	for name, path := range map[string][]Hop{
		"no hops":         nil,
		"nine hops":       long,
		"one relay twice": {net.path[0], net.path[1], net.path[0]},
		"no onion key":    {net.path[0], {ID: net.path[1].ID}},
		"short onion key": {short},
		"bad onion key":   {net.path[0], invalid},
	} {
		if packet, h, err := Create(path, testNow); err == nil || packet != nil || h != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestFreshSecrets: no two hops and no two circuits share anything that a pair of relays could compare.
func TestFreshSecrets(t *testing.T) {
	net := newTestNet(t, 8)
	seen := make(map[string]bool)
	for range 2 {
		_, h := net.create(t)
		for i := range h.hops {
			for _, b := range [][]byte{h.hops[i].enc, h.hops[i].tag[:], h.hops[i].c.PublicKey().Bytes(),
				h.hops[i].first.mac[:], h.hops[i].first.stream[:], h.hops[i].first.reply[:], h.hops[i].first.pad[:], h.hops[i].first.chain[:]} {
				if seen[string(b)] {
					t.Fatalf("hop %d shares a value of %d bytes", i+1, len(b))
				}
				seen[string(b)] = true
			}
		}
	}
}

// equalRun reports whether b holds 16 equal bytes in a row, which random bytes do not.
func equalRun(b []byte) bool {
	run := 1
	for i := 1; i < len(b); i++ {
		if b[i] != b[i-1] {
			run = 0
		}
		if run++; run == 16 {
			return true
		}
	}
	return false
}

// TestPadding: a packet has one size at every hop of every path, and nothing in it, nor in what a hop sees behind
// its own head, says where the path ends.
func TestPadding(t *testing.T) {
	for n := 1; n <= wire.MaxHops; n++ {
		net := newTestNet(t, n)
		packet, _ := net.create(t)
		for i := range n {
			if len(packet) != wire.CreateSize || equalRun(packet) {
				t.Fatalf("%d hops: packet of hop %d: %d bytes, or not random", n, i+1, len(packet))
			}
			first, err := net.rings[i].snapshot()[0].open(packet)
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, keyRange)
			copy(b, packet[encSize+macSize:])
			keystream(&first.stream).XORKeyStream(b, b)
			if equalRun(b[headSize:]) {
				t.Fatalf("%d hops: hop %d sees padding", n, i+1)
			}
			packet = b[headSize : headSize+wire.CreateSize]
		}
	}
}

// TestFlippedCreate: any changed byte of a packet is caught where the packet next arrives, whoever changed it: a
// link before the first hop, or the first hop itself. It costs nothing: the packet as it was is still accepted.
func TestFlippedCreate(t *testing.T) {
	net := newTestNet(t, 2)
	first, _ := net.create(t)
	second := net.carryOut(t, first, 1)[0].Packet
	fresh := NewKeyring(net.path[0].ID, net.keys[0], testLimit)
	step := 1
	if testing.Short() {
		step = 7 // every bit of a byte has its turn
	}
	for i, c := range []struct {
		ring   *Keyring
		packet []byte
	}{{fresh, first}, {net.rings[1], second}} {
		t.Run(fmt.Sprintf("hop=%d", i+1), func(t *testing.T) {
			t.Parallel()
			packet := bytes.Clone(c.packet)
			for at := 0; at < len(packet); at += step {
				flip := byte(1) << (at % 8)
				packet[at] ^= flip
				if p, err := c.ring.Peel(packet, testNow); !errors.Is(err, errTag) || p != nil {
					t.Fatalf("byte %d changed: %v", at, err)
				}
				packet[at] ^= flip
			}
			if _, err := c.ring.Peel(packet, testNow); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
		})
	}
}

// TestShareTopBit: X25519 ignores the top bit of a public key, but the packet's keys do not.
func TestShareTopBit(t *testing.T) {
	net := newTestNet(t, 1)
	packet, _ := net.create(t)
	packet[encSize-1] ^= 0x80
	if _, err := net.rings[0].Peel(packet, testNow); !errors.Is(err, errTag) {
		t.Errorf("got %v", err)
	}
}

// TestMisdirected: a packet opens at no other relay, even one that has the same onion key, and a cut or extended
// packet opens nowhere.
func TestMisdirected(t *testing.T) {
	net := newTestNet(t, 2)
	packet, _ := net.create(t)
	if _, err := net.rings[1].Peel(packet, testNow); !errors.Is(err, ErrCreate) {
		t.Errorf("the second hop opens the first hop's packet: %v", err)
	}
	twin := NewKeyring(net.path[1].ID, net.keys[0], testLimit)
	if _, err := twin.Peel(packet, testNow); !errors.Is(err, errTag) {
		t.Errorf("a relay with the same onion key opens the packet: %v", err)
	}
	for _, wrong := range [][]byte{nil, packet[:encSize], packet[:len(packet)-1], append(bytes.Clone(packet), 0)} {
		if _, err := net.rings[0].Peel(wrong, testNow); !errors.Is(err, errSize) {
			t.Errorf("%d bytes: %v", len(wrong), err)
		}
	}
}

// TestClock: a packet is accepted in its own hour, the one before and the one after.
func TestClock(t *testing.T) {
	for _, c := range []struct {
		by time.Duration
		ok bool
	}{
		{0, true}, {29 * time.Minute, true}, {90*time.Minute - 1, true}, {-90 * time.Minute, true},
		{90 * time.Minute, false}, {-90*time.Minute - time.Second, false},
		{24 * time.Hour, false}, {-24 * time.Hour, false}, {200 * 365 * 24 * time.Hour, false},
	} {
		net := newTestNet(t, 1)
		packet, _ := net.create(t)
		_, err := net.rings[0].Peel(packet, testNow.Add(c.by))
		if c.ok && err != nil || !c.ok && !errors.Is(err, errHour) {
			t.Errorf("clock off by %v: %v", c.by, err)
		}
	}
}

// lowOrder lists the encodings of Curve25519's points of small order, also those above p.
var lowOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
}

func lowOrderPoints(tb testing.TB) (points [][dhSize]byte) {
	tb.Helper()
	for _, s := range lowOrder {
		b, err := hex.DecodeString(s)
		if err != nil {
			tb.Fatal(err)
		}
		points = append(points, [dhSize]byte(b))
	}
	return points
}

// TestLowOrderC: a share that makes X25519 zero gets no answer, whatever else the head says.
func TestLowOrderC(t *testing.T) {
	for _, point := range lowOrderPoints(t) {
		for _, flags := range []byte{0, 1} {
			net := newTestNet(t, 1)
			packet, _ := net.craft(t, func(heads []head) { heads[0].c, heads[0].flags = point, flags })
			if p, err := net.rings[0].Peel(packet, testNow); !errors.Is(err, errLowOrder) || !errors.Is(err, ErrCreate) || p != nil {
				t.Errorf("C = %x: %v", point, err)
			}
		}
	}
}

// TestRefusedHeads: what a head must not say is answered with "refused", proof and all, and goes no further.
func TestRefusedHeads(t *testing.T) {
	var some wire.ID
	fillTest(some[:], 1)
	for _, c := range []struct {
		name string
		hops int
		edit func(h *head)
	}{
		{"role 0", 1, func(h *head) { h.role = 0 }},
		{"role 3", 1, func(h *head) { h.role = 3 }},
		{"role 255", 2, func(h *head) { h.role = 255 }},
		{"flags 1", 1, func(h *head) { h.flags = 1 }},
		{"flags 128", 2, func(h *head) { h.flags = 128 }},
		{"reserved, first byte", 1, func(h *head) { h.reserved[0] = 1 }},
		{"reserved, second byte", 2, func(h *head) { h.reserved[1] = 128 }},
		{"a next relay at the end", 1, func(h *head) { h.next = some }},
		{"a next relay at the end, last byte", 1, func(h *head) { h.next[31] = 1 }},
		{"the end, with the next relay left in", 2, func(h *head) { h.role = roleEnd }},
	} {
		t.Run(c.name, func(t *testing.T) {
			net := newTestNet(t, c.hops)
			net.refuses(t, func(heads []head) { c.edit(&heads[0]) })
		})
	}
	t.Run("next is nobody", func(t *testing.T) {
		newTestNet(t, 2).refuses(t, func(heads []head) { heads[0].next = wire.ID{} })
	})
	t.Run("next is self", func(t *testing.T) {
		net := newTestNet(t, 2)
		net.refuses(t, func(heads []head) { heads[0].next = net.path[0].ID })
	})
}

// refuses checks that the first hop refuses a packet with edited heads, and that the client learns who did.
func (n *testNet) refuses(t *testing.T, edit func(heads []head)) {
	t.Helper()
	packet, h := n.craft(t, edit)
	p, err := n.rings[0].Peel(packet, testNow)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if p.Verdict != wire.StatusRefused || p.Last || p.Packet != nil || !p.Next.IsZero() {
		t.Fatalf("verdict %v, last %v, next %v", p.Verdict, p.Last, p.Next)
	}
	for _, status := range []wire.Status{wire.StatusReady, wire.StatusForwarded, wire.StatusOverloaded} {
		if _, _, err := p.Answer(status, nil); err == nil {
			t.Fatalf("answered %v against the verdict", status)
		}
	}
	created, keys, err := p.Answer(wire.StatusRefused, nil)
	if err != nil || keys != nil {
		t.Fatalf("answer: %v, keys %v", err, keys != nil)
	}
	wantHopError(t, h, created, 0, wire.StatusRefused)
}

// wantHopError checks that the client reads created as hop's status.
func wantHopError(t *testing.T, h *Handshake, created []byte, hop int, status wire.Status) {
	t.Helper()
	keys, err := h.Finish(created)
	var said *HopError
	if !errors.As(err, &said) || said.Hop != hop || said.Status != status || keys != nil {
		t.Fatalf("got %v, want hop %d: %v", err, hop+1, status)
	}
	if errors.Is(err, wire.ErrViolation) {
		t.Error("an honest error reads as a violation")
	}
}

// FuzzPeel: no packet makes Peel panic, and none but the client's is accepted. The fuzzer's bytes are the packet,
// and also the body of one that is properly sealed, so that they reach the checks behind the tag.
func FuzzPeel(f *testing.F) {
	net := newTestNet(f, 2)
	packet, _ := net.create(f)
	f.Add(packet)
	f.Add([]byte{})
	f.Add(make([]byte, wire.CreateSize))
	end := head{role: roleEnd, hour: uint32(hours(testNow)), c: [dhSize]byte{9}}
	b := make([]byte, headSize)
	end.put(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		ring := NewKeyring(net.path[0].ID, net.keys[0], 2)
		p, err := ring.Peel(b, testNow)
		if (err == nil) != bytes.Equal(b, packet) || err != nil && !errors.Is(err, ErrCreate) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		if err == nil && (p.Verdict != 0 || p.Next != net.path[1].ID) {
			t.Fatalf("verdict %v", p.Verdict)
		}
		hd := make([]byte, headSize)
		copy(hd, b)
		sealed, _ := net.craft(t, func(heads []head) { heads[0] = parseHead(hd) })
		p, err = ring.Peel(sealed, testNow)
		if err != nil {
			if !errors.Is(err, errHour) && !errors.Is(err, errLowOrder) {
				t.Fatal(err)
			}
			return
		}
		next := wire.ID(hd[6:38])
		valid := hd[1] == 0 && hd[70] == 0 && hd[71] == 0 &&
			(hd[0] == roleForward && !next.IsZero() && next != net.path[0].ID || hd[0] == roleEnd && next.IsZero())
		if valid != (p.Verdict == 0) {
			t.Fatalf("head %x: verdict %v", hd, p.Verdict)
		}
	})
}
