package socks

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memoryConn is one end of a connection in memory: buffered, half-closable, resettable, with deadlines
// that follow virtual time, so that tests need no socket and can be exact about time and order.
type memoryConn struct {
	in, out *memoryHalf
	linger  int
}

// memoryHalf is one direction. All fields are guarded by mu; cond tells of every change.
type memoryHalf struct {
	mu       sync.Mutex
	cond     sync.Cond
	buf      []byte
	ended    bool // by the writer: EOF after buf
	reset    bool // by the writer: an error after buf
	unwanted bool // the reader has closed
	closed   bool // the writer has closed

	readLate, writeLate   bool // a deadline has passed
	readTimer, writeTimer *time.Timer
}

// memoryBuffer is how much a direction holds before writing blocks.
const memoryBuffer = 64 << 10

func memoryPipe() (a, b *memoryConn) {
	x, y := new(memoryHalf), new(memoryHalf)
	x.cond.L, y.cond.L = &x.mu, &y.mu
	return &memoryConn{in: x, out: y, linger: -1}, &memoryConn{in: y, out: x, linger: -1}
}

// change runs f under the lock and wakes everyone.
func (h *memoryHalf) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.cond.Broadcast()
}

func (c *memoryConn) Read(p []byte) (int, error) {
	h := c.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.unwanted:
			return 0, net.ErrClosed
		case h.readLate:
			return 0, os.ErrDeadlineExceeded
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.cond.Broadcast()
			return n, nil
		case h.reset: // told once, as kernels do
			h.reset, h.ended = false, true
			return 0, syscall.ECONNRESET
		case h.ended:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

func (c *memoryConn) Write(p []byte) (n int, err error) {
	h := c.out
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.closed || h.ended:
			return n, net.ErrClosed
		case h.writeLate:
			return n, os.ErrDeadlineExceeded
		case h.unwanted || h.reset:
			return n, syscall.EPIPE
		case len(p) == 0:
			return n, nil
		}
		if k := min(len(p), memoryBuffer-len(h.buf)); k > 0 {
			h.buf = append(h.buf, p[:k]...)
			n, p = n+k, p[k:]
			h.cond.Broadcast()
			continue
		}
		h.cond.Wait()
	}
}

func (c *memoryConn) CloseWrite() error {
	c.out.change(func() { c.out.ended = true })
	return nil
}

func (c *memoryConn) SetLinger(sec int) error {
	c.out.change(func() { c.linger = sec })
	return nil
}

// Close loses what is on its way if bytes are left unread, as a kernel may.
func (c *memoryConn) Close() error {
	unread := false
	c.in.change(func() {
		unread = len(c.in.buf) > 0
		c.in.unwanted, c.in.buf = true, nil
	})
	c.out.change(func() {
		if unread {
			c.out.reset, c.out.buf = true, nil
		}
		if !c.out.ended && c.linger == 0 {
			c.out.reset = true
		}
		c.out.closed, c.out.ended = true, !c.out.reset
	})
	return c.SetDeadline(time.Time{})
}

// drained waits until the other end has read everything.
func (c *memoryConn) drained() {
	h := c.out
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) > 0 {
		h.cond.Wait()
	}
}

// Reset closes the connection so that the other end's reads fail.
func (c *memoryConn) Reset() {
	c.SetLinger(0)
	c.Close()
}

func (c *memoryConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t, &c.in.readLate, &c.in.readTimer)
	return nil
}

func (c *memoryConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(t, &c.out.writeLate, &c.out.writeTimer)
	return nil
}

func (h *memoryHalf) setDeadline(t time.Time, late *bool, timer **time.Timer) {
	h.change(func() {
		if *timer != nil {
			(*timer).Stop()
			*timer = nil
		}
		*late = !t.IsZero() && !t.After(time.Now())
		if t.IsZero() || *late {
			return
		}
		var mine *time.Timer
		mine = time.AfterFunc(time.Until(t), func() {
			h.change(func() { *late = *late || *timer == mine })
		})
		*timer = mine
	})
}

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

func (c *memoryConn) LocalAddr() net.Addr  { return memoryAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr { return memoryAddr{} }

// memoryListener hands out the far ends of connections made by its dial. An error can be queued for
// Accept as well.
type memoryListener struct {
	queue  chan any // *memoryConn or error
	closed chan struct{}
	once   sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{queue: make(chan any, 64), closed: make(chan struct{})}
}

func (l *memoryListener) dial() *memoryConn {
	near, far := memoryPipe()
	l.queue <- far
	return near
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	case v := <-l.queue:
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v.(*memoryConn), nil
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memoryListener) Addr() net.Addr { return memoryAddr{} }
