package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"torproxy/wire"
)

// TestSharedDial: callers for the same relay share one dial, and later ones its link.
func TestSharedDial(t *testing.T) {
	overBoth(t, 2, func(nw *network) {
		relay := nw.relay(0, nil)
		client := nw.client(1)
		var wg sync.WaitGroup
		var links sync.Map
		for range 20 {
			wg.Go(func() {
				l, err := client.Link(nw.Context(), testID(0), nw.addrs(0))
				if err != nil {
					nw.Error(err)
					return
				}
				links.Store(l, true)
			})
		}
		wg.Wait()
		links.Store(nw.link(client, 0), true)
		count := 0
		links.Range(func(l, _ any) bool { count++; nw.ping(nw.open(l.(*Link))); return true })
		relay.mu.Lock()
		defer relay.mu.Unlock()
		if count != 1 || len(relay.conns) != 1 {
			nw.Errorf("%d links, %d connections", count, len(relay.conns))
		}
	})
}

// TestDeadRelay: a dial gives up after 5 s, its callers' contexts bound only their wait, and the failure is
// remembered for 10 s.
func TestDeadRelay(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		client := nw.client(1)
		began := time.Now()
		dial := func(timeout, took time.Duration) error {
			nw.Helper()
			ctx, cancel := context.WithTimeout(nw.Context(), timeout)
			defer cancel()
			before := time.Now()
			l, err := client.Link(ctx, testID(0), nw.addrs(0))
			if l != nil || time.Since(before) != took {
				nw.Fatalf("%v after %v, want a failure after %v", err, time.Since(before), took)
			}
			return err
		}
		if err := dial(time.Second, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			nw.Error(err)
		}
		first := dial(time.Hour, 4*time.Second) // the rest of the same dial
		if again := dial(time.Hour, 0); again != first {
			nw.Errorf("%v, then %v", first, again)
		}
		<-time.After(time.Until(began.Add(15*time.Second - 1)))
		if again := dial(time.Hour, 0); again != first {
			nw.Errorf("%v, just before it is forgotten %v", first, again)
		}
		nw.relay(0, nil)
		<-time.After(1)
		nw.ping(nw.open(nw.link(client, 0)))
	})
}

// TestForget: a failed dial that is forgotten is repeated, and then remembered again.
func TestForget(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		client := nw.client(1)
		for range 2 {
			client.Forget(testID(0))
			before := time.Now()
			for range 2 {
				if _, err := client.Link(nw.Context(), testID(0), nw.addrs(0)); err == nil {
					nw.Fatal("a link to nobody")
				}
			}
			if took := time.Since(before); took != dialTimeout {
				nw.Errorf("two dials took %v, want one of %v", took, dialTimeout)
			}
		}
		nw.relay(0, nil)
		client.Forget(testID(0))
		nw.ping(nw.open(nw.link(client, 0)))
		client.Forget(testID(0)) // the link stays
		if l := nw.link(client, 0); l != nw.link(client, 0) {
			nw.Error("a live link was forgotten")
		}
	})
}

// TestAddresses are tried in order, in shares of the time.
func TestAddresses(t *testing.T) {
	inBubble(t, 4, func(nw *network) {
		nw.relay(0, nil)
		nw.relay(1, nil)
		client := nw.client(3)
		const silent = 2
		began := time.Now()
		l, err := client.Link(nw.Context(), testID(0), append(append(nw.addrs(1), nw.addrs(silent)...), nw.addrs(0)...))
		if err != nil {
			nw.Fatal(err)
		}
		const share, handshake = dialTimeout / 3, 2 * latency
		if took := time.Since(began); took < share || took > share+4*handshake {
			nw.Errorf("took %v", took)
		}
		nw.ping(nw.open(l))
		// Of several failures the one that says most is told.
		_, err = client.Link(nw.Context(), testID(55), append(nw.addrs(1), nw.addrs(silent)...))
		if !errors.Is(err, ErrIdentity) {
			nw.Error(err)
		}
		if _, err := client.Link(nw.Context(), testID(56), nil); err == nil {
			nw.Error("dialled without an address")
		}
	})
}

// TestSimultaneousDials converge on the link that the smaller ID dialled. The other carries its circuits to
// their end, and goes.
func TestSimultaneousDials(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		small, large := nw.relay(0, nil), nw.relay(1, nil)
		if string(small.id[:]) > string(large.id[:]) {
			small, large = large, small
		}
		var wg sync.WaitGroup
		streams := make([]*Stream, 2)
		for i := range streams {
			from := []*testNode{nw.nodeOf(small, large, i), nw.nodeOf(small, large, 1-i)}
			wg.Go(func() {
				l, err := from[0].Link(nw.Context(), from[1].id, nw.addrsOf(from[1]))
				if err != nil {
					nw.Error(err)
					return
				}
				streams[i] = nw.open(l)
				nw.ping(streams[i])
			})
		}
		wg.Wait()
		if nw.Failed() {
			return
		}
		a, b := nw.best(small, large), nw.best(large, small)
		if !a.dialled || b.dialled {
			nw.Fatalf("the smaller ID uses the link that it dialled: %v; the larger one too: %v", a.dialled, b.dialled)
		}
		nw.ping(nw.open(a))
		nw.ping(nw.open(b))
		<-time.After(10 * time.Minute)
		for _, s := range streams {
			nw.ping(s) // whatever link it began on
			s.Reset(wire.ResetDestroyed)
		}
		<-time.After(retiredLife + time.Second)
		for _, n := range []*testNode{small, large} {
			n.mu.Lock()
			if len(n.conns) != 1 {
				nw.Errorf("%d connections are left", len(n.conns))
			}
			n.mu.Unlock()
		}
		if nw.best(small, large) != a || nw.best(large, small) != b {
			nw.Error("the link changed again")
		}
	})
}

func (nw *network) nodeOf(a, b *testNode, i int) *testNode {
	if i == 0 {
		return a
	}
	return b
}

// best returns the link that a node uses for another.
func (nw *network) best(from, to *testNode) *Link {
	nw.Helper()
	l, err := from.Link(nw.Context(), to.id, nil)
	if err != nil {
		nw.Fatal(err)
	}
	return l
}

// TestRedialReplaces: a relay that dials again, having lost its end, gets its new link used.
func TestRedialReplaces(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		relay := nw.relay(0, nil)
		lost := nw.relay(1, nil)
		nw.ping(nw.open(nw.link(lost, 0)))
		before := nw.best(relay, lost)
		crash(lost)
		again := nw.relay(1, nil)
		nw.ping(nw.open(nw.link(again, 0)))
		after := nw.best(relay, again)
		if after == before {
			nw.Error("the dead link is still used")
		}
		nw.ping(nw.open(after))
	})
}

// addrsOf returns the addresses of a node by its identity.
func (nw *network) addrsOf(n *testNode) (addrs []netip.AddrPort) {
	for i := range nw.conns {
		if testID(byte(i)) == n.id {
			return nw.addrs(i)
		}
	}
	panic(fmt.Sprintf("no socket of %v", n.id))
}
