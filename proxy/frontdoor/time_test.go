package frontdoor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener in memory, so that a front door can run in virtual time. Dialling waits for Accept.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8118} }

// dial connects and sends a request, in the background: a pipe holds nothing.
func (p *pipes) dial(request string) (*bufio.Reader, net.Conn) {
	near, far := net.Pipe()
	p.accepted <- far
	go io.WriteString(near, strings.ReplaceAll(request, "\n", "\r\n"))
	return bufio.NewReader(near), near
}

// inVirtualTime runs a front door in a synctest bubble. The test calls stop and learns how long Serve took
// to return; that nothing runs on after it is the bubble's own check.
func inVirtualTime(t *testing.T, cfg Config, test func(t *testing.T, p *pipes, stop func() time.Duration)) {
	t.Helper()
	serveInBubble(t, cfg, func(t *testing.T, p *pipes, _ *Server, stop func() time.Duration) { test(t, p, stop) })
}

// serveInBubble is inVirtualTime for tests that know their Server, whose Backend is a *client.
func serveInBubble(t *testing.T, cfg Config, test func(t *testing.T, p *pipes, server *Server, stop func() time.Duration)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Backend = readyClient()
		server := New(cfg)
		p := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- server.Serve(ctx, p) }()
		test(t, p, server, func() time.Duration {
			before := time.Now()
			cancel()
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			return time.Since(before)
		})
	})
}

func noDial(context.Context, Request) (net.Conn, error) { return nil, errors.New("not here") }

func TestSlowHeadIsCutOff(t *testing.T) {
	inVirtualTime(t, Config{Dial: noDial}, func(t *testing.T, p *pipes, stop func() time.Duration) {
		before := time.Now()
		in, c := p.dial("GET /api/status HTTP/1.1\nHost: localh")
		io.ReadAll(in)
		if d := time.Since(before); d < headerTimeout || d > headerTimeout+time.Second {
			t.Errorf("cut off after %v", d)
		}
		c.Close()
		stop()
	})
}

func TestIdleConnectionIsClosed(t *testing.T) {
	inVirtualTime(t, Config{Dial: noDial}, func(t *testing.T, p *pipes, stop func() time.Duration) {
		in, c := p.dial("GET /api/relays HTTP/1.1\nHost: localhost:8118\n\n")
		r, err := http.ReadResponse(in, nil)
		if err != nil || r.StatusCode != 200 {
			t.Fatal(r, err)
		}
		io.Copy(io.Discard, r.Body)
		before := time.Now()
		if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
		if d := time.Since(before); d < idleTimeout || d > idleTimeout+time.Second {
			t.Errorf("closed after %v", d)
		}
		c.Close()
		stop()
	})
}

// A client that does not read its answer is cut off.
func TestUnreadAnswerIsGivenUp(t *testing.T) {
	inVirtualTime(t, Config{Dial: noDial}, func(t *testing.T, p *pipes, stop func() time.Duration) {
		before := time.Now()
		in, c := p.dial("GET /api/relays HTTP/1.1\nHost: localhost:8118\n\n")
		<-time.After(answerTimeout + time.Second)
		if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil || time.Since(before) > 12*time.Second {
			t.Errorf("after %v: %q, %v", time.Since(before), rest, err)
		}
		c.Close()
		stop()
	})
}

// A body that is announced and never comes holds its connection no longer.
func TestMissingBodyIsGivenUp(t *testing.T) {
	inVirtualTime(t, Config{Dial: noDial}, func(t *testing.T, p *pipes, stop func() time.Duration) {
		before := time.Now()
		in, c := p.dial("POST /api/newnym HTTP/1.1\nHost: localhost:8118\nContent-Length: 10\n\n")
		io.ReadAll(in)
		if d := time.Since(before); d > answerTimeout+time.Second {
			t.Errorf("closed after %v", d)
		}
		c.Close()
		stop()
	})
}

// The time-out of the front door's own answers does not reach what is proxied on the same connection.
func TestProxiedAnswersMayTakeLong(t *testing.T) {
	dial := func(context.Context, Request) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			readHead(bufio.NewReader(far))
			<-time.After(time.Hour)
			io.WriteString(far, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nlate")
		}()
		return near, nil
	}
	inVirtualTime(t, Config{Dial: dial}, func(t *testing.T, p *pipes, stop func() time.Duration) {
		in, c := p.dial("GET /api/relays HTTP/1.1\nHost: localhost:8118\n\nGET http://slow.test/ HTTP/1.1\nHost: x\nConnection: close\n\n")
		for _, want := range []string{"[]\n", "late"} {
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(r.Body); string(body) != want || err != nil {
				t.Errorf("%q, %v", body, err)
			}
		}
		c.Close()
		stop()
	})
}

func TestDialIsGivenUp(t *testing.T) {
	dial := func(ctx context.Context, _ Request) (net.Conn, error) {
		<-ctx.Done()
		return nil, fmt.Errorf("no circuit: %w", ctx.Err())
	}
	for _, line := range []string{"CONNECT slow.test:80", "GET http://slow.test/"} {
		inVirtualTime(t, Config{Dial: dial}, func(t *testing.T, p *pipes, stop func() time.Duration) {
			before := time.Now()
			in, c := p.dial(line + " HTTP/1.1\nHost: x\n\n")
			r, err := http.ReadResponse(in, nil)
			if err != nil || r.StatusCode != http.StatusBadGateway {
				t.Errorf("%s: %v, %v", line, r, err)
			}
			if d := time.Since(before); d != dialTimeout {
				t.Errorf("%s: given up after %v", line, d)
			}
			c.Close()
			stop()
		})
	}
}

func TestConnectionLimit(t *testing.T) {
	inVirtualTime(t, Config{Dial: noDial, MaxConns: 2}, func(t *testing.T, p *pipes, stop func() time.Duration) {
		const request = "GET /api/relays HTTP/1.1\nHost: localhost:8118\n\n"
		_, first := p.dial(request)
		_, second := p.dial(request)
		third := make(chan net.Conn)
		go func() {
			_, c := p.dial(request)
			third <- c
		}()
		synctest.Wait()
		select {
		case <-third:
			t.Error("a third connection was accepted")
		default:
		}
		first.Close()
		(<-third).Close()
		second.Close()
		synctest.Wait()
		_, fourth := p.dial(request)
		fourth.Close()
		stop()
	})
}

// TestFullIsToldSeldom fills the front door again and again: it is logged once a minute.
func TestFullIsToldSeldom(t *testing.T) {
	var log bytes.Buffer
	cfg := Config{Dial: noDial, MaxConns: 1, Log: slog.New(slog.NewTextHandler(&log, nil))}
	inVirtualTime(t, cfg, func(t *testing.T, p *pipes, stop func() time.Duration) {
		told := func(want int) {
			t.Helper()
			for range 10 {
				_, c := p.dial("GET /api/relays HTTP/1.1\nHost: localhost:8118\n\n")
				synctest.Wait()
				c.Close()
				synctest.Wait()
			}
			if n := strings.Count(log.String(), "new ones wait"); n != want {
				t.Errorf("told %d times, want %d", n, want)
			}
		}
		told(1)
		<-time.After(warnEvery)
		told(2)
		stop()
	})
}

func TestStopWhileFull(t *testing.T) {
	inVirtualTime(t, Config{Dial: noDial, MaxConns: 1}, func(t *testing.T, p *pipes, stop func() time.Duration) {
		_, c := p.dial("GET / HTTP/1.1\n")
		synctest.Wait()
		if d := stop(); d > time.Second {
			t.Errorf("Serve took %v to return", d)
		}
		c.Close()
	})
}

// Serve ends with everything that a client can have open.
func TestStopEndsEverything(t *testing.T) {
	gone := make(chan string, 8)
	dial := func(ctx context.Context, r Request) (net.Conn, error) {
		target := r.Target
		if target == "slow.test:80" {
			<-ctx.Done()
			gone <- "dial"
			return nil, ctx.Err()
		}
		near, far := net.Pipe()
		go func() {
			in := bufio.NewReader(far)
			if target != "tunnel.test:80" {
				readHead(in)
			}
			switch target {
			case "up.test:80":
				io.WriteString(far, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
			case "idle.test:80":
				io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			io.Copy(io.Discard, in)
			gone <- target
			far.Close()
		}()
		return near, nil
	}
	inVirtualTime(t, Config{Dial: dial}, func(t *testing.T, p *pipes, stop func() time.Duration) {
		var open []net.Conn
		for _, request := range []string{
			"CONNECT tunnel.test:80 HTTP/1.1\n\n",
			"CONNECT slow.test:80 HTTP/1.1\n\n",
			"GET http://slow.test/ HTTP/1.1\nHost: x\n\n",
			"GET http://up.test/ HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: chat\n\n",
			"GET http://idle.test/ HTTP/1.1\nHost: x\n\n",
			"GET http://silent.test/ HTTP/1.1\nHost: x\n\n",
			"POST http://upload.test/ HTTP/1.1\nHost: x\nContent-Length: 10\n\nhalf",
			"GET /api/status HTTP/1.1\nHost: localhost:8118\n\n",
			"GET / HT",
		} {
			in, c := p.dial(request)
			go io.Copy(io.Discard, in)
			open = append(open, c)
		}
		synctest.Wait()
		if d := stop(); d > time.Second {
			t.Errorf("Serve took %v to return", d)
		}
		synctest.Wait()
		if n := len(gone); n != 7 {
			t.Errorf("%d of 7 dials and streams have ended", n)
		}
		for _, c := range open {
			c.Close()
		}
	})
}
