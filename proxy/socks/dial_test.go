package socks

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// dialing is a Config.Dial that reports its start and waits for its context.
type dialing struct {
	started chan struct{}
	ended   chan error // the context's cause
}

func newDialing() *dialing {
	return &dialing{make(chan struct{}, 1), make(chan error, 1)}
}

func (d *dialing) dial(ctx context.Context, _ Request) (net.Conn, error) {
	d.started <- struct{}{}
	<-ctx.Done()
	d.ended <- context.Cause(ctx)
	return nil, ctx.Err()
}

func TestHangUpCancelsDial(t *testing.T) {
	tests := []struct {
		name  string
		early string
		leave func(*net.TCPConn)
	}{
		{"close", "", func(c *net.TCPConn) { c.Close() }},
		{"half close", "", func(c *net.TCPConn) { c.CloseWrite() }},
		{"reset", "", func(c *net.TCPConn) { c.SetLinger(0); c.Close() }},
		{"close after early data", "GET / HTTP/1.0\r\n\r\n", func(c *net.TCPConn) { c.Close() }},
		{"reset after early data", strings.Repeat("x", bufferSize-1), func(c *net.TCPConn) { c.SetLinger(0); c.Close() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDialing()
			conn, err := net.Dial("tcp", serveTCP(t, Config{Dial: d.dial}))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			send(t, conn, greetNone+connect("slow.test", 80))
			expect(t, conn, choseNone)
			<-d.started
			send(t, conn, tt.early)
			tt.leave(conn.(*net.TCPConn))
			if err := <-d.ended; !errors.Is(err, errHungUp) {
				t.Errorf("Dial was ended by %v", err)
			}
		})
	}
}

func TestEndOfServeCancelsDial(t *testing.T) {
	l := newMemoryListener()
	d := newDialing()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- New(Config{Dial: d.dial}).Serve(ctx, l) }()
	conn := l.dial()
	send(t, conn, greetNone+connect("slow.test", 80))
	<-d.started
	cancel()
	if err := <-d.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Dial was ended by %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// Whatever the client sends before it is answered must arrive, once and in order: in the segment of the
// request, while Dial runs, more than is read ahead, and after the answer.
func TestEarlyData(t *testing.T) {
	for _, size := range []int{0, 1, 100, 4096, bufferSize - 1, bufferSize, bufferSize + 1, 3 * bufferSize} {
		started, proceed := make(chan struct{}), make(chan struct{})
		cfg := Config{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
			close(started)
			<-proceed
			return dialEcho(ctx, r)
		}}
		near, far := memoryPipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			New(cfg).serveConn(t.Context(), far)
		}()
		first, second, third := strings.Repeat("1", size), strings.Repeat("2", min(size, bufferSize)), strings.Repeat("3", size)
		go func() {
			io.WriteString(near, greetNone+connect("web.test", 80)+first)
			<-started
			io.WriteString(near, second)
			if size <= 4096 { // it is certain to be read while Dial runs
				near.drained()
			}
			close(proceed)
			io.WriteString(near, third)
			near.CloseWrite()
		}()
		expect(t, near, choseNone+connected+first+second+third)
		if rest, err := io.ReadAll(near); len(rest) > 0 || err != nil {
			t.Errorf("size %d: %d more bytes, %v", size, len(rest), err)
		}
		<-done
		near.Close()
	}
}

// A client whose data end before the answer is served if the stream is there all the same.
func TestStreamDespiteHangUp(t *testing.T) {
	cfg := Config{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
		<-ctx.Done()
		return dialEcho(ctx, r)
	}}
	if got, want := converse(t, cfg, greetNone+connect("a", 1)+"request"), choseNone+connected+"request"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// If the client broke off meanwhile, what it had sent must not look complete to the destination.
func TestBreakOffDuringDial(t *testing.T) {
	client, accepted := memoryPipe()
	stream, dest := memoryPipe()
	defer dest.Close()
	cfg := Config{Dial: func(ctx context.Context, _ Request) (net.Conn, error) {
		client.Reset()
		<-ctx.Done()
		stream.SetLinger(0)
		return stream, nil
	}}
	send(t, client, greetNone+connect("a", 1)+"half a req")
	New(cfg).serveConn(t.Context(), accepted)
	if _, err := io.ReadAll(dest); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the destination saw %v", err)
	}
}

// The context given to Dial is only for dialling, and not cancelled before Dial has returned.
func TestDialContext(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "value")
	var during error
	var value any
	cfg := Config{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
		during, value = ctx.Err(), ctx.Value(key{})
		return dialEcho(ctx, r)
	}}
	near, far := memoryPipe()
	defer near.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		New(cfg).serveConn(ctx, far)
	}()
	send(t, near, greetNone+connect("a", 1))
	expect(t, near, choseNone+connected)
	near.CloseWrite()
	<-done
	if during != nil || value != "value" {
		t.Errorf("context in Dial: %v, %v", during, value)
	}
}

func TestHandshakeTimeout(t *testing.T) {
	tests := []struct {
		name, in, out string
		timeout, want time.Duration
	}{
		{"nothing sent", "", "", 0, 5 * time.Second},
		{"one byte", "\x05", "", 0, 5 * time.Second},
		{"greeting only", greetNone, choseNone, 0, 5 * time.Second},
		{"half a login", greetLogin + "\x01\x04us", "\x05\x02", 0, 5 * time.Second},
		{"half a request", greetNone + "\x05\x01\x00\x03\x08web", choseNone, 0, 5 * time.Second},
		{"half a method", "GE", "", 0, 5 * time.Second},
		{"one that is set", "\x05", "", 100 * time.Millisecond, 100 * time.Millisecond},
		{"lingering after a refusal", "\x05\x01\x09", "\x05\xff", 0, linger},
		{"lingering after HTTP", "GET ", "", 0, linger},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := memoryPipe()
				defer near.Close()
				send(t, near, tt.in)
				start := time.Now()
				New(Config{HandshakeTimeout: tt.timeout}).serveConn(t.Context(), far)
				if took := time.Since(start); took != tt.want {
					t.Errorf("closed after %v, want %v", took, tt.want)
				}
				if out, _ := io.ReadAll(near); tt.out != "" && string(out) != tt.out {
					t.Errorf("got %q, want %q", out, tt.out)
				}
			})
		})
	}
}

// A client is watched for as long as Dial takes.
func TestLateHangUpCancelsDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialing()
		near, far := memoryPipe()
		go New(Config{Dial: d.dial}).serveConn(t.Context(), far)
		send(t, near, greetNone+connect("slow.test", 80))
		<-time.After(time.Hour)
		near.Close()
		if err := <-d.ended; !errors.Is(err, errHungUp) {
			t.Errorf("Dial was ended by %v", err)
		}
		synctest.Wait()
	})
}

// Neither a long Dial nor a silent stream falls to the handshake's deadline.
func TestNoDeadlineAfterHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
			select {
			case <-time.After(time.Hour):
				return dialEcho(ctx, r)
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}}
		near, far := memoryPipe()
		defer near.Close()
		go New(cfg).serveConn(t.Context(), far)
		send(t, near, greetNone+connect("slow.test", 80))
		expect(t, near, choseNone+connected)
		for range 3 {
			<-time.After(time.Hour)
			send(t, near, "ping")
			expect(t, near, "ping")
		}
		near.CloseWrite()
		expect(t, near, "")
		synctest.Wait()
	})
}

// A client that does not take its reply is not waited for longer than the handshake may last.
func TestReplyTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := memoryPipe()
		defer near.Close()
		cfg := Config{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
			far.Write(make([]byte, memoryBuffer-len(choseNone))) // its window is full
			return dialEcho(ctx, r)
		}}
		send(t, near, greetNone+connect("a", 1))
		start := time.Now()
		New(cfg).serveConn(t.Context(), far)
		if took := time.Since(start); took != DefaultHandshakeTimeout {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestPanicInDial(t *testing.T) {
	log := newRecorder(slog.LevelInfo)
	cfg := Config{Log: slog.New(log), Dial: func(_ context.Context, r Request) (net.Conn, error) {
		panic("for " + r.Target + " by " + r.User + r.Password)
	}}
	got := converse(t, cfg, greetLogin+login+connect("web.test", 80))
	if want := choseLogin + failed(1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	text := log.String()
	if !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "TestPanicInDial") || !strings.Contains(text, "panic=string") {
		t.Errorf("log: %s", text)
	}
	for _, secret := range []string{"web.test", "user", "secret"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the log: %s", secret, text)
		}
	}
}

// At info level, nothing of what clients do is logged; credentials are at no level.
func TestLogIsDiscreet(t *testing.T) {
	everything, info := newRecorder(slog.LevelDebug-4), newRecorder(slog.LevelInfo)
	for _, log := range []*recorder{everything, info} {
		refuse := func(_ context.Context, r Request) (net.Conn, error) {
			return nil, errors.New("cannot reach " + r.Target)
		}
		for _, in := range []string{"", "\x04", "GET / ", "\x16", greetNone, greetLogin + login,
			greetLogin + login + connect("web.test", 80), greetLogin + login + connect("web test", 80)} {
			converse(t, Config{Dial: refuse, Log: slog.New(log)}, in)
			converse(t, Config{Dial: dialEcho, Log: slog.New(log)}, in)
		}
	}
	if info.String() != "" {
		t.Errorf("log at info level: %s", info)
	}
	if text := everything.String(); strings.Contains(text, "secret") || strings.Contains(text, "user") || !strings.Contains(text, "web.test") {
		t.Errorf("log at debug level: %s", text)
	}
}
