package guard

import (
	"testing"

	"torproxy/wire/netdoc"
)

// BenchmarkUpdate is what a consensus of 10,000 relays costs a client that has guards.
func BenchmarkUpdate(b *testing.B) {
	w := newWorld(b, 1, 10000)
	c := w.consensus()
	b.ReportAllocs()
	for b.Loop() {
		w.s.Update(Network{Consensus: c}, w.now)
	}
}

// BenchmarkPick chooses a guard and tells that its circuit stands.
func BenchmarkPick(b *testing.B) {
	w := newWorld(b, 1, 1000)
	all := func(*netdoc.Relay) bool { return true }
	b.ReportAllocs()
	for b.Loop() {
		a, err := w.s.Pick(all, w.now)
		if err != nil {
			b.Fatal(err)
		}
		w.s.Built(a, w.now)
	}
}
