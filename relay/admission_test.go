package relay

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"torproxy/wire"
)

// TestBuckets checks who shares a bucket: an IPv4 address has its own, an IPv6 /64 too, a relay its own
// wherever it comes from.
func TestBuckets(t *testing.T) {
	relay := wire.ID{1}
	for _, test := range []struct {
		a, b   string
		x, y   wire.ID
		shared bool
	}{
		{"198.41.0.4", "198.41.0.4", wire.ID{}, wire.ID{}, true},
		{"198.41.0.4", "198.41.0.5", wire.ID{}, wire.ID{}, false},
		{"2001:db8::1", "2001:db8::ffff:1", wire.ID{}, wire.ID{}, true},
		{"2001:db8::1", "2001:db8:0:1::1", wire.ID{}, wire.ID{}, false},
		{"fe80::1%a", "fe80::1%b", wire.ID{}, wire.ID{}, true},
		{"198.41.0.4", "198.41.0.5", relay, relay, true},
		{"198.41.0.4", "198.41.0.4", relay, wire.ID{}, false},
	} {
		a := newAdmission()
		first := a.bucket(test.x, netip.MustParseAddr(test.a))
		if shared := first == a.bucket(test.y, netip.MustParseAddr(test.b)); shared != test.shared {
			t.Errorf("%s %v and %s %v share a bucket: %v, want %v", test.a, test.x, test.b, test.y, shared, test.shared)
		}
	}
}

// TestFullTable checks that the table of addresses has its bound, and that nobody is kept out by it.
func TestFullTable(t *testing.T) {
	a := newAdmission()
	for i := range maxLimiters + 10 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if !a.bucket(wire.ID{}, addr).Allow() {
			t.Fatalf("address %d is kept out", i)
		}
	}
	if n := len(a.clients); n > maxLimiters {
		t.Errorf("%d addresses are remembered, more than %d", n, maxLimiters)
	}
}

// TestFailedCost checks what a circuit that the next hop resets costs, besides itself: it does not fill
// again before its time.
func TestFailedCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newAdmission().bucket(wire.ID{}, netip.MustParseAddr("198.41.0.4"))
		chargeFailed(b)
		if left := b.Tokens(); left != clientBurst-failedCost {
			t.Errorf("%v tokens are left of %d", left, clientBurst)
		}
	})
}

// TestSeats checks that a client has its bound of circuits, that others are not concerned, and that a circuit
// that has ended makes room.
func TestSeats(t *testing.T) {
	a := newAdmission()
	one, other := clientPrefix(netip.MustParseAddr("198.41.0.4")), clientPrefix(netip.MustParseAddr("198.41.0.5"))
	for range clientCircuits {
		if !a.enter(one) {
			t.Fatal("no seat below the bound")
		}
	}
	if a.enter(one) {
		t.Error("a seat above the bound")
	}
	if !a.enter(other) {
		t.Error("no seat for another client")
	}
	a.leave(one)
	if !a.enter(one) {
		t.Error("no seat after one was given back")
	}
	for range clientCircuits {
		a.leave(one)
	}
	a.leave(other)
	if len(a.seats) != 0 {
		t.Errorf("%d clients without circuits are remembered", len(a.seats))
	}
}
