package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/mux"
)

// session builds a circuit and serves the client's end of it until the test ends.
func (b *bed) session(path ...int) *mux.Session {
	b.t.Helper()
	s, codec := b.build(path...)
	session := mux.NewSession(mux.Config{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		session.Run(s, codec)
	}()
	b.done = append(b.done, func() { session.Close(nil); <-ended })
	return session
}

// begin opens a stream that the exit has connected.
func (b *bed) begin(s *mux.Session) *mux.Stream {
	b.t.Helper()
	st, err := s.Open(wire.KindTCP, "198.41.0.4:80")
	if err == nil {
		err = st.Connected(b.t.Context())
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

// destination is the exit's end of a connection in virtual time. It notes whether it was aborted.
type destination struct {
	net.Conn
	aborted atomic.Bool
	closed  chan struct{}
	once    sync.Once
}

func (d *destination) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Conn.Close()
}

func (d *destination) SetLinger(sec int) error {
	d.aborted.Store(sec == 0)
	return nil
}

// exitTo lets relay 1 be an exit whose connections are all given to accept.
func exitTo(t *testing.T, accept func(exit *destination, there net.Conn)) func(int, *Config) {
	return func(i int, c *Config) {
		if i != 1 {
			return
		}
		c.Policy = policy(t, "accept *:*")
		c.Dial = func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			d := &destination{Conn: here, closed: make(chan struct{})}
			accept(d, there)
			return d, nil
		}
	}
}

// TestLastBytes ends a stream and then its circuit while the destination has yet to take what the client
// sent: it gets all of it, and a proper end.
func TestLastBytes(t *testing.T) {
	var exit *destination
	var there net.Conn
	configure := exitTo(t, func(d *destination, c net.Conn) { exit, there = d, c })
	onBed(t, 2, configure, func(b *bed) {
		session := b.session(0, 1)
		st := b.begin(session)
		sent := bytes.Repeat([]byte("last bytes "), 10000)
		if _, err := st.Write(sent); err != nil {
			t.Error(err)
			return
		}
		st.Close()
		<-time.After(time.Second) // all of it is at the exit
		session.Close(nil)
		<-time.After(time.Second)
		got, err := io.ReadAll(there)
		if err != nil || !bytes.Equal(got, sent) || exit.aborted.Load() {
			t.Errorf("the destination got %d bytes of %d, %v, aborted: %v", len(got), len(sent), err, exit.aborted.Load())
		}
	})
}

// TestCutShort destroys a circuit in the middle of an upload: the destination must not take what it got
// for the whole.
func TestCutShort(t *testing.T) {
	var exit *destination
	var there net.Conn
	configure := exitTo(t, func(d *destination, c net.Conn) { exit, there = d, c })
	onBed(t, 2, configure, func(b *bed) {
		session := b.session(0, 1)
		st := b.begin(session)
		st.Write([]byte("half of it"))
		if _, err := io.ReadFull(there, make([]byte, 10)); err != nil {
			t.Error(err)
		}
		session.Close(nil)
		if _, err := io.ReadAll(there); err != nil {
			t.Error(err)
		}
		if !exit.aborted.Load() {
			t.Error("the connection was closed as if all had arrived")
		}
	})
}

// TestStalledDestination checks that a destination that takes nothing holds a gone client's connection for
// a while and no longer, and a stopping relay not at all.
func TestStalledDestination(t *testing.T) {
	for name, test := range map[string]struct {
		stop  bool
		after time.Duration
	}{
		"client gone":   {false, lingerTimeout},
		"relay stopped": {true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var exit *destination
			configure := exitTo(t, func(d *destination, _ net.Conn) { exit = d })
			onBed(t, 2, configure, func(b *bed) {
				st := b.begin(b.session(0, 1))
				st.Write(make([]byte, 100000))
				<-time.After(time.Second)
				began := time.Now()
				st.Close()
				if test.stop {
					b.stop()
				}
				<-exit.closed
				if took := time.Since(began).Truncate(time.Second); took != test.after {
					t.Errorf("closed after %v, want %v", took, test.after)
				}
			})
		})
	}
}

// refusing is a destination that says what it has to say and takes no more than a little.
type refusing struct {
	net.Conn
	answer io.Reader
	wrote  chan struct{} // closed by the write that fails
}

func (r *refusing) Write([]byte) (int, error) {
	close(r.wrote)
	return 0, &net.OpError{Op: "write", Err: syscall.EPIPE}
}

func (r *refusing) Read(p []byte) (int, error) {
	<-r.wrote
	<-time.After(time.Millisecond)
	return r.answer.Read(p)
}

// TestEarlyAnswer lets a destination answer an upload that it does not take: the client gets the answer,
// and learns that the rest was not taken. After the system has reported a reset to the writer, the reader
// sees a plain end.
func TestEarlyAnswer(t *testing.T) {
	answer := bytes.Repeat([]byte("too large "), 50000)
	configure := func(i int, c *Config) {
		c.Policy = policy(t, "accept *:*")
		c.Dial = func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			there.Close()
			return &refusing{Conn: here, answer: bytes.NewReader(answer), wrote: make(chan struct{})}, nil
		}
	}
	onBed(t, 2, configure, func(b *bed) {
		st := b.begin(b.session(0, 1))
		if _, err := st.Write(make([]byte, 10000)); err != nil {
			t.Error(err)
		}
		got, err := io.ReadAll(st)
		if !bytes.Equal(got, answer) {
			t.Errorf("got %d bytes of %d", len(got), len(answer))
		}
		var end *wire.EndError
		if !errors.As(err, &end) || end.Reason != wire.ReasonReset {
			t.Errorf("the stream ended with %v, want %v", err, wire.ReasonReset)
		}
		st.Close()
	})
}
