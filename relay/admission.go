package relay

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"torproxy/wire"
)

// admission holds the token buckets for new circuits, one per client address and one per relay that
// links to us. Safe for concurrent use.
type admission struct {
	mu      sync.Mutex
	clients map[netip.Prefix]*rate.Limiter
	relays  map[wire.ID]*rate.Limiter
	seats   map[netip.Prefix]int // circuits that stand, per client address
}

func newAdmission() *admission {
	return &admission{clients: map[netip.Prefix]*rate.Limiter{}, relays: map[wire.ID]*rate.Limiter{}, seats: map[netip.Prefix]int{}}
}

// bucket returns the bucket that circuits from this peer are charged to. A full table is thrown away
// whole: refilled buckets are the price, and no entry can be kept out by flooding.
func (a *admission) bucket(peer wire.ID, from netip.Addr) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !peer.IsZero() {
		return bucketIn(a.relays, peer, linkRate, linkBurst)
	}
	return bucketIn(a.clients, clientPrefix(from), clientRate, clientBurst)
}

// clientPrefix is what counts as one client: an IPv4 address, or an IPv6 /64.
func clientPrefix(from netip.Addr) netip.Prefix {
	from = from.WithZone("")
	bits := 32
	if from.Is6() {
		bits = 64
	}
	prefix, err := from.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// enter takes a seat for a circuit of a client; false: it has all that it may have. leave gives it back.
// Relays have no such bound: their circuits are those of many clients.
func (a *admission) enter(client netip.Prefix) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seats[client] >= clientCircuits {
		return false
	}
	a.seats[client]++
	return true
}

func (a *admission) leave(client netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seats[client]--; a.seats[client] == 0 {
		delete(a.seats, client)
	}
}

func bucketIn[K comparable](m map[K]*rate.Limiter, key K, perSecond rate.Limit, burst int) *rate.Limiter {
	b := m[key]
	if b == nil {
		if len(m) >= maxLimiters {
			clear(m)
		}
		b = rate.NewLimiter(perSecond, burst)
		m[key] = b
	}
	return b
}

// chargeFailed takes the price of a circuit that the next hop reset.
func chargeFailed(b *rate.Limiter) { b.ReserveN(time.Now(), failedCost) }
