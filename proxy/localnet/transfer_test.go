package localnet_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
	"torproxy/relay"
	"torproxy/wire"
)

// TestEveryLength fetches a page through circuits of 1 to 8 hops, by SOCKS and by the front door, and
// counts the relays that took part.
func TestEveryLength(t *testing.T) {
	n := startNetwork(t, localnet.Config{})
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "page %s", r.URL)
	}))
	defer site.Close()
	for hops := 1; hops <= wire.MaxHops; hops++ {
		t.Run(fmt.Sprint(hops), func(t *testing.T) {
			c := startClient(t, n, proxy.Config{Hops: hops, Spares: 1}).awaitReady(t)
			want := fmt.Sprintf("page /%d?a=1;b=%%zz", hops)
			for name, via := range map[string]*http.Client{"SOCKS": c.viaSOCKS(t), "front door": c.viaFrontDoor(t)} {
				req, err := http.NewRequestWithContext(t.Context(), "GET", site.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.URL.Path, req.URL.RawQuery = fmt.Sprintf("/%d", hops), "a=1;b=%zz"
				resp, err := via.Do(req)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != want {
					t.Errorf("%s: got %q, %v; want %q", name, body, err, want)
				}
			}
			for _, circuit := range c.Circuits() {
				if len(circuit.Route) != hops {
					t.Errorf("a circuit has %d hops, want %d", len(circuit.Route), hops)
				}
			}
		})
	}
}

// transferSize is that of one large transfer: 100 MiB, or what -short allows.
func transferSize() int64 {
	if testing.Short() {
		return 4 << 20
	}
	return 100 << 20
}

// noise returns n bytes that do not repeat, the same for the same seed.
func noise(n int64, seed uint64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}), n)
}

func hashOf(t testing.TB, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestLargeTransfers moves 100 MiB each way through five hops and compares hashes.
func TestLargeTransfers(t *testing.T) {
	n := startNetwork(t, localnet.Config{})
	c := startClient(t, n, proxy.Config{Hops: 5}).awaitReady(t)
	size := transferSize()
	want := hashOf(t, noise(size, 7))
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			io.WriteString(w, hashOf(t, r.Body))
			return
		}
		io.Copy(w, noise(size, 7))
	}))
	defer site.Close()
	for name, via := range map[string]*http.Client{"SOCKS": c.viaSOCKS(t), "front door": c.viaFrontDoor(t)} {
		t.Run(name+" download", func(t *testing.T) {
			resp, err := via.Get(site.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := hashOf(t, resp.Body); got != want {
				t.Errorf("hash %s, want %s", got, want)
			}
		})
		t.Run(name+" upload", func(t *testing.T) {
			resp, err := via.Post(site.URL, "application/octet-stream", noise(size, 7))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != want {
				t.Errorf("hash %s, %v; want %s", got, err, want)
			}
		})
	}
}

// TestParallelConnections runs 200 connections at once to one destination; each checks that the answer is
// the one to its own request.
func TestParallelConnections(t *testing.T) {
	n := startNetwork(t, localnet.Config{})
	c := startClient(t, n, proxy.Config{}).awaitReady(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s:%s:%x", r.URL.Path, r.Header.Get("X-Number"), sha256.Sum256(body))
	}))
	defer site.Close()
	const connections = 200
	var all sync.WaitGroup
	for i := range connections {
		all.Go(func() {
			u, _ := url.Parse("socks5://" + c.socks)
			via := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u), DisableKeepAlives: true}}
			body := strings.Repeat(fmt.Sprint(i, "."), 5000)
			req, _ := http.NewRequest("POST", fmt.Sprintf("%s/%d", site.URL, i), strings.NewReader(body))
			req.Header.Set("X-Number", fmt.Sprint(i))
			resp, err := via.Do(req)
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if want := fmt.Sprintf("/%d:%d:%x", i, i, sha256.Sum256([]byte(body))); err != nil || string(got) != want {
				t.Errorf("connection %d: got %q, %v", i, got, err)
			}
		})
	}
	all.Wait()
}

// TestKeepAlive sends two requests over one connection.
func TestKeepAlive(t *testing.T) {
	c := startClient(t, startNetwork(t, localnet.Config{}), proxy.Config{}).awaitReady(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) }))
	defer site.Close()
	via := c.viaSOCKS(t)
	first := get(t, via, site.URL)
	var reused bool
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	req, _ := http.NewRequestWithContext(ctx, "GET", site.URL, nil)
	resp, err := via.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	second, _ := io.ReadAll(resp.Body)
	if !reused || string(second) != first {
		t.Errorf("the second request came from %s over a reused connection: %v; the first from %s", second, reused, first)
	}
}

// TestHTTPS checks TLS end to end, through SOCKS and through CONNECT.
func TestHTTPS(t *testing.T) {
	c := startClient(t, startNetwork(t, localnet.Config{}), proxy.Config{}).awaitReady(t)
	site := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "over TLS") }))
	defer site.Close()
	trust := site.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for name, via := range map[string]*http.Client{"SOCKS": c.viaSOCKS(t), "CONNECT": c.viaFrontDoor(t)} {
		via.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: trust}
		if got := get(t, via, site.URL); got != "over TLS" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestWebSocket exchanges messages over a WebSocket, as an upgrade through the front door and inside SOCKS.
func TestWebSocket(t *testing.T) {
	c := startClient(t, startNetwork(t, localnet.Config{}), proxy.Config{}).awaitReady(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		for {
			kind, message, err := ws.Read(r.Context())
			if err != nil || ws.Write(r.Context(), kind, append([]byte("echo "), message...)) != nil {
				return
			}
		}
	}))
	defer site.Close()
	for name, via := range map[string]*http.Client{"SOCKS": c.viaSOCKS(t), "front door": c.viaFrontDoor(t)} {
		ws, _, err := websocket.Dial(t.Context(), site.URL, &websocket.DialOptions{HTTPClient: via})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range 3 {
			message := fmt.Sprintf("message %d", i)
			if err := ws.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_, got, err := ws.Read(t.Context())
			if err != nil || string(got) != "echo "+message {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
		}
		ws.Close(websocket.StatusNormalClosure, "")
	}
}

// TestHalfClose sends everything, closes its half, and then reads the answer to all of it; and the other
// way round: the destination closes first and still reads.
func TestHalfClose(t *testing.T) {
	c := startClient(t, startNetwork(t, localnet.Config{}), proxy.Config{}).awaitReady(t)
	t.Run("client first", func(t *testing.T) {
		l := listen(t)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			all, _ := io.ReadAll(conn)
			fmt.Fprintf(conn, "%d bytes", len(all))
		}()
		conn := c.dialSOCKS(t, l.Addr().String())
		fmt.Fprint(conn, strings.Repeat("x", 100_000))
		conn.(interface{ CloseWrite() error }).CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || string(got) != "100000 bytes" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("destination first", func(t *testing.T) {
		l := listen(t)
		received := make(chan string, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "good-bye")
			conn.(*net.TCPConn).CloseWrite()
			all, _ := io.ReadAll(conn)
			received <- string(all)
		}()
		conn := c.dialSOCKS(t, l.Addr().String())
		if got, err := io.ReadAll(conn); err != nil || string(got) != "good-bye" {
			t.Errorf("got %q, %v", got, err)
		}
		io.WriteString(conn, "still here")
		conn.(interface{ CloseWrite() error }).CloseWrite()
		if got := <-received; got != "still here" {
			t.Errorf("the destination received %q", got)
		}
	})
}

// TestDestinationResets checks that a connection cut by its destination is an error at the application,
// and never a short page that looks whole.
func TestDestinationResets(t *testing.T) {
	c := startClient(t, startNetwork(t, localnet.Config{}), proxy.Config{}).awaitReady(t)
	l := listen(t)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		bufio.NewReader(conn).ReadByte()
		conn.(*net.TCPConn).SetLinger(0) // close by RST
		conn.Close()
	}()
	conn, err := c.Dialer("").DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "x")
	var end *wire.EndError
	if _, err := io.ReadAll(conn); !errors.As(err, &end) || end.Reason != wire.ReasonReset {
		t.Errorf("got %v, want END connection reset", err)
	}
}

// hopeless is a dial of an exit to a destination that never answers.
func hopeless(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestDestinationFailures checks what an application is told when its destination can't be had: the
// SOCKS reply and the front door's status of each reason.
func TestDestinationFailures(t *testing.T) {
	refused := listen(t)
	refused.Close()
	forbidden := netip.MustParseAddr("127.9.9.8")
	own := func(to netip.AddrPort) bool { return to.Addr() == forbidden }
	n := startNetwork(t, localnet.Config{Own: own, Relay: func(_ int, cfg *relay.Config) {
		cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "127.9.9.9:") {
				return hopeless(ctx, network, address)
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	}})
	c := startClient(t, n, proxy.Config{}).awaitReady(t)
	for _, test := range []struct {
		name, target string
		reply        string // of SOCKS, as x/net/proxy words it
		status       int    // of the front door
	}{
		{"refused", refused.Addr().String(), "connection refused", http.StatusBadGateway},
		{"no such name", "does-not-exist.invalid:80", "host unreachable", http.StatusBadGateway},
		{"never answers", "127.9.9.9:80", "host unreachable", http.StatusGatewayTimeout},
		{"not allowed", "127.9.9.8:80", "connection not allowed by ruleset", http.StatusForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, err := c.trySOCKS(test.target); err == nil || !strings.Contains(err.Error(), test.reply) {
				t.Errorf("SOCKS: %v, want %q", err, test.reply)
			}
			resp, err := c.viaFrontDoor(t).Get("http://" + test.target + "/")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != test.status {
				body, _ := io.ReadAll(resp.Body)
				t.Errorf("front door: %s (%s), want %d", resp.Status, body, test.status)
			}
		})
	}
}

// TestDeadline checks that a connection's deadline is net.Conn's.
func TestDeadline(t *testing.T) {
	c := startClient(t, startNetwork(t, localnet.Config{}), proxy.Config{}).awaitReady(t)
	l := listen(t)
	conn, err := c.Dialer("").DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Unix(1, 0))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want os.ErrDeadlineExceeded", err)
	}
}
