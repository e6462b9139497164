package onion

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"testing"

	"torproxy/wire"
)

// BenchmarkCreate is what a client pays for a circuit before the first byte leaves.
func BenchmarkCreate(b *testing.B) {
	for _, n := range []int{3, 5, 8} {
		b.Run(fmt.Sprintf("hops=%d", n), func(b *testing.B) {
			net := newTestNet(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Create(net.path, testNow); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPeel is what a relay pays for a CREATE: under its current key, and under its old one.
func BenchmarkPeel(b *testing.B) {
	for _, old := range []bool{false, true} {
		b.Run(fmt.Sprintf("old=%v", old), func(b *testing.B) {
			net := newTestNet(b, 3)
			packet, _ := net.create(b)
			ring := net.rings[0]
			if old {
				ring.Rotate(newTestKey(b))
			}
			keys := ring.snapshot()
			b.ReportAllocs()
			for b.Loop() {
				keys[len(keys)-1].seen = newReplayCache(1)
				if _, err := ring.Peel(packet, testNow); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAnswer is what a relay pays for its CREATED.
func BenchmarkAnswer(b *testing.B) {
	net := newTestNet(b, 1)
	packet, _ := net.create(b)
	key := net.rings[0].snapshot()[0]
	first, err := key.open(packet)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		key.seen = newReplayCache(1)
		again := *first
		p, err := key.peel(net.path[0].ID, packet, &again, hours(testNow), newShare)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, _, err := p.Answer(wire.StatusReady, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFinish is what a client pays for CREATED.
func BenchmarkFinish(b *testing.B) {
	for _, n := range []int{3, 5, 8} {
		b.Run(fmt.Sprintf("hops=%d", n), func(b *testing.B) {
			net := newTestNet(b, n)
			packet, h := net.create(b)
			created, _ := net.carry(b, packet, n, wire.StatusReady)
			b.ReportAllocs()
			for b.Loop() {
				h.done.Store(false)
				if _, err := h.Finish(created); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLayer is what a relay pays per cell: passing it on, and at the circuit's end. AES-GCM of the same bytes is
// what it is measured against.
func BenchmarkLayer(b *testing.B) {
	keys := testHopKeys(1)
	b.Run("AES-GCM", func(b *testing.B) {
		block, err := aes.NewCipher(keys[0].Forward[:16])
		if err != nil {
			b.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			b.Fatal(err)
		}
		nonce := make([]byte, gcm.NonceSize())
		benchmarkCells(b, func(cell []byte) { gcm.Seal(cell[:0], nonce, cell[:len(cell)-gcm.Overhead()], nil) })
	})
	b.Run("Pass", func(b *testing.B) {
		l := NewLayer(&keys[0].Forward, wire.CellSize)
		benchmarkCells(b, l.Pass)
	})
	b.Run("Originate", func(b *testing.B) {
		l := NewLayer(&keys[0].Forward, wire.CellSize)
		benchmarkCells(b, l.Originate)
	})
}

// BenchmarkClient is what a client pays per cell.
func BenchmarkClient(b *testing.B) {
	for _, n := range []int{3, 5} {
		b.Run(fmt.Sprintf("Seal/hops=%d", n), func(b *testing.B) {
			c := NewClient(testHopKeys(n), wire.CellSize)
			benchmarkCells(b, c.Seal)
		})
		b.Run(fmt.Sprintf("Open/hops=%d", n), func(b *testing.B) {
			c := NewClient(testHopKeys(n), wire.CellSize)
			// Every cell is noise to it; update, which a good cell would have, is benchmarked by Seal.
			benchmarkCells(b, func(cell []byte) {
				if c.Open(cell) {
					b.Fatal("noise was opened")
				}
			})
		})
	}
}

func benchmarkCells(b *testing.B, work func(cell []byte)) {
	cell := make([]byte, wire.CellSize)
	b.SetBytes(wire.CellSize)
	b.ReportAllocs()
	for b.Loop() {
		work(cell)
	}
}
