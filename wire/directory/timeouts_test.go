package directory

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/testutils/simnet"

	"torproxy/wire/link"
)

// simulated runs a test against a server and a client of a simulated network, in virtual time. A one-way
// trip takes 10 ms.
func simulated(t *testing.T, h http.Handler, test func(t *testing.T, s *server, n *link.Node, c *Client)) {
	synctest.Test(t, func(t *testing.T) {
		network := &simnet.Simnet{Router: &simnet.PerfectRouter{}}
		endpoint := func(host byte) net.PacketConn {
			addr := &net.UDPAddr{IP: net.IP{10, 0, 0, host}, Port: 9001} // of four bytes, as dials use them
			return network.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: 10 * time.Millisecond})
		}
		serverSocket, clientSocket := endpoint(1), endpoint(2)
		if err := network.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			<-time.After(time.Minute) // what closed connections still wait for
			network.Close()
		})
		s := startServer(t, serverSocket, testKey(0), h)
		var node *link.Node
		startNode(t, link.Config{Conn: clientSocket}, func(n *link.Node) { node = n })
		c := NewClient(node)
		t.Cleanup(c.Close)
		test(t, s, node, c)
	})
}

func hello(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }

// fetch makes a request and returns how long it took.
func fetch(t *testing.T, c *Client, s *server, path string) (time.Duration, error) {
	t.Helper()
	start := time.Now()
	_, _, err := c.Fetch(t.Context(), s.Peer, path, "", 100)
	return time.Since(start), err
}

func TestConnectionIsKeptForAWhile(t *testing.T) {
	simulated(t, http.HandlerFunc(hello), func(t *testing.T, s *server, _ *link.Node, c *Client) {
		for range 5 {
			if _, err := fetch(t, c, s, "/"); err != nil {
				t.Fatal(err)
			}
			<-time.After(idleLifetime - time.Second)
		}
		if got := s.conns.Load(); got != 1 {
			t.Errorf("%d connections with requests every %v", got, idleLifetime-time.Second)
		}
		if took, err := fetch(t, c, s, "/"); err != nil || took != 20*time.Millisecond {
			t.Errorf("a request on a warm connection took %v, want one round trip: %v", took, err)
		}
		<-time.After(idleLifetime + time.Second)
		if _, err := fetch(t, c, s, "/"); err != nil {
			t.Fatal(err)
		}
		if got := s.conns.Load(); got != 2 {
			t.Errorf("%d connections, want a second one after %v without a request", got, idleLifetime)
		}
	})
}

func TestRequestHasADeadline(t *testing.T) {
	silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	simulated(t, silent, func(t *testing.T, s *server, _ *link.Node, c *Client) {
		for range 2 {
			if took, err := fetch(t, c, s, "/"); !errors.Is(err, context.DeadlineExceeded) || took != requestTimeout {
				t.Errorf("gave up after %v: %v", took, err)
			}
		}
		if got := s.conns.Load(); got != 2 {
			t.Errorf("%d connections: one that kept silent is not trusted with the next request", got)
		}
	})
}

func TestServerThatIsGone(t *testing.T) {
	simulated(t, http.HandlerFunc(hello), func(t *testing.T, s *server, _ *link.Node, c *Client) {
		if _, err := fetch(t, c, s, "/"); err != nil {
			t.Fatal(err)
		}
		s.stop()
		took, err := fetch(t, c, s, "/")
		if err == nil || took > 6*time.Second {
			t.Errorf("gave up after %v: %v", took, err)
		}
	})
}

// dialRaw makes a connection on which a test misbehaves.
func dialRaw(t *testing.T, n *link.Node, s *server) *quic.Conn {
	t.Helper()
	conn, err := n.DialDirectory(t.Context(), s.ID, s.Addresses)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestServerClosesIdleConnections(t *testing.T) {
	simulated(t, http.HandlerFunc(hello), func(t *testing.T, s *server, n *link.Node, _ *Client) {
		conn := dialRaw(t, n, s)
		start := time.Now()
		<-conn.Context().Done()
		if took := time.Since(start); took < servedIdle || took > servedIdle+time.Second {
			t.Errorf("closed after %v, want %v", took, servedIdle)
		}
	})
}

// A request whose header never ends holds its place for a minute, and no longer; others are served meanwhile.
func TestServerEndsStalledRequests(t *testing.T) {
	simulated(t, http.HandlerFunc(hello), func(t *testing.T, s *server, n *link.Node, c *Client) {
		conn := dialRaw(t, n, s)
		stream, err := conn.OpenStreamSync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Write([]byte{0x01, 0x20}); err != nil { // HEADERS of 32 bytes, of which none comes
			t.Fatal(err)
		}
		if _, err := fetch(t, c, s, "/"); err != nil {
			t.Errorf("another client: %v", err)
		}
		start := time.Now()
		_, err = stream.Read(make([]byte, 1))
		if took := time.Since(start); err == nil || (took-serveTimeout).Abs() > time.Second {
			t.Errorf("ended after %v: %v", took, err)
		}
	})
}

// A connection may have so many requests open, of which a part runs; one with more of them is ended.
func TestServerEndsGreedyConnections(t *testing.T) {
	var running, most atomic.Int64
	silent := func(_ http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		<-r.Context().Done()
	}
	simulated(t, http.HandlerFunc(silent), func(t *testing.T, s *server, n *link.Node, _ *Client) {
		conn := dialRaw(t, n, s)
		get := func() {
			stream, err := conn.OpenStreamSync(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// HEADERS: GET https /, by indexes of QPACK's static table (RFC 9204), authority "a".
			if _, err := stream.Write([]byte{0x01, 0x08, 0, 0, 0xc0 | 17, 0xc0 | 23, 0xc0 | 1, 0x50, 0x01, 'a'}); err != nil {
				t.Fatal(err)
			}
		}
		for range servedOpen {
			get()
		}
		<-time.After(time.Second)
		if conn.Context().Err() != nil || running.Load() != servedAtOnce {
			t.Fatalf("%d requests run, connection: %v", running.Load(), context.Cause(conn.Context()))
		}
		get()
		<-time.After(time.Second)
		var end *quic.ApplicationError
		if err := context.Cause(conn.Context()); !errors.As(err, &end) || !end.Remote || end.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad) {
			t.Errorf("with one request more: %v", err)
		}
		if running.Load() != 0 || most.Load() != servedAtOnce {
			t.Errorf("%d requests run still, %d ran at a time", running.Load(), most.Load())
		}
	})
}

func TestServerEndsOldConnections(t *testing.T) {
	simulated(t, http.HandlerFunc(hello), func(t *testing.T, s *server, _ *link.Node, c *Client) {
		start := time.Now()
		for time.Since(start) < 2*servedLifetime+time.Minute {
			if _, err := fetch(t, c, s, "/"); err != nil {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			<-time.After(10 * time.Second)
		}
		if got := s.conns.Load(); got != 3 {
			t.Errorf("%d connections in twenty-one minutes, want a new one every ten", got)
		}
	})
}

func TestServerStopsAtOnce(t *testing.T) {
	silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	simulated(t, silent, func(t *testing.T, s *server, _ *link.Node, c *Client) {
		ended := make(chan error, 1)
		go func() {
			_, _, err := c.Fetch(context.Background(), s.Peer, "/", "", 10)
			ended <- err
		}()
		<-time.After(time.Second) // the request is there
		start := time.Now()
		s.stop()
		if took := time.Since(start); took > time.Second {
			t.Errorf("stopped after %v", took)
		}
		if err := <-ended; err == nil || time.Since(start) > time.Second {
			t.Errorf("the request ended after %v: %v", time.Since(start), err)
		}
	})
}
