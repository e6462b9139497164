package link

import (
	"context"
	"errors"
	"io"
	"net"
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

// readOrWrite blocks in Read or in Write, as the first byte says, until the stream ends.
func readOrWrite(s *Stream) {
	var one [1]byte
	io.ReadFull(s, one[:])
	if one[0] == 'r' {
		io.ReadFull(s, make([]byte, 1<<20))
		return
	}
	for err := error(nil); err == nil; {
		_, err = s.Write(make([]byte, 32<<10))
	}
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
				readOrWrite(s)
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

// TestRunWaits for handlers that take their time.
func TestRunWaits(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		relay := nw.relay(0, func(c *Config) {
			c.Circuit = func(ctx context.Context, s *Stream) {
				echo(ctx, s)
				<-ctx.Done()
				<-time.After(7 * time.Second)
			}
		})
		nw.ping(nw.open(nw.link(nw.client(1), 0)))
		began := time.Now()
		relay.stop()
		if took := time.Since(began); took != 7*time.Second {
			nw.Errorf("Run returned after %v", took)
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
