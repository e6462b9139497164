package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/wire"
)

// conn is a connection of an application. Most have one stream, which was connected before they were made.
// One that Dial returned early is not settled at first: a goroutine waits for the exit's answer, and as
// long as the application has written nothing the connection may move to another circuit:
//
//	Dial ---> waiting --- CONNECTED -------------------------------> settled: it stays where it is
//	            ^  |                                                    ^
//	            |  +----- END, time-out, circuit gone ---- too late ----+  with an error
//	            |                                     |
//	            +------------- moving <---------------+
//
// Reads wait until it is settled, since nothing comes before CONNECTED. Writes wait for a move only, and
// end all moving.
type conn struct {
	errand *errand // the watcher's until it is settled

	heard atomic.Bool // a byte has come

	mu       sync.Mutex
	leg      *leg               // fixed once settled
	settled  chan struct{}      // closed when it is
	cancel   context.CancelFunc // of the watcher; nil if there was none
	err      error              // why it never was connected; fixed once settled
	broke    error              // why it was cut: the first such error
	moving   chan struct{}      // closed after the move; nil while there is none
	wrote    bool               // a byte of the application may have left
	finished bool               // CloseWrite was called
	eof      bool               // the destination has closed
	closed   bool               // Close was called
	bounds   bounds             // of what does not wait on the stream
}

// alwaysSettled is of connections whose stream was connected before.
var alwaysSettled = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// errUnanswered is why a connection failed that was closed before it was settled.
var errUnanswered = errors.New("proxy: closed before there was an answer")

// standing makes the connection of a stream that is connected.
func standing(e *errand, l *leg) *conn { return &conn{errand: e, leg: l, settled: alwaysSettled} }

// early makes the connection of a stream that has been begun, and starts what watches it until it is
// settled; nil if the proxy has stopped.
func early(e *errand, l *leg) *conn {
	ctx, cancel := context.WithCancel(e.proxy.alive)
	c := &conn{errand: e, leg: l, settled: make(chan struct{}), cancel: cancel}
	if !e.proxy.pool.whileOpen(func() { c.watch(ctx, l) }) {
		cancel()
		return nil
	}
	return c
}

// watch waits for the exit's answer, and moves the connection as long as that may help. ctx ends with Close.
func (c *conn) watch(ctx context.Context, l *leg) {
	defer c.cancel()
	e := c.errand
	for {
		err := e.await(ctx, l)
		if err == nil {
			c.settle(nil)
			return
		}
		if !c.leave(err, ctx.Err() == nil && e.again(err, l.held)) {
			return
		}
		moving, cancel := context.WithTimeout(ctx, dialTimeout)
		err = e.run(moving, func(h *held) (err error) {
			l, err = e.begin(moving, h)
			return err
		})
		cancel()
		if err != nil {
			c.settle(err)
			return
		}
		c.move(l)
	}
}

// leave gives up a stream that failed. It reports whether the connection moves; if not, it is settled.
func (c *conn) leave(err error, again bool) (moves bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.errand.drop(c.leg)
	}
	if c.closed || c.wrote || !again {
		c.settleLocked(c.errand.explain(err))
		return false
	}
	c.moving = make(chan struct{})
	return true
}

// move ends a move with the new stream.
func (c *conn) move(l *leg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leg = l
	l.conn.SetReadDeadline(c.bounds.read)
	l.conn.SetWriteDeadline(c.bounds.write)
	if c.finished {
		l.conn.CloseWrite()
	}
	if c.closed {
		l.conn.Close()
	}
	close(c.moving)
	c.moving = nil
}

func (c *conn) settle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked(err)
}

// settleLocked ends the waiting: the stream stays what it is, or there is none. c.mu is held.
func (c *conn) settleLocked(err error) {
	e := c.errand
	switch {
	case err == nil:
		e.connected(OutcomeConnected)
	case c.closed:
		c.err = net.ErrClosed
		e.failed(errUnanswered)
	default:
		c.err = err
		e.failed(err)
	}
	if c.moving != nil {
		close(c.moving)
		c.moving = nil
	}
	close(c.settled)
}

// answered waits until the connection is settled, and returns its stream.
func (c *conn) answered() (*circuit.Conn, error) {
	if err := c.wait(c.settled, (*bounds).untilRead); err != nil {
		return nil, err
	}
	return c.leg.conn, c.err
}

// writable waits for the end of a move, and returns the stream to write to. There is no move after that.
func (c *conn) writable() (*circuit.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.moving != nil {
		moving := c.moving
		c.mu.Unlock()
		err := c.wait(moving, (*bounds).untilWrite)
		c.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	c.wrote = true
	return c.leg.conn, c.err
}

// wait waits for done or a deadline, which may be set anew meanwhile.
func (c *conn) wait(done <-chan struct{}, until func(*bounds) (<-chan time.Time, <-chan struct{})) error {
	for {
		select {
		case <-done:
			return nil
		default:
		}
		c.mu.Lock()
		passed, changed := until(&c.bounds)
		c.mu.Unlock()
		select {
		case <-done:
		case <-changed:
		case <-passed:
			return os.ErrDeadlineExceeded
		}
	}
}

// Read implements net.Conn. After the destination's last byte it returns io.EOF; when the connection was
// refused or cut, an *Error.
func (c *conn) Read(p []byte) (int, error) {
	s, err := c.answered()
	if err != nil {
		return 0, err
	}
	n, err := s.Read(p)
	c.hear(n)
	return n, c.over(err)
}

// WriteTo implements io.WriterTo.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	s, err := c.answered()
	if err != nil {
		return 0, err
	}
	n, err := s.WriteTo(hearing{w, c})
	if err == nil {
		c.over(io.EOF)
	}
	return n, c.over(err)
}

// hearing is a writer that notes the first byte.
type hearing struct {
	io.Writer
	conn *conn
}

func (h hearing) Write(p []byte) (int, error) {
	h.conn.hear(len(p))
	return h.Writer.Write(p)
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s, err := c.writable()
	if err != nil {
		return 0, err
	}
	n, err := s.Write(p)
	return n, c.over(err)
}

// ReadFrom implements io.ReaderFrom. A source that has given nothing yet must not keep the connection from
// moving.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	first := 0
	if c.movable() {
		buf := make([]byte, wire.MaxBody)
		n, err := r.Read(buf)
		if n > 0 {
			var writeErr error
			if first, writeErr = c.Write(buf[:n]); writeErr != nil {
				err = writeErr
			}
		}
		if err == io.EOF {
			return int64(first), nil
		}
		if err != nil {
			return int64(first), err
		}
	}
	s, err := c.writable()
	if err != nil {
		return int64(first), err
	}
	n, err := s.ReadFrom(r)
	return int64(first) + n, c.over(err)
}

func (c *conn) movable() bool {
	select {
	case <-c.settled:
		return false
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.wrote
	}
}

// hear notes the first byte.
func (c *conn) hear(n int) {
	if n == 0 || c.heard.Load() || c.heard.Swap(true) {
		return
	}
	c.errand.trace.firstByte(c.leg)
}

// over notes the end of the connection, and says which hop it comes from. What the application did itself,
// and deadlines, are as they were.
func (c *conn) over(err error) error {
	if err == io.EOF {
		c.mu.Lock()
		c.eof = true
		c.mu.Unlock()
		return err
	}
	if !foreign(err) {
		return err
	}
	<-c.settled // at once: what a write meets is the watcher's news too
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case c.closed:
		return err
	}
	explained := c.errand.explain(err)
	if c.broke == nil {
		c.broke = explained
		c.errand.trace.broke(c.leg, explained)
	}
	return explained
}

// foreign reports whether a stream's error comes from the exit or the circuit.
func foreign(err error) bool {
	end, ok := errors.AsType[*wire.EndError](err)
	return ok && end.Remote || errors.Is(err, circuit.ErrClosed)
}

// unanswered returns why the connection got no answer; nil: it has had one, or has not failed.
func (c *conn) unanswered() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.heard.Load():
		return nil
	case c.err != nil && c.err != net.ErrClosed:
		return c.err
	case c.broke != nil:
		return c.broke
	case c.eof:
		reason := wire.ReasonReset // the destination has closed without a word
		if c.errand.req.Kind == wire.KindHTTP {
			reason = wire.ReasonInternal // the exit should have said why there is no response
		}
		return c.errand.explain(&wire.EndError{Reason: reason, Remote: true})
	default:
		return nil
	}
}

// CloseWrite tells the destination that no more will be written; reading goes on.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = true
	if c.moving != nil {
		return nil
	}
	if c.err != nil {
		return c.err
	}
	return c.leg.conn.CloseWrite()
}

// Close ends the connection. What was written is delivered.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.cancel != nil {
		c.cancel()
	}
	return c.leg.conn.Close()
}

// LocalAddr and RemoteAddr return the unspecified TCP address: neither end has one that the other knows.
func (c *conn) LocalAddr() net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leg.conn.LocalAddr()
}

// RemoteAddr is described at LocalAddr.
func (c *conn) RemoteAddr() net.Addr { return c.LocalAddr() }
