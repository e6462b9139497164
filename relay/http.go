package relay

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"
	"time"

	"torproxy/wire"
	"torproxy/wire/mux"
)

// Streams of kind http: the client sends a request, and the exit makes it (HTTP.md). One exchange:
//
//	1  read the request's head, strictly            request.go
//	2  take out what must not pass                  fields.go
//	3  send it over a connection of the circuit     web.go, dial.go
//	4  CONNECTED, interim replies, the reply's head reply.go, fields.go
//	5  its body as it comes, its trailer, FIN       reply.go
//	5' after 101, bytes both ways                   upgrade.go
//
// What the reply asks a person to open is marked in step 4 (openlinks.go). The links of a page are opened in
// step 5 (prefetch.go).

// exchange is one request and its reply.
type exchange struct {
	hop    *lastHop
	stream *mux.Stream
	in     *bufio.Reader // the stream
	req    *request
	conn   atomic.Pointer[webConn] // the newest that net/http has chosen

	interim int // replies before the last
}

// serveHTTP serves one stream of kind http. When the client ends the stream, or the circuit ends, the
// request is given up and its connection with it.
func (h *lastHop) serveHTTP(st *mux.Stream) wire.Reason {
	if trace := h.relay.cfg.Trace.Begin; trace != nil {
		trace(st.Target())
	}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	st.OnDone(cancel)
	x := &exchange{hop: h, stream: st, in: bufio.NewReaderSize(st, wire.MaxBody)}
	return x.run(ctx)
}

// run returns why the exchange failed, zero if it did not.
func (x *exchange) run(ctx context.Context) (reason wire.Reason) {
	if !x.hop.relay.dialer.policy().IsExit() {
		return wire.ReasonPolicy
	}
	if _, _, err := splitTarget(x.stream.Target()); err != nil {
		return wire.ReasonDNS
	}
	if reason = x.read(); reason != 0 {
		return reason
	}
	out := x.req.outgoing(x.traced(ctx), x.stream.Target(), x.req.body(x.in))
	resp, err := x.hop.web.roundTrip(out)
	if err != nil {
		return x.failed(err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return x.switchProtocols(resp)
	}
	defer resp.Body.Close()
	strip(resp.Header)
	if !x.req.navigation {
		markOpen(resp, x.stream.Target(), x.req)
	}
	page := x.watch(resp)
	reason = reply(x.stream, resp, x.req.method)
	page.pageOver(reason == 0)
	return reason
}

// read reads the head of the request.
func (x *exchange) read() wire.Reason {
	all, own := &x.hop.relay.heads, &x.hop.heads
	defer all.Add(-1)
	if all.Add(1) > maxHeads {
		return wire.ReasonResourceLimit
	}
	defer own.Add(-1)
	if own.Add(1) > maxCircuitHeads {
		return wire.ReasonResourceLimit
	}
	x.stream.SetReadDeadline(time.Now().Add(requestTimeout))
	var err error
	if x.req, err = readRequest(x.in, x.stream.Target()); err != nil {
		return x.failed(err)
	}
	return 0
}

// traced lets net/http tell of the connection that it has chosen and of interim replies.
func (x *exchange) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:        func(info httptrace.GotConnInfo) { x.use(info.Conn) },
		Got1xxResponse: x.inform,
	})
}

// inform passes an interim reply on. 100 is only for who waits for it.
func (x *exchange) inform(code int, header textproto.MIMEHeader) error {
	if x.interim++; x.interim > maxInterim {
		return errors.New("relay: too many interim replies")
	}
	fields := http.Header(header)
	if code == http.StatusContinue && !x.req.expects() {
		return nil
	}
	strip(fields)
	x.stream.Connect()
	_, err := x.stream.Write(appendHead(nil, code, "", fields))
	return err
}

// use takes a connection that net/http has chosen, which may be another one when the first has failed.
func (x *exchange) use(conn net.Conn) {
	c, ok := conn.(*webConn)
	if !ok {
		return
	}
	x.conn.Store(c)
	x.stream.SetReadDeadline(time.Time{})
	if x.req.length != 0 {
		x.stream.Connect() // credit for more of the body can be granted only behind CONNECTED
	}
	if c.user.Store(x); c.closed.Load() {
		x.lost(c)
	}
}

// lost is called when a connection is closed. net/http waits for a body that it sends, even if nobody takes
// it any more; so reading it must end.
func (x *exchange) lost(c *webConn) {
	if x.conn.Load() == c && !c.piped.Load() {
		x.stream.SetReadDeadline(time.Unix(1, 0))
	}
}

// failed is what the client is told of a failure before the reply. All that a destination did wrong after
// it was connected, malformed replies included, is one reason.
func (x *exchange) failed(err error) wire.Reason {
	var dialled *dialError
	var timeout interface{ Timeout() bool }
	c := x.conn.Load()
	switch {
	case errors.As(err, &dialled):
		return dialled.reason
	case errors.Is(err, errRequest):
		return wire.ReasonUnsupported
	case c != nil && c.quiet.Load():
		return wire.ReasonTimeout
	case errors.Is(err, mux.ErrDeadline) && c != nil:
		return wire.ReasonReset // of the body, when the connection was lost
	case errors.As(err, &timeout) && timeout.Timeout():
		return wire.ReasonTimeout
	default:
		return wire.ReasonReset
	}
}
