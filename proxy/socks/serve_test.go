package socks

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// With all connections in use, further clients wait unanswered; each end lets one of them in, in order.
func TestConnectionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, clients = 3, 8
		log := newRecorder(slog.LevelWarn)
		l := newMemoryListener()
		serve(t, Config{Dial: dialEcho, MaxConns: limit, Log: slog.New(log)}, l)
		var conns []*memoryConn
		for range clients {
			conn := l.dial()
			send(t, conn, greetNone)
			conns = append(conns, conn)
		}
		for first := range clients {
			synctest.Wait()
			for i, conn := range conns {
				conn.in.mu.Lock()
				answered := string(conn.in.buf) == choseNone
				conn.in.mu.Unlock()
				if want := i < first+limit; i >= first && answered != want {
					t.Fatalf("with %d ended, client %d answered: %v", first, i, answered)
				}
			}
			conns[first].Close()
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings, want 1: %s", n, log)
		}
	})
}

func TestDefaultLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryListener()
		var started atomic.Int32
		serve(t, Config{HandshakeTimeout: time.Hour, Dial: func(ctx context.Context, _ Request) (net.Conn, error) {
			started.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}}, l)
		for range DefaultMaxConns + 10 {
			conn := l.dial()
			defer conn.Close()
			send(t, conn, greetNone+connect("a", 1))
		}
		synctest.Wait()
		if n := started.Load(); n != 1024 {
			t.Errorf("%d connections served at a time", n)
		}
	})
}

// Accept errors that pass are waited out, with longer and longer pauses.
func TestAcceptRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newRecorder(slog.LevelWarn)
		l := newMemoryListener()
		for range 10 {
			l.queue <- errors.New("too many open files")
		}
		serve(t, Config{Dial: dialEcho, Log: slog.New(log)}, l)
		start := time.Now()
		conn := l.dial()
		defer conn.Close()
		send(t, conn, greetNone+connect("a", 1))
		expect(t, conn, choseNone+connected)
		// 5 + 10 + ... + 640 ms, then twice a second
		if took, want := time.Since(start), 1275*time.Millisecond+2*time.Second; took != want {
			t.Errorf("served after %v, want %v", took, want)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings, want 1: %s", n, log)
		}
	})
}

func TestAcceptGivesUp(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		errors int
		want   error
	}{{"after errors in a row", maxAcceptFailures, broken}, {"closed by someone", 0, net.ErrClosed}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newMemoryListener()
				conn := l.dial()
				defer conn.Close()
				send(t, conn, greetNone+connect("a", 1))
				served := make(chan error)
				go func() { served <- New(Config{Dial: dialEcho}).Serve(t.Context(), l) }()
				expect(t, conn, choseNone+connected)
				for range tt.errors {
					l.queue <- broken
				}
				if tt.errors == 0 {
					l.Close()
				}
				if err := <-served; !errors.Is(err, tt.want) {
					t.Errorf("Serve: %v", err)
				}
				if _, err := io.ReadAll(conn); err == nil {
					t.Error("a connection that was cut looks ended")
				}
			})
		})
	}
}

// Whatever a connection is doing, the end of the context ends it and Serve, with all goroutines.
func TestServeEnds(t *testing.T) {
	stuck := func(context.Context, Request) (net.Conn, error) {
		near, far := memoryPipe()
		far.Write([]byte("banner"))
		return near, nil // far neither reads nor ends
	}
	tests := []struct {
		name, in, out string
		dial          func(context.Context, Request) (net.Conn, error)
	}{
		{"before the greeting", "", "", nil},
		{"in the greeting", "\x05\x04\x00", "", nil},
		{"in the request", greetNone + "\x05", choseNone, nil},
		{"in Dial", greetNone + connect("a", 1), choseNone, newDialing().dial},
		{"idle", greetNone + connect("a", 1), choseNone + connected, dialEcho},
		{"both directions full", greetNone + connect("a", 1) + strings.Repeat("x", memoryBuffer+bufferSize), choseNone + connected + "banner", stuck},
		{"lingering", "GET ", "HTTP/1.1 501", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newMemoryListener()
				ctx, cancel := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- New(Config{Dial: tt.dial}).Serve(ctx, l) }()
				conn := l.dial()
				send(t, conn, tt.in)
				expect(t, conn, tt.out)
				synctest.Wait()
				start := time.Now()
				cancel()
				if err := <-served; err != nil {
					t.Errorf("Serve: %v", err)
				}
				if took := time.Since(start); took != 0 {
					t.Errorf("Serve took %v to end", took)
				}
				if _, err := io.ReadAll(conn); err == nil && strings.Contains(tt.out, connected) {
					t.Error("a stream that was cut looks ended")
				}
				if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("the listener is open: %v", err)
				}
			})
		})
	}
}

// slowToEnd is a stream whose Read takes an hour to notice that it was closed.
type slowToEnd struct{ *memoryConn }

func (c slowToEnd) Read(p []byte) (int, error) {
	n, err := c.memoryConn.Read(p)
	<-time.After(time.Hour)
	return n, err
}

func TestServeWaitsForStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryListener()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			served <- New(Config{Dial: func(context.Context, Request) (net.Conn, error) {
				near, _ := memoryPipe()
				return slowToEnd{near}, nil
			}}).Serve(ctx, l)
		}()
		conn := l.dial()
		defer conn.Close()
		send(t, conn, greetNone+connect("a", 1))
		expect(t, conn, choseNone+connected)
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != time.Hour {
			t.Errorf("Serve took %v to end", took)
		}
	})
}

func TestServeEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := newMemoryListener()
	conn := l.dial()
	defer conn.Close()
	if err := New(Config{Dial: dialEcho}).Serve(ctx, l); err != nil {
		t.Error(err)
	}
}

func TestUnixSocket(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socks"))
	if err != nil {
		t.Fatal(err)
	}
	requests := make(chan Request, 1)
	serve(t, Config{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
		requests <- r
		return dialEcho(ctx, r)
	}}, l)
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, greetLogin+login+connect("web.test", 80))
	expect(t, conn, choseLogin+connected)
	send(t, conn, "over a unix socket")
	conn.(*net.UnixConn).CloseWrite()
	expect(t, conn, "over a unix socket")
	expect(t, conn, "")
	if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if r := <-requests; r.Target != "web.test:80" || r.User != "user" || r.Password != "secret" || r.Client.Network() != "unix" {
		t.Errorf("request %v from a %s address", r, r.Client.Network())
	}
}
