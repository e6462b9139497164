package frontdoor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConnectKeepsPipelinedBytes(t *testing.T) {
	f := start(t)
	f.origin("echo.test:7", func(c net.Conn) { io.Copy(c, c) })
	c := f.send("CONNECT Echo.Test:7 HTTP/1.1\nHost: other.test:1\n\nearly")
	wantStatus(t, c.head("CONNECT"), 200)
	io.WriteString(c.Conn, " and late")
	c.Conn.(*net.TCPConn).CloseWrite()
	if got := c.rest(); got != "early and late" {
		t.Errorf("came back: %q", got)
	}
	if got := f.network.dialled(); !slices.Equal(got, []string{"echo.test:7 "}) {
		t.Errorf("dialled %q", got)
	}
}

func TestConnectHalfClose(t *testing.T) {
	t.Run("by the client", func(t *testing.T) {
		f := start(t)
		f.origin("count.test:7", func(c net.Conn) {
			body, _ := io.ReadAll(c) // ends only if the client's end arrives
			io.WriteString(c, "got "+string(body))
		})
		c := f.send("CONNECT count.test:7 HTTP/1.1\n\n")
		c.head("CONNECT")
		io.WriteString(c.Conn, "all")
		c.Conn.(*net.TCPConn).CloseWrite()
		if got := c.rest(); got != "got all" {
			t.Errorf("after the half close: %q", got)
		}
	})
	t.Run("by the destination", func(t *testing.T) {
		f := start(t)
		got := make(chan string, 1)
		f.origin("first.test:7", func(c net.Conn) {
			io.WriteString(c, "that is all")
			c.(*net.TCPConn).CloseWrite()
			body, _ := io.ReadAll(c)
			got <- string(body)
		})
		c := f.send("CONNECT first.test:7 HTTP/1.1\n\n")
		c.head("CONNECT")
		if all := c.rest(); all != "that is all" {
			t.Errorf("read %q", all)
		}
		io.WriteString(c.Conn, "still here")
		c.Close()
		if body := <-got; body != "still here" {
			t.Errorf("the destination read %q", body)
		}
	})
}

// A cut-off stream must not look like a whole one.
func TestConnectPassesOnFailure(t *testing.T) {
	f := start(t)
	f.origin("cut.test:7", func(c net.Conn) {
		io.WriteString(c, "half an ans")
		io.ReadFull(c, make([]byte, 2))
		c.(*net.TCPConn).SetLinger(0)
	})
	c := f.send("CONNECT cut.test:7 HTTP/1.1\n\n")
	c.head("CONNECT")
	io.ReadFull(c.in, make([]byte, len("half an ans")))
	io.WriteString(c.Conn, "go")
	if _, err := c.in.ReadByte(); err == nil || err == io.EOF {
		t.Errorf("the client sees %v, not a reset", err)
	}
}

func TestConnectClientGoneEndsTheStream(t *testing.T) {
	f := start(t)
	ended := make(chan error, 1)
	f.origin("sink.test:7", func(c net.Conn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	c := f.send("CONNECT sink.test:7 HTTP/1.1\n\n")
	c.head("CONNECT")
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	<-ended
}

// noHalfClose is a stream without CloseWrite.
type noHalfClose struct{ net.Conn }

func TestConnectWithoutHalfClose(t *testing.T) {
	ended := make(chan struct{})
	near, far := net.Pipe()
	f := start(t, func(c *Config) {
		c.Dial = func(context.Context, Request) (net.Conn, error) { return noHalfClose{near}, nil }
	})
	go func() {
		defer close(ended)
		io.Copy(io.Discard, far)
	}()
	c := f.send("CONNECT x.test:7 HTTP/1.1\n\n")
	c.head("CONNECT")
	c.Conn.(*net.TCPConn).CloseWrite()
	<-ended
	c.rest()
}

func TestConnectLargeBothWays(t *testing.T) {
	f := start(t)
	f.origin("echo.test:7", func(c net.Conn) {
		io.Copy(c, c)
		c.(*net.TCPConn).CloseWrite()
	})
	c := f.send("CONNECT echo.test:7 HTTP/1.1\n\n")
	c.head("CONNECT")
	sent, got := sha256.New(), sha256.New()
	go func() {
		io.Copy(io.MultiWriter(c.Conn, sent), io.LimitReader(rand.NewChaCha8([32]byte{7}), 64<<20))
		c.Conn.(*net.TCPConn).CloseWrite()
	}()
	n, err := io.Copy(got, c.in)
	if err != nil || n != 64<<20 || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d bytes came back (%v), the hashes are %x and %x", n, err, sent.Sum(nil), got.Sum(nil))
	}
}

func TestConnectRefusesBadTargets(t *testing.T) {
	f := start(t)
	for _, target := range []string{
		"example.test", "example.test:", "example.test:0", "example.test:65536", "example.test:http", "example.test:+80",
		":80", "user@example.test:80", "2001:db8::1:80", "[fe80::1%25eth0]:80", "[::1", "http://example.test/", "/example.test:80",
		"ex%61mple.test:80", "a..test:80", ".test:80", "1.2.3.4.5:80", "300.1.1.1:80", "ex\xc3\xa4mple.test:80",
	} {
		r, body := f.do("CONNECT " + target + " HTTP/1.1\nHost: x\n\n")
		if r.StatusCode != 400 || body == "" {
			t.Errorf("CONNECT %s: %s %q", target, r.Status, body)
		}
	}
	if got := f.network.dialled(); len(got) != 0 {
		t.Errorf("dialled %q", got)
	}
}

func TestConnectRefusesABody(t *testing.T) {
	f := start(t)
	f.origin("echo.test:7", func(c net.Conn) { io.Copy(c, c) })
	for _, header := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
		c := f.send("CONNECT echo.test:7 HTTP/1.1\n" + header + "\n\n5\nhello\n0\n\n")
		r, _ := c.answer("CONNECT")
		wantStatus(t, r, 400)
	}
	wantStatus(t, f.send("CONNECT echo.test:7 HTTP/1.1\nContent-Length: 0\n\n").head("CONNECT"), 200)
}

// What stands behind a CONNECT that failed was meant for the destination: nobody may smuggle a request to
// the front door in it.
func TestFailedConnectDropsTheRest(t *testing.T) {
	f := start(t)
	c := f.send("CONNECT nobody.test:80 HTTP/1.1\n\nPOST /api/newnym HTTP/1.1\nHost: SELF\n\n")
	r, body := c.answer("CONNECT")
	if r.StatusCode != 502 || !r.Close || !strings.Contains(body, "does not resolve") {
		t.Errorf("answer %s, close %v: %q", r.Status, r.Close, body)
	}
	if rest := c.rest(); rest != "" {
		t.Errorf("a second answer: %q", rest)
	}
	if n := f.client.newIdentities(); n != 0 {
		t.Error("the smuggled request was served")
	}
}

func TestHangUpCancelsDial(t *testing.T) {
	for name, request := range map[string]string{
		"CONNECT":  "CONNECT slow.test:80 HTTP/1.1\n\n",
		"absolute": "GET http://slow.test/ HTTP/1.1\nHost: slow.test\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			dialling, cancelled := make(chan struct{}), make(chan struct{})
			f := start(t, func(c *Config) {
				c.Dial = func(ctx context.Context, _ Request) (net.Conn, error) {
					close(dialling)
					<-ctx.Done()
					close(cancelled)
					return nil, ctx.Err()
				}
			})
			c := f.send(request)
			<-dialling
			c.Close()
			<-cancelled
		})
	}
}

// A stream that comes although its client is gone is closed, and not kept for others.
func TestLateStreamIsClosed(t *testing.T) {
	for _, line := range []string{"CONNECT slow.test:80", "GET http://slow.test/"} {
		near, far := net.Pipe()
		dialling := make(chan struct{})
		f := start(t, func(c *Config) {
			c.Dial = func(ctx context.Context, _ Request) (net.Conn, error) {
				close(dialling)
				<-ctx.Done()
				return near, nil
			}
		})
		c := f.send(line + " HTTP/1.1\nHost: slow.test\n\n")
		<-dialling
		c.Close()
		far.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the stream: %v", line, err)
		}
	}
}

func TestWebSocketOverConnect(t *testing.T) {
	f := start(t)
	f.network.add("ws.test:80", echoWebSocket(t))
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		c := f.send("CONNECT ws.test:80 HTTP/1.1\n\n")
		c.head("CONNECT")
		return c.Conn, nil
	}}
	sayHello(t, transport)
}
