package frontdoor

import (
	"log/slog"
	"net"
	"sync"
	"time"
)

// warnEvery is how often it is logged at most that every connection is in use: clients can cause it.
const warnEvery = time.Minute

// limitListener returns l with at most n accepted connections open at once. While there are n, Accept
// waits: new connections stand in the kernel's queue, which is bounded too. Idle ones give up their place
// after idleTimeout.
func limitListener(l net.Listener, n int, log *slog.Logger) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{}), log: log}
}

type limited struct {
	net.Listener
	slots  chan struct{} // one element per open connection
	closed chan struct{}
	once   sync.Once
	log    *slog.Logger
	warned time.Time // belongs to the one goroutine that accepts
}

func (l *limited) Accept() (net.Conn, error) {
	if err := l.take(); err != nil {
		return nil, err
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &clientConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

// take waits for a free slot.
func (l *limited) take() error {
	select {
	case l.slots <- struct{}{}:
		return nil
	default:
	}
	if now := time.Now(); l.warned.IsZero() || now.Sub(l.warned) >= warnEvery {
		l.warned = now
		l.log.Warn("every connection of the HTTP front door is in use; new ones wait", "limit", cap(l.slots))
	}
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-l.closed:
		return net.ErrClosed
	}
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// clientConn is an accepted connection; closing it gives its slot back.
type clientConn struct {
	net.Conn
	release func()
}

func (c *clientConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// CloseWrite ends the direction towards the client. net/http looks for it too.
func (c *clientConn) CloseWrite() error { return closeWrite(c.Conn) }

// SetLinger passes on to a TCP connection what abort wants of it.
func (c *clientConn) SetLinger(sec int) error {
	if l, ok := c.Conn.(lingerer); ok {
		return l.SetLinger(sec)
	}
	return nil
}
