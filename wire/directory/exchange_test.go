package directory

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
)

// server is a node that serves directory requests over a real socket.
type server struct {
	Peer
	conns atomic.Int32 // accepted so far
	stop  func()       // may be called again
}

func listenUDP(t testing.TB, addr string) net.PacketConn {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// startServer runs a directory server on conn until the test ends or stop is called.
func startServer(t testing.TB, conn net.PacketConn, key ed25519.PrivateKey, h http.Handler) *server {
	t.Helper()
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	s := &server{Peer: Peer{ID: wire.PublicID(key), Addresses: []netip.AddrPort{addr}}}
	s.stop = startNode(t, link.Config{Conn: conn, Identity: key, Directory: func(ctx context.Context, c *quic.Conn) {
		s.conns.Add(1)
		Serve(ctx, c, h)
	}}, nil)
	return s
}

// startNode runs a node and, at the end, closes its socket. It hands the node to use.
func startNode(t testing.TB, cfg link.Config, use func(*link.Node)) (stop func()) {
	t.Helper()
	node, err := link.NewNode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if use != nil {
		use(node)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("node: %v", err)
		}
		cfg.Conn.Close()
	})
	t.Cleanup(stop)
	return stop
}

// startClient returns a Client on a node of its own.
func startClient(t testing.TB, conn net.PacketConn) *Client {
	t.Helper()
	var c *Client
	startNode(t, link.Config{Conn: conn}, func(n *link.Node) { c = NewClient(n) })
	t.Cleanup(c.Close)
	return c
}

// loopback returns a server on loopback UDP and a client.
func loopback(t *testing.T, h http.Handler) (*server, *Client) {
	t.Helper()
	return startServer(t, listenUDP(t, "127.0.0.1:0"), testKey(0), h), startClient(t, listenUDP(t, "127.0.0.1:0"))
}

func TestFetchConsensus(t *testing.T) {
	n := testNetwork(4, time.Hour)
	raw := consensusOf(t, n, time.Now().Truncate(time.Hour), 1, 2, 3)
	var held atomic.Pointer[netdoc.Consensus]
	s, c := loopback(t, ConsensusHandler(held.Load))

	_, _, err := c.Fetch(t.Context(), s.Peer, ConsensusPath, "", netdoc.MaxConsensus)
	if status, ok := errors.AsType[*StatusError](err); !ok || status.Code != 503 || status.Message != "no consensus yet" {
		t.Errorf("before there is one: %v", err)
	}
	consensus := parse(t, n, raw)
	held.Store(consensus)
	body, tag, err := c.Fetch(t.Context(), s.Peer, ConsensusPath, "", netdoc.MaxConsensus)
	if err != nil || !bytes.Equal(body, raw) {
		t.Fatalf("%d bytes of %d: %v", len(body), len(raw), err)
	}
	if want := `"` + consensus.Digest().String() + `"`; tag != want {
		t.Errorf("ETag %s, want %s", tag, want)
	}
	if _, _, err := c.Fetch(t.Context(), s.Peer, ConsensusPath, tag, netdoc.MaxConsensus); !errors.Is(err, ErrNotModified) {
		t.Errorf("the same again: %v", err)
	}
	if body, _, err := c.Fetch(t.Context(), s.Peer, ConsensusPath, `"other"`, netdoc.MaxConsensus); err != nil || len(body) == 0 {
		t.Errorf("another ETag: %v", err)
	}
	size := int64(len(raw))
	if _, _, err := c.Fetch(t.Context(), s.Peer, ConsensusPath, "", size); err != nil {
		t.Errorf("a document just at the limit: %v", err)
	}
	if _, _, err := c.Fetch(t.Context(), s.Peer, ConsensusPath, "", size-1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a document above the limit: %v", err)
	}
	_, err = c.Post(t.Context(), s.Peer, ConsensusPath, nil, 10)
	if status, ok := errors.AsType[*StatusError](err); !ok || status.Code != 405 {
		t.Errorf("POST of a consensus: %v", err)
	}
	if got := s.conns.Load(); got != 1 {
		t.Errorf("%d connections for seven requests", got)
	}
}

func TestRegistrationOverTheWire(t *testing.T) {
	var from atomic.Value
	h := RegistrationHandler(func(_ context.Context, descriptor []byte, addr netip.AddrPort) Registration {
		from.Store(addr)
		switch {
		case len(descriptor) == netdoc.MaxDescriptor:
			return Registration{Result: Added}
		default:
			return Registration{Result: Refused, Reason: "not a descriptor\nsecond line"}
		}
	})
	s, c := loopback(t, h)
	post := func(size int) (Registration, error) {
		answer, err := c.Post(t.Context(), s.Peer, DescriptorPath, make([]byte, size), maxRegistration)
		if err != nil {
			return Registration{}, err
		}
		return parseRegistration(answer)
	}
	if r, err := post(netdoc.MaxDescriptor); err != nil || r.Result != Added {
		t.Errorf("the longest descriptor: %v, %v", r, err)
	}
	if addr, _ := from.Load().(netip.AddrPort); addr.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("came from %v", addr)
	}
	if r, err := post(10); err != nil || r != (Registration{Result: Refused, Reason: "not a descriptor"}) {
		t.Errorf("garbage: %v, %v", r, err)
	}
	_, err := post(netdoc.MaxDescriptor + 1)
	if status, ok := errors.AsType[*StatusError](err); !ok || status.Code != http.StatusRequestEntityTooLarge || status.Message != "document too large" {
		t.Errorf("one byte too many: %v", err)
	}
	_, _, err = c.Fetch(t.Context(), s.Peer, DescriptorPath, "", 10)
	if status, ok := errors.AsType[*StatusError](err); !ok || status.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v", err)
	}
}

func TestBodyLimits(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ReadBody(w, r) })
	s, c := loopback(t, h)
	for path, limit := range map[string]int{
		VotePath: netdoc.MaxVote, EchoPath: netdoc.MaxEcho, SignaturePath: netdoc.MaxEndorsement, "/elsewhere": 0,
	} {
		if _, err := c.Post(t.Context(), s.Peer, path, make([]byte, limit), 10); err != nil {
			t.Errorf("%s: %d bytes: %v", path, limit, err)
		}
		_, err := c.Post(t.Context(), s.Peer, path, make([]byte, limit+1), 1000)
		if status, ok := errors.AsType[*StatusError](err); !ok || status.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d bytes: %v", path, limit+1, err)
		}
	}
}

func TestServerReasonIsOneCleanLine(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "\x1b[31mred\ttext\xff\nsecond line"+strings.Repeat("x", 5000), http.StatusTeapot)
	})
	s, c := loopback(t, h)
	_, _, err := c.Fetch(t.Context(), s.Peer, "/", "", 10)
	if status, ok := errors.AsType[*StatusError](err); !ok || status.Code != 418 || status.Message != "?[31mred?text?" {
		t.Errorf("%v", err)
	}
}

func TestHeaderLimit(t *testing.T) {
	s, c := loopback(t, http.NotFoundHandler())
	_, _, err := c.Fetch(t.Context(), s.Peer, "/", strings.Repeat("x", 2*maxHeader), 10)
	if status, ok := errors.AsType[*StatusError](err); !ok || status.Code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v", err)
	}
}

func TestOnlyTheRightIdentityIsAsked(t *testing.T) {
	s, c := loopback(t, http.NotFoundHandler())
	impostor := Peer{ID: wire.PublicID(testKey(1)), Addresses: s.Addresses}
	if _, _, err := c.Fetch(t.Context(), impostor, "/", "", 10); !errors.Is(err, link.ErrIdentity) {
		t.Errorf("%v", err)
	}
	if got := s.conns.Load(); got != 0 {
		t.Errorf("%d connections reached the wrong server", got)
	}
}

func TestRequestsShareOneConnection(t *testing.T) {
	s, c := loopback(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(r.URL.Path)) }))
	var all sync.WaitGroup
	for i := range 3 * servedAtOnce {
		all.Go(func() {
			path := "/" + strings.Repeat("x", i)
			if body, _, err := c.Fetch(t.Context(), s.Peer, path, "", 1000); err != nil || string(body) != path {
				t.Errorf("answer %q to %q: %v", body, path, err)
			}
		})
	}
	all.Wait()
	if got := s.conns.Load(); got != 1 {
		t.Errorf("%d connections", got)
	}
}

func TestClientFindsARestartedServer(t *testing.T) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello")) })
	s, c := loopback(t, hello)
	for range 3 {
		if body, _, err := c.Fetch(t.Context(), s.Peer, "/", "", 10); err != nil || string(body) != "hello" {
			t.Fatalf("answer %q: %v", body, err)
		}
		s.stop()
		s = startServer(t, listenUDP(t, s.Addresses[0].String()), testKey(0), hello)
	}
}

func TestRequestEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{})
	release := make(chan struct{})
	s, c := loopback(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			close(asked)
			<-r.Context().Done()
			close(release)
			return
		}
		w.Write([]byte("hello"))
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, _, err := c.Fetch(ctx, s.Peer, "/silent", "", 10); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-release // the handler is told
	if _, _, err := c.Fetch(t.Context(), s.Peer, "/", "", 10); err != nil {
		t.Errorf("the next request: %v", err)
	}
	if got := s.conns.Load(); got != 1 {
		t.Errorf("%d connections: a request that was called off speaks against none", got)
	}
}

func TestClosedClient(t *testing.T) {
	arrived := make(chan struct{})
	s, c := loopback(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	}))
	ended := make(chan error)
	go func() {
		_, _, err := c.Fetch(context.Background(), s.Peer, "/", "", 10)
		ended <- err
	}()
	<-arrived
	c.Close()
	if err := <-ended; err == nil {
		t.Error("a request outlives its client")
	}
	if _, err := c.Post(t.Context(), s.Peer, "/", nil, 10); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	c.Close()
}

// One authority, a relay that publishes and mirrors, and a client, over loopback UDP.
func TestNetworkOverLoopback(t *testing.T) {
	n := testNetwork(1, time.Hour)
	raw := consensusOf(t, n, time.Now().Truncate(time.Hour), 1, 2)
	registered := make(chan string, 1)
	mux := http.NewServeMux()
	mux.Handle(ConsensusPath, ConsensusHandler(func() *netdoc.Consensus { return parse(t, n, raw) }))
	mux.Handle(DescriptorPath, RegistrationHandler(func(_ context.Context, d []byte, _ netip.AddrPort) Registration {
		registered <- string(d)
		return Registration{Result: Added}
	}))
	authority, relay := loopback(t, mux)
	n.Authorities[0].Addresses = authority.Addresses

	f := NewFollower(FollowerConfig{Network: n, Client: relay})
	p := NewPublisher(PublisherConfig{Network: n, Client: relay, Descriptor: func() ([]byte, error) { return []byte("me"), nil }})
	changed := f.Changed()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	running.Go(func() { p.Run(ctx) })
	<-changed
	if got := <-registered; got != "me" {
		t.Errorf("registered %q", got)
	}
	mirror, client := startServer(t, listenUDP(t, "127.0.0.1:0"), testKey(101), ConsensusHandler(f.Current)), startClient(t, listenUDP(t, "127.0.0.1:0"))
	body, _, err := client.Fetch(t.Context(), mirror.Peer, ConsensusPath, "", netdoc.MaxConsensus)
	if err != nil || !bytes.Equal(body, raw) {
		t.Errorf("from the mirror: %d bytes, %v", len(body), err)
	}
	cancel()
	running.Wait()
	if got := authority.conns.Load(); got != 1 {
		t.Errorf("follower and publisher used %d connections", got)
	}
}
