package dirauth

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"torproxy/wire/netdoc"
)

// The benchmarks of ../wire/directory/SCALE.md on the authorities' side: four of them, 10,000 relays that all
// of them list, each with a measurement of its own.

const manyRelays = 10_000

// manyBallot returns a ballot of four full votes and the envelopes that they came in.
func manyBallot(tb testing.TB) (*town, *ballot, [][]byte) {
	tb.Helper()
	w := newTown(4)
	rnd := rand.New(rand.NewPCG(1, 2))
	held := make([]*netdoc.Descriptor, manyRelays)
	for i := range held {
		held[i] = describe(tb, i, func(d *netdoc.Descriptor) {
			for j := range d.OnionKeys[0].Public {
				d.OnionKeys[0].Public[j] = byte(rnd.Uint32())
			}
			d.Addresses[0] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(1 + i%200), byte(i >> 16), byte(i >> 8), byte(i)}), 9001)
			if i%3 != 0 {
				d.Policy = netdoc.Policy{}
			}
		})
	}
	var votes []*netdoc.Vote
	var raw [][]byte
	for i := range w.Authorities {
		entries := make([]netdoc.VoteEntry, len(held))
		for j, d := range held {
			entries[j] = measured(runs(d, netdoc.Fast), uint64(1+rnd.IntN(1<<27)))
		}
		v := w.vote(tb, i, entries...)
		votes, raw = append(votes, v), append(raw, v.Raw())
	}
	return w, w.ballot(votes, w.echoAll(tb, votes...), held...), raw
}

// BenchmarkScaleTally makes the document out of four votes.
func BenchmarkScaleTally(b *testing.B) {
	_, ballot, _ := manyBallot(b)
	b.ReportAllocs()
	runtime.GC()
	for b.Loop() {
		if _, err := ballot.tally(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScaleVote reads one vote: verify, decode, check.
func BenchmarkScaleVote(b *testing.B) {
	w, _, raw := manyBallot(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := netdoc.ParseVote(raw[0], w.Network); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(raw[0])), "vote-bytes")
}

// BenchmarkScaleSign signs the document.
func BenchmarkScaleSign(b *testing.B) {
	w, ballot, _ := manyBallot(b)
	document, err := ballot.tally()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		netdoc.SignConsensus(document, w.keys[0])
	}
}
