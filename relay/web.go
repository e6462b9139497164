package relay

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"torproxy/wire"
)

// web is a circuit's HTTP client: net/http's Transport over the exit's dialer, with a pool of connections
// that no other circuit shares. (From a shared one a destination, or a neighbour, could tell that two
// circuits went the same way.) No proxy of the environment, no redirects, no cookies, no cache, nothing
// added to a request. Its methods may be called from any goroutine.
type web struct {
	hop       *lastHop
	transport *http.Transport

	mu     sync.Mutex
	conns  map[*webConn]struct{}
	closed bool
	dials  sync.WaitGroup
}

func newWeb(h *lastHop) *web {
	w := &web{hop: h, conns: map[*webConn]struct{}{}}
	w.transport = &http.Transport{
		DialContext:            w.dial,
		DisableCompression:     true, // else it asks for gzip, and takes it off
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTimeout,
		ResponseHeaderTimeout:  replyTimeout,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: maxReplyHead,
	}
	return w
}

// dialError is how a dial's reason passes through net/http.
type dialError struct{ reason wire.Reason }

func (e *dialError) Error() string { return "relay: " + e.reason.String() }

// wanting is where a dial finds the context of the request that wants it.
type wanting struct{}

// roundTrip sends a request, whose context ends with the circuit at the latest, and returns the reply.
func (w *web) roundTrip(req *http.Request) (*http.Response, error) {
	return w.transport.RoundTrip(req.WithContext(context.WithValue(req.Context(), wanting{}, req.Context())))
}

// dial makes a connection for the pool. net/http would go on with it when the request that wanted it is
// gone, for the next one. But a client may have any number of streams one behind the other, and must not
// have as many connections on their way: so it ends with its request.
func (w *web) dial(ctx context.Context, _, address string) (net.Conn, error) {
	if !w.begin() {
		return nil, context.Canceled
	}
	defer w.dials.Done()
	r := w.hop.relay
	if r.exits.Add(1) > maxExits {
		r.exits.Add(-1)
		return nil, &dialError{wire.ReasonResourceLimit}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx.Value(wanting{}).(context.Context), cancel)()
	conn, reason := r.dialer.dial(ctx, w.hop.names, address)
	if conn == nil {
		r.exits.Add(-1)
		return nil, &dialError{reason}
	}
	return w.add(conn), nil
}

// begin counts a dial; false when the circuit is over.
func (w *web) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.dials.Add(1)
	}
	return !w.closed
}

func (w *web) add(conn net.Conn) *webConn {
	c := &webConn{Conn: conn, web: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = struct{}{}
	return c
}

// release takes a connection out of those that end with the circuit.
func (w *web) release(c *webConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// close ends every connection. The circuit's context has ended and its streams are served.
func (w *web) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.dials.Wait()
	w.transport.CloseIdleConnections()
	w.mu.Lock()
	left := w.conns
	w.conns = nil
	w.mu.Unlock()
	for c := range left {
		c.Close()
	}
}

// webConn is a connection of the pool. It fails when nothing has moved in either direction for quietTimeout,
// until it is a byte pipe.
type webConn struct {
	net.Conn
	web    *web
	user   atomic.Pointer[exchange] // who uses it, or did so last
	piped  atomic.Bool
	quiet  atomic.Bool // it has failed because nothing moved
	closed atomic.Bool
}

func (c *webConn) Read(p []byte) (int, error) {
	c.moved()
	n, err := c.Conn.Read(p)
	return n, c.note(err)
}

func (c *webConn) Write(p []byte) (int, error) {
	c.moved()
	n, err := c.Conn.Write(p)
	return n, c.note(err)
}

func (c *webConn) note(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.quiet.Store(true)
	}
	return err
}

func (c *webConn) moved() {
	if !c.piped.Load() {
		c.Conn.SetDeadline(time.Now().Add(quietTimeout))
	}
}

// pipe makes the connection one that may be quiet, and whose end is that of its pipe.
func (c *webConn) pipe() {
	c.web.release(c)
	c.piped.Store(true)
	c.Conn.SetDeadline(time.Time{})
}

func (c *webConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.web.release(c)
		c.web.hop.relay.exits.Add(-1)
		if x := c.user.Load(); x != nil {
			x.lost(c)
		}
	}
	return c.Conn.Close()
}

// CloseWrite closes one direction, where the connection can.
func (c *webConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetLinger makes Close break the connection; see abort.
func (c *webConn) SetLinger(sec int) error {
	if tcp, ok := c.Conn.(interface{ SetLinger(sec int) error }); ok {
		return tcp.SetLinger(sec)
	}
	return errors.ErrUnsupported
}
