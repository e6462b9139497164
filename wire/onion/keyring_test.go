package onion

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/wire"
)

func TestPrivateKey(t *testing.T) {
	key := newTestKey(t)
	if len(key.Public()) != PublicKeySize {
		t.Errorf("public key of %d bytes", len(key.Public()))
	}
	again, err := ParsePrivateKey(key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Public(), key.Public()) || again.Digest() != key.Digest() || key.Digest() != publicDigest(key.Public()) {
		t.Error("the key changed on its way to bytes and back")
	}
	clear(key.Bytes())
	clear(key.Public())
	if !bytes.Equal(again.Bytes(), key.Bytes()) || !bytes.Equal(again.Public(), key.Public()) {
		t.Error("the caller's slice is the key's own")
	}
	for _, n := range []int{0, 31, 33, PublicKeySize} {
		if _, err := ParsePrivateKey(make([]byte, n)); err == nil {
			t.Errorf("%d bytes make a key", n)
		}
	}
}

// TestReplay: a packet is peeled once, also if it comes again in another hour in which it would be accepted.
func TestReplay(t *testing.T) {
	net := newTestNet(t, 2)
	packet, _ := net.create(t)
	peeled := net.carryOut(t, packet, 2)
	for i, p := range [][]byte{packet, peeled[0].Packet} {
		for _, by := range []time.Duration{0, time.Hour, 0, -time.Hour} {
			if again, err := net.rings[i].Peel(p, testNow.Add(by)); !errors.Is(err, errReplay) || again != nil {
				t.Errorf("hop %d, %v later: %v", i+1, by, err)
			}
		}
	}
	other, _ := net.create(t)
	net.carryOut(t, other, 2)
}

// TestReplayOfRefused: a packet that was refused, or whose share had low order, has been peeled too.
func TestReplayOfRefused(t *testing.T) {
	net := newTestNet(t, 1)
	for name, edit := range map[string]func(heads []head){
		"refused":   func(heads []head) { heads[0].flags = 1 },
		"low order": func(heads []head) { heads[0].c = [dhSize]byte{} },
	} {
		packet, _ := net.craft(t, edit)
		_, first := net.rings[0].Peel(packet, testNow)
		if _, second := net.rings[0].Peel(packet, testNow); !errors.Is(second, errReplay) {
			t.Errorf("%s: first %v, then %v", name, first, second)
		}
	}
}

// TestFull: a full cache turns new packets away without an answer, still knows the old ones, and has room again
// when their hour is over.
func TestFull(t *testing.T) {
	net := newTestNet(t, 1)
	ring := NewKeyring(net.path[0].ID, net.keys[0], 2)
	var old [][]byte
	for range 2 {
		packet, _ := net.create(t)
		if p, err := ring.Peel(packet, testNow); err != nil || p.Verdict != 0 {
			t.Fatalf("verdict, error %v", err)
		}
		old = append(old, packet)
	}
	packet, _ := net.create(t)
	if p, err := ring.Peel(packet, testNow); !errors.Is(err, ErrFull) || errors.Is(err, ErrCreate) || p != nil {
		t.Fatalf("full: %v", err)
	}
	for i := range old {
		if _, err := ring.Peel(old[i], testNow); !errors.Is(err, errReplay) {
			t.Errorf("packet %d while full: %v", i, err)
		}
	}
	later := testNow.Add(2 * time.Hour)
	packet, _, err := Create(net.path, later)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := ring.Peel(packet, later); err != nil || p.Verdict != 0 {
		t.Errorf("two hours later: %v", err)
	}
}

// TestRotate: packets for the current and the old key are peeled, each once; those for an erased key are not.
func TestRotate(t *testing.T) {
	net := newTestNet(t, 1)
	ring := net.rings[0]
	var packets [][]byte
	create := func() []byte {
		packet, _ := net.create(t)
		packets = append(packets, packet)
		return packet
	}
	rotate := func() {
		net.keys[0] = newTestKey(t)
		net.path[0].OnionKey = net.keys[0].Public()
		ring.Rotate(net.keys[0])
	}
	peel := func(what string, packet []byte, want error) {
		t.Helper()
		if _, err := ring.Peel(packet, testNow); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	first, second := create(), create()
	peel("first key, first packet", first, nil)
	rotate()
	peel("old key, first packet again", first, errReplay)
	peel("old key, second packet", second, nil)
	third, fourth := create(), create()
	peel("current key", third, nil)
	rotate()
	peel("key before the old one", second, errTag)
	peel("old key", fourth, nil)
	peel("old key, again", fourth, errReplay)
	fifth := create()
	ring.EraseOld()
	ring.EraseOld()
	peel("erased key", fourth, errTag)
	peel("current key", fifth, nil)
	if n := len(ring.snapshot()); n != 1 || cap(ring.snapshot()) != 1 {
		t.Errorf("%d keys, %d reachable", n, cap(ring.snapshot()))
	}
}

// TestErasedKeyIsGone: the slice that EraseOld leaves cannot reach the old key.
func TestErasedKeyIsGone(t *testing.T) {
	ring := NewKeyring(wire.ID{1}, newTestKey(t), 1)
	ring.Rotate(newTestKey(t))
	before := ring.snapshot()
	ring.EraseOld()
	if len(before) != 2 || &before[0] == &ring.snapshot()[0] {
		t.Error("the ring still holds the array with the old key")
	}
}

// TestRestore: what was peeled before a restart is a replay after it.
func TestRestore(t *testing.T) {
	net := newTestNet(t, 1)
	packet, _ := net.create(t)
	p := net.carryOut(t, packet, 1)[0]
	if p.Replay.Key != net.keys[0].Digest() || int64(p.Replay.Hour) != hours(testNow) || p.Replay.Digest == [16]byte{} {
		t.Fatalf("entry %+v", p.Replay)
	}
	ring := NewKeyring(net.path[0].ID, net.keys[0], 1)
	for range 2 { // a file may hold an entry twice
		if !ring.Restore(p.Replay) {
			t.Fatal("not restored")
		}
	}
	if _, err := ring.Peel(packet, testNow); !errors.Is(err, errReplay) {
		t.Errorf("after a restart: %v", err)
	}
	other := p.Replay
	other.Digest[0] ^= 1
	if ring.Restore(other) {
		t.Error("a full cache took another entry")
	}
	other.Key[0] ^= 1
	if NewKeyring(net.path[0].ID, net.keys[0], 1).Restore(other) {
		t.Error("an entry of no key was restored")
	}
}

// TestConcurrentPeel: of many relay goroutines with one packet, one gets it, whatever the keys do meanwhile.
func TestConcurrentPeel(t *testing.T) {
	net := newTestNet(t, 1)
	packet, _ := net.create(t)
	next := newTestKey(t)
	var peeled, refused atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			switch _, err := net.rings[0].Peel(packet, testNow); {
			case err == nil:
				peeled.Add(1)
			case errors.Is(err, errReplay):
				refused.Add(1)
			}
		})
	}
	wg.Go(func() { net.rings[0].Rotate(next) })
	wg.Wait()
	if peeled.Load() != 1 || refused.Load() != 15 {
		t.Errorf("peeled %d times, refused %d times", peeled.Load(), refused.Load())
	}
}
