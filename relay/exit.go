package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/onion"
)

// lastHop is one circuit's end at an exit: what its streams share. Nothing of it is shared with another
// circuit.
type lastHop struct {
	relay   *Relay
	ctx     context.Context // ends with the circuit
	peer    wire.ID         // where the circuit came from
	names   *names
	web     *web
	session *mux.Session
	streams sync.WaitGroup
	heads   atomic.Int64 // requests of kind http that are being read
}

// serveLast answers "ready" and serves the circuit's streams until it ends.
func (c *circuit) serveLast(ctx context.Context) {
	keys, err := c.answer(wire.StatusReady, nil)
	if err != nil {
		return
	}
	r := c.relay
	ctx, cancel := context.WithCancel(ctx)
	h := &lastHop{relay: r, ctx: ctx, peer: c.prev.Link().Peer(), names: r.dialer.names(ctx)}
	h.web = newWeb(h)
	defer h.names.close()
	defer h.web.close()
	defer h.streams.Wait()
	defer cancel()
	session := mux.NewSession(mux.Config{
		Budget: r.budget,
		Accept: func(st *mux.Stream) { h.streams.Go(func() { h.serve(st) }) },
	})
	h.session = session
	stop := context.AfterFunc(ctx, func() { session.Close(nil) })
	defer stop()
	err = session.Run(stalling{c.prev, &r.counters}, &exitCodec{
		outward: onion.NewLayer(&keys.Forward, wire.CellSize),
		inward:  onion.NewLayer(&keys.Backward, wire.CellSize),
		trace:   r.cfg.Trace,
	})
	if errors.Is(err, wire.ErrViolation) {
		r.log.Debug("circuit destroyed", "cause", err)
	}
}

// exitCodec is the last hop's end of the onion encryption.
type exitCodec struct {
	outward, inward *onion.Layer
	trace           *Trace
}

func (e *exitCodec) Open(cell []byte) bool {
	if e.trace.Cells != nil {
		e.trace.Cells(true, cell)
	}
	ok := e.outward.Recognise(cell)
	if ok && e.trace.Payload != nil {
		e.trace.Payload(true, cell)
	}
	return ok
}

func (e *exitCodec) Seal(cell []byte) {
	if e.trace.Payload != nil {
		e.trace.Payload(false, cell)
	}
	e.inward.Originate(cell)
}

// stalling is a circuit's stream whose blocked writes end it, and whose cells are counted.
type stalling struct {
	*link.Stream
	counters *counters
}

func (s stalling) Write(cells []byte) (int, error) {
	s.counters.passed(false, cells)
	s.SetWriteDeadline(time.Now().Add(stallTimeout))
	return s.Stream.Write(cells)
}

func (s stalling) ReadCells(f func(cells []byte) error) error {
	return s.Stream.ReadCells(func(cells []byte) error {
		s.counters.passed(true, cells)
		return f(cells)
	})
}

// serve serves what one BEGIN asks for.
func (h *lastHop) serve(st *mux.Stream) {
	defer st.Close()
	reason := wire.ReasonUnsupported
	switch {
	case st.Kind() == wire.KindTCP:
		reason = h.serveTCP(st)
	case st.Kind() == wire.KindHTTP:
		reason = h.serveHTTP(st)
	case st.Kind() == wire.KindResolve:
		reason = h.serveResolve(st)
	case st.Kind() == wire.KindEcho && st.Target() == wire.EchoTarget && h.relay.isAuthority(h.peer):
		reason = h.relay.serveEcho(st)
	}
	if reason != 0 {
		st.End(reason)
	}
	h.relay.counters.stream(st.Kind(), reason)
}

// serveTCP makes the connection that a BEGIN asks for and carries its bytes; reason says why there is none.
func (h *lastHop) serveTCP(st *mux.Stream) (reason wire.Reason) {
	r := h.relay
	if trace := r.cfg.Trace.Begin; trace != nil {
		trace(st.Target())
	}
	defer r.exits.Add(-1)
	if r.exits.Add(1) > maxExits {
		return wire.ReasonResourceLimit
	}
	dialing, cancel := context.WithCancel(h.ctx)
	defer cancel()
	p := &pipe{st: st, in: st}
	st.OnDone(func() {
		cancel() // nobody waits for the connection any more
		p.clientGone()
	})
	conn, reason := r.dialer.dial(dialing, h.names, st.Target())
	if conn == nil {
		return reason
	}
	defer conn.Close()
	st.Connect()
	r.carry(p, conn)
	return 0
}

// carry runs a pipe until both directions have ended, the relay at the latest. The circuit's end is not the
// connection's: what a client sent before it ended is still delivered.
func (r *Relay) carry(p *pipe, conn net.Conn) {
	stop := context.AfterFunc(r.alive, func() { abort(conn) })
	defer stop()
	p.run(conn)
}

// pipe joins a stream and its connection, half close for half close.
type pipe struct {
	st     *mux.Stream
	in     io.WriterTo // what the client sends: st, or a reader of it
	gone   atomic.Bool // nobody waits for an answer: only the client's last bytes are left
	broken atomic.Bool // the destination takes no more

	mu   sync.Mutex
	conn net.Conn
}

func (p *pipe) run(conn net.Conn) {
	p.mu.Lock()
	p.conn = conn
	p.mu.Unlock()
	if p.gone.Load() {
		p.clientGone()
	}
	uploaded := make(chan struct{})
	go func() {
		defer close(uploaded)
		p.upload(conn)
	}()
	switch _, err := p.st.ReadFrom(conn); {
	case err == nil && !p.broken.Load():
		p.st.CloseWrite()
	case err == nil || p.gone.Load() || errors.Is(err, net.ErrClosed):
	default:
		p.st.End(wire.ReasonReset)
	}
	<-uploaded
	if p.broken.Load() {
		p.st.End(wire.ReasonReset)
	}
}

// upload gives the destination what the client sends. After the client's FIN the answer may still come;
// after its END nobody waits for one.
func (p *pipe) upload(conn net.Conn) {
	_, err := p.in.WriteTo(conn)
	half, ok := conn.(interface{ CloseWrite() error })
	var refused *net.OpError
	switch {
	case errors.As(err, &refused) && !refused.Timeout():
		// The destination wants no more of it. What it has said, perhaps why, is still to be read; reading
		// ends by itself, since such a connection is dead.
		p.broken.Store(true)
	case err != nil:
		p.st.End(wire.ReasonReset)
		abort(conn)
	case p.gone.Load() || !ok:
		conn.Close()
	default:
		half.CloseWrite()
	}
}

// abort closes a connection so that the destination sees it break. A plain close would make what has
// arrived look complete, and any relay of the path can cut a circuit short.
func abort(conn net.Conn) {
	if tcp, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// clientGone bounds what is left to do: the destination gets a while to take the client's last bytes.
func (p *pipe) clientGone() {
	p.gone.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.SetDeadline(time.Now().Add(lingerTimeout))
	}
}
