package netdoc

import (
	"net/netip"
	"testing"
)

// A client does this once a round: verify, decode, check and index.
func BenchmarkParseConsensus(b *testing.B) {
	n, keys := testNetwork(4)
	raw := sealed(b, testConsensus(n, 10000), keys[0], keys[1], keys[2])
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseConsensus(raw, n); err != nil {
			b.Fatal(err)
		}
	}
}

// An authority does this once for each relay.
func BenchmarkParseDescriptor(b *testing.B) {
	d, key := testDescriptor()
	raw := must(d.Sign(key))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseDescriptor(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// An exit does this for every connection, a client for every exit that it weighs.
func BenchmarkPolicyAllows(b *testing.B) {
	p := mustPolicy("accept private:*,reject *:25,accept *:*")
	to := netip.MustParseAddrPort("[2600::1]:443")
	b.ReportAllocs()
	for b.Loop() {
		if !p.Allows(to) {
			b.Fatal("rejected")
		}
	}
}
