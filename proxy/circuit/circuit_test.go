package circuit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// bed is a client and one relay that does with circuits what a test wants, in virtual time.
type bed struct {
	t      *testing.T
	client *link.Node
	ring   *onion.Keyring
	relay  *netdoc.Relay
}

// onBed runs f in a bubble; serve is called with each circuit at the relay, which is the only hop.
func onBed(t *testing.T, serve func(b *bed, s *link.Stream), f func(ctx context.Context, b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sim := &simnet.Simnet{Router: &simnet.PerfectRouter{}}
		socket := func(host byte) (net.PacketConn, netip.AddrPort) {
			addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), 9001)
			return sim.NewEndpoint(net.UDPAddrFromAddrPort(addr), simnet.NodeBiDiLinkSettings{Latency: 10 * time.Millisecond}), addr
		}
		clientConn, _ := socket(1)
		relayConn, addr := socket(2)
		_, identity, _ := ed25519.GenerateKey(nil)
		key, err := onion.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		b := &bed{t: t}
		b.relay = &netdoc.Relay{
			ID: wire.PublicID(identity), Nickname: "anna", Addresses: []netip.AddrPort{addr},
			Key: netdoc.KeyRef{Digest: key.Digest()},
		}
		if err := b.relay.Attach(key.Public()); err != nil {
			t.Fatal(err)
		}
		b.ring = onion.NewKeyring(b.relay.ID, key, 100)
		relay, err := link.NewNode(link.Config{Conn: relayConn, Identity: identity, Circuit: func(_ context.Context, s *link.Stream) { serve(b, s) }})
		if err != nil {
			t.Fatal(err)
		}
		if b.client, err = link.NewNode(link.Config{Conn: clientConn}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { relay.Run(ctx) })
		running.Go(func() { b.client.Run(ctx) })
		sim.Start()
		defer func() {
			cancel()
			running.Wait()
			<-time.After(time.Minute) // what QUIC still has to say is said
			clientConn.Close()
			relayConn.Close()
			sim.Close()
		}()
		f(ctx, b)
	})
}

// answer reads CREATE and answers it with a status.
func (b *bed) answer(s *link.Stream, status wire.Status) *onion.HopKeys {
	packet := make([]byte, wire.CreateSize)
	if _, err := io.ReadFull(s, packet); err != nil {
		b.t.Error(err)
		return nil
	}
	peeled, err := b.ring.Peel(packet, time.Now())
	if err != nil {
		b.t.Error(err)
		return nil
	}
	created, keys, err := peeled.Answer(status, nil)
	if err != nil {
		b.t.Error(err)
		return nil
	}
	s.Write(created)
	return keys
}

// serveEcho is an exit that sends back what it gets, except to targets that it does not know.
func serveEcho(b *bed, s *link.Stream) {
	keys := b.answer(s, wire.StatusReady)
	if keys == nil {
		return
	}
	session := mux.NewSession(mux.Config{Accept: func(st *mux.Stream) {
		go func() {
			defer st.Close()
			switch st.Target() {
			case "echo.test:7":
				st.Connect()
				io.Copy(st, st)
			case "crash.test:7":
				st.Connect()
				io.WriteString(st, "half")
				<-time.After(time.Second)
				s.Reset(wire.ResetDestroyed)
			default:
				st.End(wire.ReasonDNS)
			}
		}()
	}})
	session.Run(s, exitCodec{onion.NewLayer(&keys.Forward, wire.CellSize), onion.NewLayer(&keys.Backward, wire.CellSize)})
}

type exitCodec struct{ outward, inward *onion.Layer }

func (c exitCodec) Open(cell []byte) bool { return c.outward.Recognise(cell) }
func (c exitCodec) Seal(cell []byte)      { c.inward.Originate(cell) }

// awaitReset keeps a stream until the client resets it.
func awaitReset(s *link.Stream) { io.Copy(io.Discard, s) }

func (b *bed) route() []*netdoc.Relay { return []*netdoc.Relay{b.relay} }

// TestBuildErrors lets the relay answer CREATE in every wrong way, and checks the error that says so and
// that the stream is not left open.
func TestBuildErrors(t *testing.T) {
	for name, test := range map[string]struct {
		serve     func(b *bed, s *link.Stream)
		text      string
		violation bool
		status    wire.Status // that the hop itself said; 0: none
	}{
		"garbage": {func(_ *bed, s *link.Stream) {
			s.Write(bytes.Repeat([]byte{7}, wire.CreatedSize))
		}, "circuit: hop 1 (anna): protocol violation", true, 0},
		"cut short": {func(_ *bed, s *link.Stream) {
			s.Write(make([]byte, wire.CreatedSize-1))
			s.Reset(wire.ResetDestroyed)
		}, "circuit: hop 1 (anna): ", false, 0},
		"reset": {func(_ *bed, s *link.Stream) { s.Reset(wire.ResetOverloaded) }, "circuit: hop 1 (anna): ", false, 0},
		"overloaded": {func(b *bed, s *link.Stream) {
			b.answer(s, wire.StatusOverloaded)
		}, "circuit: hop 1 (anna): hop 1: overloaded", false, wire.StatusOverloaded},
		"silent": {func(*bed, *link.Stream) {}, "circuit: hop 1 (anna): context deadline exceeded", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var ended atomic.Int64
			serve := func(b *bed, s *link.Stream) {
				test.serve(b, s)
				awaitReset(s)
				ended.Add(1)
			}
			onBed(t, serve, func(ctx context.Context, b *bed) {
				ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				c, err := Build(ctx, b.client, b.route())
				var failed *BuildError
				if c != nil || !errors.As(err, &failed) || failed.Hop != 1 {
					t.Fatalf("got %v, %v", c, err)
				}
				if !strings.HasPrefix(err.Error(), test.text) {
					t.Errorf("%q, want %q", err, test.text)
				}
				if errors.Is(err, wire.ErrViolation) != test.violation {
					t.Errorf("%v: a violation: %v, want %v", err, !test.violation, test.violation)
				}
				var said *onion.HopError
				if errors.As(err, &said) != (test.status != 0) || said != nil && said.Status != test.status {
					t.Errorf("%v: want status %v", err, test.status)
				}
				<-time.After(time.Second)
				if ended.Load() != 1 {
					t.Error("the stream was left open")
				}
			})
		})
	}
}

// TestNoLink checks what a first hop that is not where it says, or is somebody else, is called.
func TestNoLink(t *testing.T) {
	onBed(t, serveEcho, func(ctx context.Context, b *bed) {
		away, other := *b.relay, *b.relay
		away.Addresses = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.77:9001")}
		_, stranger, _ := ed25519.GenerateKey(nil)
		other.ID = wire.PublicID(stranger)
		for _, r := range []*netdoc.Relay{&away, &other} {
			_, err := Build(ctx, b.client, []*netdoc.Relay{r})
			var failed *BuildError
			if !errors.As(err, &failed) || failed.Hop != 0 || !strings.HasPrefix(err.Error(), "circuit: first hop anna: link: ") {
				t.Errorf("got %v", err)
			}
		}
		if _, err := Build(ctx, b.client, nil); err == nil {
			t.Error("a circuit of no hops was built")
		}
		if _, err := Build(ctx, b.client, []*netdoc.Relay{b.relay, b.relay}); err == nil {
			t.Error("a circuit through one relay twice was built")
		}
	})
}

// TestHopNamed checks that the error names the hop that reported, not the first.
func TestHopNamed(t *testing.T) {
	route := []*netdoc.Relay{{Nickname: "anna"}, {Nickname: "berta"}, {Nickname: "cora"}}
	err := buildError(route, &onion.HopError{Hop: 1, Status: wire.StatusNextReset})
	if want := "circuit: hop 2 (berta): hop 2: next relay reset the circuit"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

// run builds a circuit and runs it until the test ends or stop is called, which returns what Run did.
func (b *bed) run(ctx context.Context) (c *Circuit, stop func() error) {
	b.t.Helper()
	c, err := Build(ctx, b.client, b.route())
	if err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return c, func() error {
		c.Close()
		return <-ended
	}
}

// TestStream sends bytes to and fro, and checks what Conn says at each end.
func TestStream(t *testing.T) {
	onBed(t, serveEcho, func(ctx context.Context, b *bed) {
		c, stop := b.run(ctx)
		conn, err := c.Open(ctx, Request{Target: "echo.test:7"})
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		conn.OnClose(func() { order = append(order, "closed") }, func() { order = append(order, "ended") })
		sent := bytes.Repeat([]byte("there and back "), 10000)
		go func() {
			conn.Write(sent)
			conn.CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes of %d came back, %v", len(got), len(sent), err)
		}
		if in, out := c.Bytes(); in != int64(len(sent)) || out != int64(len(sent)) {
			t.Errorf("%d bytes in, %d out, want %d each", in, out, len(sent))
		}
		conn.Close()
		conn.Close()
		<-time.After(time.Second)
		if strings.Join(order, " ") != "closed ended" {
			t.Errorf("was told %v", order)
		}
		if n := c.Streams(); n != 0 {
			t.Errorf("%d streams are open", n)
		}
		if err := stop(); !errors.Is(err, ErrClosed) {
			t.Errorf("Run: %v", err)
		}
		<-c.Done()
	})
}

// TestStreamErrors checks what an application is told when the exit says no, when a deadline passes, and
// when the circuit breaks: never io.EOF.
func TestStreamErrors(t *testing.T) {
	onBed(t, serveEcho, func(ctx context.Context, b *bed) {
		c, stop := b.run(ctx)
		var end *wire.EndError
		if _, err := c.Open(ctx, Request{Target: "nowhere.test:7"}); !errors.As(err, &end) || end.Reason != wire.ReasonDNS || !end.Remote {
			t.Errorf("open: %v", err)
		}
		conn, err := c.Open(ctx, Request{Target: "echo.test:7"})
		if err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read after the deadline: %v", err)
		}
		conn.SetReadDeadline(time.Time{})
		crash, err := c.Open(ctx, Request{Target: "crash.test:7"})
		if err != nil {
			t.Fatal(err)
		}
		for what, r := range map[string]io.Reader{"its own": crash, "another": conn} {
			if _, err := io.ReadAll(r); !errors.Is(err, ErrClosed) {
				t.Errorf("read from %s stream of a broken circuit: %v", what, err)
			}
		}
		if _, err := conn.Write([]byte("x")); !errors.Is(err, ErrClosed) {
			t.Errorf("write to a broken circuit: %v", err)
		}
		if _, err := c.Open(ctx, Request{Target: "echo.test:7"}); !errors.Is(err, ErrClosed) {
			t.Errorf("open on a broken circuit: %v", err)
		}
		stop()
	})
}

// TestForgedCell lets the relay send a cell that the exit's key did not make: the circuit is destroyed, and
// Run says that the protocol was broken.
func TestForgedCell(t *testing.T) {
	onBed(t, func(b *bed, s *link.Stream) {
		b.answer(s, wire.StatusReady)
		s.Write(make([]byte, wire.CellSize))
		awaitReset(s)
	}, func(ctx context.Context, b *bed) {
		c, stop := b.run(ctx)
		<-c.Done()
		if err := stop(); !errors.Is(err, wire.ErrViolation) {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestCloseBeforeRun checks that a circuit that is closed before it runs ends when it does.
func TestCloseBeforeRun(t *testing.T) {
	var ended atomic.Int64
	onBed(t, func(b *bed, s *link.Stream) {
		b.answer(s, wire.StatusReady)
		awaitReset(s)
		ended.Add(1)
	}, func(ctx context.Context, b *bed) {
		c, err := Build(ctx, b.client, b.route())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := c.Run(ctx); !errors.Is(err, ErrClosed) {
			t.Errorf("Run: %v", err)
		}
		<-time.After(time.Second)
		if ended.Load() != 1 {
			t.Error("the stream was left open")
		}
	})
}
