package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"torproxy/wire"
)

func TestConfig(t *testing.T) {
	conn := loopback(t, 1).conns[0]
	serve := func(context.Context, *Stream) {}
	for name, c := range map[string]Config{
		"no socket":            {},
		"half an identity":     {Conn: conn, Identity: testKey(1)[:32]},
		"circuits at a client": {Conn: conn, Circuit: serve},
		"requests at a client": {Conn: conn, Directory: func(context.Context, *quic.Conn) {}},
	} {
		if _, err := NewNode(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	n, err := NewNode(Config{Conn: conn, Identity: testKey(1)})
	if err != nil || n.ID() != testID(1) {
		t.Error(err, n.ID())
	}
}

// TestProtocols: circuits and directory requests are told apart, and what a node does not serve it refuses.
func TestProtocols(t *testing.T) {
	overBoth(t, 4, func(nw *network) {
		served := make(chan string, 2)
		directory := func(_ context.Context, conn *quic.Conn) {
			served <- conn.ConnectionState().TLS.NegotiatedProtocol
			<-conn.Context().Done()
		}
		nw.relay(0, func(c *Config) { c.Directory = directory })
		nw.relay(1, func(c *Config) { c.Circuit, c.Directory = nil, directory })
		nw.relay(2, nil)
		client := nw.client(3)
		for i, want := range []struct{ circuits, directory bool }{{true, true}, {false, true}, {true, false}} {
			id := testID(byte(i))
			l, err := client.Link(nw.Context(), id, nw.addrs(i))
			if want.circuits != (err == nil) {
				nw.Errorf("node %d: Link: %v", i, err)
			}
			if err == nil {
				nw.ping(nw.open(l))
			}
			conn, err := client.DialDirectory(nw.Context(), id, nw.addrs(i))
			if want.directory != (err == nil) {
				nw.Errorf("node %d: DialDirectory: %v", i, err)
			}
			if err == nil {
				if p := <-served; p != h3 {
					nw.Errorf("directory handler got %q", p)
				}
				conn.CloseWithError(0, "")
			}
		}
	})
}

// TestServesNothing: an identity without handlers dials like a relay and accepts nothing.
func TestServesNothing(t *testing.T) {
	inBubble(t, 3, func(nw *network) {
		peer := make(chan wire.ID, 1)
		nw.relay(0, func(c *Config) {
			c.Circuit = func(ctx context.Context, s *Stream) {
				peer <- s.Link().Peer()
				echo(ctx, s)
			}
		})
		mute := nw.relay(1, func(c *Config) { c.Circuit = nil })
		nw.ping(nw.open(nw.link(mute, 0)))
		if id := <-peer; id != testID(1) {
			nw.Errorf("counts as %v", id)
		}
		ctx, cancel := context.WithTimeout(nw.Context(), time.Minute)
		defer cancel()
		if _, err := nw.client(2).Link(ctx, testID(1), nw.addrs(1)); err == nil {
			nw.Error("a node that serves nothing accepted a link")
		}
	})
}

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

// crash ends a node without a word to its peers.
func crash(n *testNode) {
	n.transport.Close()
	n.stop()
}

// TestRestartIsNoticed: the peers of a relay that crashed and came back learn it with the first packet.
func TestRestartIsNoticed(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		relay := nw.relay(0, nil)
		l := nw.link(nw.client(1), 0)
		s := nw.open(l)
		nw.ping(s)
		crash(relay)
		nw.relay(0, nil)
		began := time.Now()
		s.Write(make([]byte, wire.CellSize))
		<-l.Done()
		if took := time.Since(began); took > time.Second {
			nw.Errorf("noticed after %v", took)
		}
		if _, err := l.Open(nw.Context()); err == nil {
			nw.Error("opened a circuit on a dead link")
		}
		nw.ping(nw.open(nw.link(&testNode{Node: l.node}, 0)))
	})
}

// TestEmptyLink is closed after 3 minutes without a circuit, or a little later if somebody asks for it.
func TestEmptyLink(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		relay, client := nw.relay(0, nil), nw.client(1)
		l := nw.link(client, 0)
		var emptied time.Time
		closesAt := func(want time.Duration) {
			nw.Helper()
			<-l.Done()
			if took := time.Since(emptied); took != want {
				nw.Errorf("closed after %v, want %v", took, want)
			}
		}
		emptied = time.Now()
		closesAt(3 * time.Minute)

		l = nw.link(client, 0)
		s := nw.open(l)
		nw.ping(s)
		<-time.After(time.Hour)
		nw.ping(s)
		s.Reset(wire.ResetDestroyed)
		s.Reset(wire.ResetDestroyed) // counts once
		emptied = time.Now()
		closesAt(3 * time.Minute)

		l = nw.link(client, 0)
		emptied = time.Now()
		for _, at := range []time.Duration{time.Minute, 3*time.Minute - time.Second} {
			<-time.After(time.Until(emptied.Add(at)))
			if nw.link(client, 0) != l {
				nw.Error("dialled again")
			}
		}
		closesAt(3*time.Minute - time.Second + openLease)
		<-time.After(time.Second)
		for _, n := range []*testNode{relay, client} {
			n.mu.Lock()
			if len(n.conns) != 0 || len(n.peers) != 0 {
				nw.Errorf("%d connections and %d peers are remembered", len(n.conns), len(n.peers))
			}
			n.mu.Unlock()
		}
	})
}

// TestEmptyLinkOfSilentClient: a dialler that never opens a circuit does not keep its link for ever either.
func TestEmptyLinkOfSilentClient(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		nw.relay(0, nil)
		tr := nw.raw(1)
		conn, err := tr.Dial(nw.Context(), nw.conns[0].LocalAddr(), dialTLS(nil, testID(0), wire.ALPN), quicConfig(-1, -1))
		if err != nil {
			nw.Fatal(err)
		}
		began := time.Now()
		<-conn.Context().Done()
		if took := time.Since(began); took < emptyLifetime+emptyGrace || took > emptyLifetime+emptyGrace+time.Second {
			nw.Errorf("closed after %v", took)
		}
		var end *quic.ApplicationError
		if err := context.Cause(conn.Context()); !errors.As(err, &end) || !end.Remote || end.ErrorMessage != "" {
			nw.Errorf("closed with %v", err)
		}
	})
}

// TestRunEnds everything: circuits that are read and written, dials, directory connections, handlers.
func TestRunEnds(t *testing.T) {
	overBoth(t, 4, func(nw *network) {
		var handlers atomic.Int64
		began := make(chan struct{}, 8)
		relay := nw.relay(0, func(c *Config) {
			c.Circuit = func(_ context.Context, s *Stream) {
				handlers.Add(1)
				defer handlers.Add(-1)
				began <- struct{}{}
				var one [1]byte
				io.ReadFull(s, one[:])
				if one[0] == 'w' { // write until nobody takes any more
					for err := error(nil); err == nil; {
						_, err = s.Write(make([]byte, 32<<10))
					}
					return
				}
				io.ReadFull(s, make([]byte, 1<<20))
			}
			c.Directory = func(ctx context.Context, conn *quic.Conn) {
				handlers.Add(1)
				defer handlers.Add(-1)
				began <- struct{}{}
				<-conn.Context().Done()
			}
		})
		client := nw.client(1)
		l := nw.link(client, 0)
		reading, writing := nw.open(l), nw.open(l)
		reading.Write([]byte("r"))
		writing.Write([]byte("w"))
		directory, err := client.DialDirectory(nw.Context(), testID(0), nw.addrs(0))
		if err != nil {
			nw.Fatal(err)
		}
		for range 3 {
			<-began
		}
		dialled := make(chan error, 2)
		const silent = 3
		go func() {
			_, err := relay.Link(context.Background(), testID(silent), nw.addrs(silent))
			dialled <- err
		}()
		go func() {
			_, err := relay.DialDirectory(context.Background(), testID(silent), nw.addrs(silent))
			dialled <- err
		}()
		relay.stop()
		if relay.ran != nil {
			nw.Errorf("Run returned %v", relay.ran)
		}
		for range 2 {
			if err := <-dialled; !errors.Is(err, ErrClosed) {
				nw.Errorf("dial ended with %v", err)
			}
		}
		if n := handlers.Load(); n != 0 {
			nw.Errorf("%d handlers outlive Run", n)
		}
		<-l.Done()
		<-directory.Context().Done()
		if _, err := reading.Read(make([]byte, 1)); err == nil {
			nw.Error("circuit outlives its relay")
		}
		if _, err := relay.Link(nw.Context(), testID(2), nw.addrs(2)); err != ErrClosed {
			nw.Error(err)
		}
		if _, err := relay.DialDirectory(nw.Context(), testID(2), nw.addrs(2)); !errors.Is(err, ErrClosed) {
			nw.Error(err)
		}
	})
}

// TestRunFails when the socket does, and says why.
func TestRunFails(t *testing.T) {
	nw := loopback(t, 1)
	relay := nw.relay(0, nil)
	nw.conns[0].Close()
	n, err := NewNode(Config{Conn: nw.conns[0], Identity: testKey(0), Circuit: echo})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	relay.stop()
}

// TestManyCircuits opens more circuits on one link than QUIC allows by default.
func TestManyCircuits(t *testing.T) {
	overBoth(t, 2, func(nw *network) {
		nw.relay(0, nil)
		l := nw.link(nw.client(1), 0)
		for range 300 {
			nw.ping(nw.open(l))
		}
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
