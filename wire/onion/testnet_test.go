package onion

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"torproxy/wire"
)

// testNow is an hour and a bit of another: 1800 seconds past the hour.
var testNow = time.Unix(500000*3600+1800, 0)

// testLimit is the replay cache's size in tests that do not fill it.
const testLimit = 1 << 20

// testNet is a path of relays with their keyrings.
type testNet struct {
	path  []Hop
	keys  []*PrivateKey
	rings []*Keyring
}

func newTestNet(tb testing.TB, n int) *testNet {
	tb.Helper()
	net := new(testNet)
	for i := range n {
		id := wire.ID(sha256.Sum256([]byte{byte(i)}))
		key := newTestKey(tb)
		net.keys = append(net.keys, key)
		net.path = append(net.path, Hop{ID: id, OnionKey: key.Public()})
		net.rings = append(net.rings, NewKeyring(id, key, testLimit))
	}
	return net
}

func newTestKey(tb testing.TB) *PrivateKey {
	tb.Helper()
	key, err := GenerateKey()
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func (n *testNet) create(tb testing.TB) ([]byte, *Handshake) {
	tb.Helper()
	packet, h, err := Create(n.path, testNow)
	if err != nil {
		tb.Fatal(err)
	}
	return packet, h
}

// carry takes packet through the first ends relays, lets the last of them answer status, and brings CREATED back.
// It checks what each relay must see on the way.
func (n *testNet) carry(tb testing.TB, packet []byte, ends int, status wire.Status) (created []byte, keys []*HopKeys) {
	tb.Helper()
	return n.carryBack(tb, n.carryOut(tb, packet, ends), status)
}

// carryOut peels at the first ends relays.
func (n *testNet) carryOut(tb testing.TB, packet []byte, ends int) (peeled []*Peeled) {
	tb.Helper()
	for i := range ends {
		if len(packet) != wire.CreateSize {
			tb.Fatalf("hop %d gets %d bytes", i+1, len(packet))
		}
		before := bytes.Clone(packet)
		p, err := n.rings[i].Peel(packet, testNow)
		if err != nil {
			tb.Fatalf("hop %d: %v", i+1, err)
		}
		if !bytes.Equal(packet, before) {
			tb.Fatalf("hop %d: Peel changed its input", i+1)
		}
		last := i == len(n.path)-1
		if p.Verdict != 0 || p.Last != last || (p.Packet == nil) != last {
			tb.Fatalf("hop %d: verdict %v, last %v, %d bytes", i+1, p.Verdict, p.Last, len(p.Packet))
		}
		if !last && p.Next != n.path[i+1].ID || last && !p.Next.IsZero() {
			tb.Fatalf("hop %d: next is %v", i+1, p.Next)
		}
		peeled = append(peeled, p)
		packet = p.Packet
	}
	return peeled
}

// carryBack answers at the relays that peeled, last first.
func (n *testNet) carryBack(tb testing.TB, peeled []*Peeled, status wire.Status) (created []byte, keys []*HopKeys) {
	tb.Helper()
	keys = make([]*HopKeys, len(peeled))
	for i := len(peeled) - 1; i >= 0; i-- {
		var err error
		if created, keys[i], err = peeled[i].Answer(status, created); err != nil {
			tb.Fatalf("hop %d: %v", i+1, err)
		}
		if len(created) != wire.CreatedSize {
			tb.Fatalf("hop %d answers %d bytes", i+1, len(created))
		}
		status = wire.StatusForwarded
	}
	return created, keys
}

// again returns a handshake that Finish has not been called on.
func (h *Handshake) again() *Handshake { return &Handshake{hops: h.hops} }

// testHopKeys returns n hops' keys that differ in every part.
func testHopKeys(n int) []HopKeys {
	keys := make([]HopKeys, n)
	for i := range keys {
		fillTest(keys[i].Forward[:], uint64(2*i))
		fillTest(keys[i].Backward[:], uint64(2*i+1))
	}
	return keys
}

// fillTest fills b with bytes that depend on seed, all alike to the eye.
func fillTest(b []byte, seed uint64) {
	var block [16]byte
	binary.BigEndian.PutUint64(block[:], seed)
	for n := uint64(0); len(b) > 0; n++ {
		binary.BigEndian.PutUint64(block[8:], n)
		sum := sha256.Sum256(block[:])
		b = b[copy(b, sum[:]):]
	}
}
