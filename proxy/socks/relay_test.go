package socks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"torproxy/wire"
)

// tunnel serves one connection up to its connected reply. It returns the client's end and the
// destination's, and a channel that is closed when the connection has been served.
func tunnel(t *testing.T, cfg Config, wrap func(*memoryConn) net.Conn) (client, dest *memoryConn, done chan struct{}) {
	t.Helper()
	client, accepted := memoryPipe()
	stream, dest := memoryPipe()
	cfg.Dial = func(context.Context, Request) (net.Conn, error) { return wrap(stream), nil }
	done = make(chan struct{})
	go func() {
		defer close(done)
		New(cfg).serveConn(t.Context(), accepted)
	}()
	t.Cleanup(func() {
		client.Close()
		dest.Close()
		<-done
	})
	send(t, client, greetNone+connect("web.test", 80))
	expect(t, client, choseNone+connected)
	return client, dest, done
}

func plain(c *memoryConn) net.Conn { return c }

func TestHalfClose(t *testing.T) {
	t.Run("client first", func(t *testing.T) {
		client, dest, done := tunnel(t, Config{}, plain)
		send(t, client, "request")
		client.CloseWrite()
		if got, err := io.ReadAll(dest); string(got) != "request" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		send(t, dest, "answer")
		expect(t, client, "answer")
		send(t, dest, " and more")
		dest.CloseWrite()
		if got, err := io.ReadAll(client); string(got) != " and more" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		<-done
	})
	t.Run("destination first", func(t *testing.T) {
		client, dest, done := tunnel(t, Config{}, plain)
		send(t, dest, "banner")
		dest.CloseWrite()
		if got, err := io.ReadAll(client); string(got) != "banner" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		send(t, client, "still")
		expect(t, dest, "still")
		send(t, client, " here")
		client.CloseWrite()
		if got, err := io.ReadAll(dest); string(got) != " here" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		<-done
	})
}

// What breaks off at one end must not look like an end at the other.
func TestBreakOff(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		client, dest, done := tunnel(t, Config{}, func(c *memoryConn) net.Conn { c.SetLinger(0); return c })
		send(t, client, "half a req")
		expect(t, dest, "half a req")
		client.Reset()
		<-done
		if _, err := io.ReadAll(dest); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the destination saw %v", err)
		}
	})
	t.Run("destination", func(t *testing.T) {
		client, dest, done := tunnel(t, Config{}, plain)
		send(t, dest, "half an ans")
		expect(t, client, "half an ans")
		dest.Reset()
		<-done
		if _, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client saw %v", err)
		}
	})
}

// A stream that was given out before the exit's answer, which then was no, breaks off: it must not look
// like an empty one.
func TestLateRefusal(t *testing.T) {
	client, _, done := tunnel(t, Config{}, func(c *memoryConn) net.Conn { return refusedConn{c} })
	io.WriteString(client, "request")
	if got, err := io.ReadAll(client); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %q, %v", got, err)
	}
	<-done
}

// refusedConn is what an exit's refusal makes of a stream.
type refusedConn struct{ *memoryConn }

func (refusedConn) Read([]byte) (int, error) {
	return 0, &wire.EndError{Reason: wire.ReasonRefused, Remote: true}
}

// A destination that answers early and takes no more (END, STOP_SENDING) must not cost the client the
// answer, however late that comes.
func TestEarlyAnswer(t *testing.T) {
	for name, wrap := range map[string]func(*memoryConn) net.Conn{
		"plain":      func(c *memoryConn) net.Conn { return deafConn{c} },
		"ReaderFrom": func(c *memoryConn) net.Conn { return deafReaderFrom{deafConn{c}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, dest, done := tunnel(t, Config{}, wrap)
				send(t, client, strings.Repeat("upload", bufferSize)[:3*bufferSize])
				synctest.Wait()
				send(t, dest, "413 too large")
				dest.CloseWrite()
				synctest.Wait() // only now the client reads
				if got, err := io.ReadAll(client); string(got) != "413 too large" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				client.Close()
				<-done
			})
		})
	}
}

// deafConn takes no bytes.
type deafConn struct{ *memoryConn }

func (deafConn) Write([]byte) (int, error) { return 0, &wire.EndError{Reason: wire.ReasonDone} }

type deafReaderFrom struct{ deafConn }

func (c deafReaderFrom) ReadFrom(r io.Reader) (int64, error) {
	if _, err := r.Read(make([]byte, 10)); err != nil {
		return 0, err
	}
	return 10, &wire.EndError{Reason: wire.ReasonDone}
}

// uncloseable cannot be half-closed.
type uncloseable struct{ net.Conn }

func TestStreamWithoutHalfClose(t *testing.T) {
	client, dest, done := tunnel(t, Config{}, func(c *memoryConn) net.Conn { return uncloseable{c} })
	send(t, client, "request")
	client.CloseWrite()
	if got, err := io.ReadAll(dest); string(got) != "request" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	<-done
}

// A stream's own methods for copying are used, and all of a larger transfer arrives whichever way it goes.
func TestLargeTransfer(t *testing.T) {
	var readFrom, writeTo atomic.Bool
	wraps := map[string]func(net.Conn) net.Conn{
		"sockets":        func(c net.Conn) net.Conn { return c },
		"pooled buffers": func(c net.Conn) net.Conn { return halfCloser{c, c.(*net.TCPConn)} },
		"own ReadFrom":   func(c net.Conn) net.Conn { return ownReadFrom{halfCloser{c, c.(*net.TCPConn)}, &readFrom} },
		"own WriteTo":    func(c net.Conn) net.Conn { return ownWriteTo{halfCloser{c, c.(*net.TCPConn)}, &writeTo} },
	}
	for name, wrap := range wraps {
		t.Run(name, func(t *testing.T) {
			addr, dest := serveTo(t, wrap)
			exchange(t, addr, dest, 8<<20)
		})
	}
	if !readFrom.Load() || !writeTo.Load() {
		t.Errorf("ReadFrom used: %v, WriteTo used: %v", readFrom.Load(), writeTo.Load())
	}
}

// halfCloser is a stream over TCP that does not look like a socket.
type halfCloser struct {
	net.Conn
	tcp *net.TCPConn
}

func (c halfCloser) CloseWrite() error { return c.tcp.CloseWrite() }

type ownReadFrom struct {
	halfCloser
	used *atomic.Bool
}

func (c ownReadFrom) ReadFrom(r io.Reader) (int64, error) {
	c.used.Store(true)
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

type ownWriteTo struct {
	halfCloser
	used *atomic.Bool
}

func (c ownWriteTo) WriteTo(w io.Writer) (int64, error) {
	c.used.Store(true)
	return io.Copy(w, struct{ io.Reader }{c.Conn})
}

// serveTo serves SOCKS on TCP with all streams going to one listener.
func serveTo(t testing.TB, wrap func(net.Conn) net.Conn) (addr string, dest net.Listener) {
	t.Helper()
	dest, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dest.Close() })
	addr = serveTCP(t, Config{Dial: func(ctx context.Context, _ Request) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", dest.Addr().String())
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}})
	return addr, dest
}

// exchange sends size random bytes each way at once through the server and compares.
func exchange(t *testing.T, addr string, dest net.Listener, size int) {
	up, down := make([]byte, size), make([]byte, size+1)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(up)
	random.Read(down)
	client, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	send(t, client, greetNone+connect("web.test", 80))
	expect(t, client, choseNone+connected)
	server, err := dest.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	transfer := func(from, to net.Conn, data []byte) {
		var wg sync.WaitGroup
		wg.Go(func() {
			from.Write(data)
			from.(*net.TCPConn).CloseWrite()
		})
		got := sha256.New()
		n, err := io.Copy(got, to)
		wg.Wait()
		if want := sha256.Sum256(data); err != nil || !bytes.Equal(got.Sum(nil), want[:]) {
			t.Errorf("%d of %d bytes, or others: %v", n, len(data), err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { transfer(client, server, up) })
	wg.Go(func() { transfer(server, client, down) })
	wg.Wait()
}

// panicConn panics in the chosen method, which go-socks5 calls in goroutines of its own.
type panicConn struct {
	*memoryConn
	in string
}

func (c panicConn) Read(p []byte) (int, error) {
	if c.in == "Read" {
		panic("read by user secret")
	}
	return c.memoryConn.Read(p)
}

func (c panicConn) Write(p []byte) (int, error) {
	if c.in == "Write" {
		return 0, errors.New(string(p[:len(p)+1<<20])) // the runtime's own panic
	}
	return c.memoryConn.Write(p)
}

func (c panicConn) CloseWrite() error {
	if c.in == "CloseWrite" {
		panic("closed by user secret")
	}
	return c.memoryConn.CloseWrite()
}

func (c panicConn) Close() error {
	c.memoryConn.Close()
	if c.in == "Close" {
		panic(errors.New("closed by user secret"))
	}
	return nil
}

func TestPanicInStream(t *testing.T) {
	for _, method := range []string{"Read", "Write", "CloseWrite", "Close"} {
		t.Run(method, func(t *testing.T) {
			log := newRecorder(slog.LevelInfo)
			client, dest, done := tunnel(t, Config{Log: slog.New(log)}, func(c *memoryConn) net.Conn { return panicConn{c, method} })
			io.WriteString(client, "request")
			client.CloseWrite()
			if method == "Close" { // the others must come to an end without the destination
				dest.Close()
			}
			<-done
			text := log.String()
			if strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "panicConn."+method) {
				t.Errorf("log: %s", text)
			}
			if strings.Contains(text, "secret") || method == "Write" && !strings.Contains(text, "out of range") {
				t.Errorf("log: %s", text)
			}
		})
	}
}
