package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"torproxy/wire"
	"torproxy/wire/mux"
)

// streamConn lets a stream of kind http be an HTTP client's connection.
type streamConn struct{ *mux.Stream }

func (streamConn) LocalAddr() net.Addr  { return nil }
func (streamConn) RemoteAddr() net.Addr { return nil }

// through is an HTTP client each of whose requests is a stream of kind http.
func (b *bed) through(s *mux.Session) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			st, err := s.Open(wire.KindHTTP, address)
			return streamConn{st}, err
		},
	}}
}

// TestWebSocket talks WebSocket through a circuit in both directions, at length, and closes in good order.
func TestWebSocket(t *testing.T) {
	const rounds, size = 20, 100000
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(size)
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil {
				if status := websocket.CloseStatus(err); status != websocket.StatusNormalClosure {
					t.Errorf("closed by %v, %v", status, err)
				}
				return
			}
			if err := c.Write(r.Context(), kind, message); err != nil {
				t.Error(err)
				return
			}
		}
	})
	onLoopback(t, nil, func(b *bed) {
		c, _, err := websocket.Dial(t.Context(), "ws://"+server+"/a?b=c;d", &websocket.DialOptions{HTTPClient: b.through(b.session(0, 1))})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		c.SetReadLimit(size)
		for i := range rounds {
			sent := strings.Repeat(fmt.Sprint(i%10), size)
			if err := c.Write(t.Context(), websocket.MessageText, []byte(sent)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := c.Read(t.Context()); err != nil || string(got) != sent {
				t.Fatalf("round %d: %d bytes came back, %v", i, len(got), err)
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
			t.Error(err)
		}
	})
}

const upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"

// TestUpgradeHalfClose lets either side finish first: what the other one still says arrives.
func TestUpgradeHalfClose(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan *net.TCPConn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(io.LimitReader(c, 1<<10))); err != nil {
				t.Error(err)
			}
			// The first bytes behind the head come with it.
			io.WriteString(c, "HTTP/1.1 101 Come in\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: y\r\nX-Forwarded-For: z\r\nTorproxy-Open: http://a/\r\n\r\nfirst ")
			accepted <- c.(*net.TCPConn)
		}
	}()
	const head = "HTTP/1.1 101 Come in\r\nConnection: Upgrade\r\nSec-Websocket-Accept: y\r\nUpgrade: websocket\r\n\r\n"
	onLoopback(t, nil, func(b *bed) {
		s := b.session(0, 1)
		for _, clientFirst := range []bool{true, false} {
			v := b.get(s, l.Addr().String(), "/", upgrade)
			there := <-accepted
			toServer := func() {
				io.WriteString(v.stream, "from the client")
				v.stream.CloseWrite()
				if got, err := io.ReadAll(there); err != nil || string(got) != "from the client" {
					t.Errorf("the server got %q, %v", got, err)
				}
			}
			toClient := func() {
				io.WriteString(there, "and last")
				there.CloseWrite()
				if got, err := io.ReadAll(v.in); err != nil || string(got) != head+"first and last" {
					t.Errorf("the client got %q, %v", got, err)
				}
			}
			if clientFirst {
				toServer()
				toClient()
			} else {
				toClient()
				toServer()
			}
			there.Close()
			v.stream.Close()
		}
	})
}

// TestUpgradeIsAsked checks what the destination is told of an upgrade, and what an answer that is no 101
// does.
func TestUpgradeIsAsked(t *testing.T) {
	server := serveRaw(t, ok)
	onLoopback(t, nil, func(b *bed) {
		if _, body := b.get(b.session(0, 1), server.addr(), "/", upgrade).page("GET"); body != "ok" {
			t.Errorf("got %q", body)
		}
		heads, _ := server.seen()
		const want = "GET / HTTP/1.1\nHost: HOST\nConnection: Upgrade\nSec-Websocket-Key: x\nSec-Websocket-Version: 13\nUpgrade: websocket"
		if got := strings.ReplaceAll(heads[0], server.addr(), "HOST"); got != want {
			t.Errorf("asked\n%q, want\n%q", got, want)
		}
	})
}

// TestUpgradeToElse lets the destination switch to another protocol than it was asked for.
func TestUpgradeToElse(t *testing.T) {
	server := serveRaw(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
	onLoopback(t, nil, func(b *bed) {
		b.get(b.session(0, 1), server.addr(), "/", upgrade).fails("h2c", wire.ReasonReset)
	})
}

// TestUpgradeLasts checks, in virtual time, that an upgraded connection may be quiet for long, and what ends
// it.
func TestUpgradeLasts(t *testing.T) {
	var exit *destination
	configure := exitTo(t, func(d *destination, there net.Conn) {
		exit = d
		go func() {
			asked := bufio.NewReader(there)
			if _, err := http.ReadRequest(asked); err != nil {
				return
			}
			go io.Copy(io.Discard, asked)
			io.WriteString(there, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			<-time.After(2 * quietTimeout)
			io.WriteString(there, "still here")
		}()
	})
	onBed(t, 2, configure, func(b *bed) {
		v := b.get(b.session(0, 1), "198.41.0.4:80", "/", upgrade)
		if resp := v.head("GET"); resp.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("got %s", resp.Status)
		}
		got := make([]byte, len("still here"))
		if _, err := io.ReadFull(v.in, got); err != nil || string(got) != "still here" {
			t.Errorf("got %q, %v", got, err)
		}
		began := time.Now()
		v.stream.Close()
		<-exit.closed
		if took := time.Since(began); took > time.Second+lingerTimeout {
			t.Errorf("closed after %v", took)
		}
	})
}
