package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
)

// errand is one request on its way, over up to three circuits, in one Dial or, by Request.After, in several.
// One goroutine at a time works for it.
type errand struct {
	proxy *Proxy
	req   Request
	want
	tried  int   // circuits
	answer error // of the last exit that would not serve the request
}

// want is what a request asks of its circuit.
type want struct {
	purpose                      // shared by requests that wait for the same circuit
	choice                       // the request's own, or else the configuration's
	avoid   map[wire.ID]struct{} // exits that would not serve this one
	trace   trace
}

// fits reports whether a circuit along a route would do.
func (w *want) fits(route []*netdoc.Relay) bool {
	_, avoided := w.avoid[route[len(route)-1].ID]
	return !avoided && serves(route, w.route(len(route)))
}

// route asks for relays of a circuit that would do.
func (w *want) route(hops int) route.Request {
	return route.Request{Hops: hops, Target: w.target, Exit: w.exit, Exclude: w.exclude, Avoid: w.avoid}
}

// labelOf returns what the request's streams must have in common with others to share their circuits.
func (p *Proxy) labelOf(req Request, host string) label {
	chosen := choice{req.Exit, req.Exclude}.key()
	if p.cfg.IsolateDestinations {
		chosen += "\x00" + canonicalHost(host)
	}
	return p.pool.labelled(req.Isolation, chosen)
}

// newErrand makes the errand of a request; host is its target's, port 0 for a lookup.
func (p *Proxy) newErrand(req Request, host string, port uint16) *errand {
	e := &errand{proxy: p}
	e.trace = p.records.begin(req.Target, req.Isolation)
	e.ask(req, host, port)
	return e
}

// ask says what is wanted from here on.
func (e *errand) ask(req Request, host string, port uint16) {
	req.After = nil // else each attempt would hold all those before
	e.req = req
	e.purpose = purpose{label: e.proxy.labelOf(req, host)}
	if port != 0 {
		e.target = route.TargetOf(host, port)
	}
	e.choice = choice{req.Exit, req.Exclude}.or(e.proxy.demand.usual)
}

// connected and failed note how the request ended.
func (e *errand) connected(o Outcome) {
	e.trace.connected(o)
	e.count(nil)
}

func (e *errand) failed(err error) {
	outcome, counted := OutcomeFailed, err
	if errors.Is(err, context.Canceled) || err == errUnanswered {
		outcome, err, counted = OutcomeGivenUp, errUnanswered, context.Canceled
	}
	e.trace.failed(outcome, err)
	e.count(counted)
}

// count counts a Dial; lookups are none.
func (e *errand) count(err error) {
	if e.req.Kind != 0 {
		e.proxy.counts.dialled(err)
	}
}

// run tries the request on one circuit after the other, until one try succeeds or another would not help.
// A circuit is the try's to release. The error is an *Error.
func (e *errand) run(ctx context.Context, try func(h *held) error) error {
	for {
		began := time.Now()
		h, err := e.proxy.circuitFor(ctx, &e.want)
		if err != nil {
			e.trace.none(time.Since(began), err)
			e.tried = maxAttempts // more of the same would not help
			if e.answer != nil {
				err = fmt.Errorf("%w; and no other exit could be asked: %v", e.answer, err)
			}
			return e.explain(err)
		}
		e.tried++
		if err = try(h); err == nil || ctx.Err() != nil || !e.again(err, h) {
			return e.explain(err)
		}
	}
}

// again reports whether another circuit may do better than h did, and remembers what to leave out.
func (e *errand) again(err error, h *held) bool {
	if e.tried >= maxAttempts || !elsewhere(err) {
		return false
	}
	if isEnd(err) {
		if e.avoid == nil {
			e.avoid = map[wire.ID]struct{}{}
		}
		e.avoid[h.circuit.Exit().ID], e.answer = struct{}{}, err
	}
	return true
}

// explain says which hop an error comes from; nil stays nil.
func (e *errand) explain(err error) error {
	if err == nil {
		return nil
	}
	return errorOf(err, e.proxy.cfg.Hops)
}

// begin opens a stream on a circuit. It does not wait for the exit's answer: await does.
func (e *errand) begin(ctx context.Context, h *held) (*leg, error) {
	pool := &e.proxy.pool
	req := circuit.Request{Kind: e.req.Kind, Target: e.req.Target, Early: true}
	if e.req.Pushed != nil {
		req.Pushed = func(c *circuit.Conn) { e.pushed(h, c) }
	}
	l := &leg{held: h, began: time.Now()}
	var err error
	if l.conn, err = h.circuit.Open(ctx, req); err != nil {
		e.trace.asked(StepOpen, h, 0, err)
		pool.retire(h) // it is gone or full
		pool.release(h)
		return nil, err
	}
	pool.opened(h, l.conn, stream{target: e.req.Target, began: l.began})
	return l, nil
}

// await waits for the exit's answer to a stream. A stream that gets none, or a bad one, is to be dropped.
func (e *errand) await(ctx context.Context, l *leg) error {
	pool := &e.proxy.pool
	answering := ctx
	if e.req.Kind != wire.KindHTTP { // a page takes as long as it takes
		var cancel context.CancelFunc
		answering, cancel = context.WithTimeout(ctx, openTimeout)
		defer cancel()
	}
	err := l.conn.Connected(answering)
	l.answered = time.Now()
	took := l.answered.Sub(l.began)
	if err != nil && ctx.Err() == nil && answering.Err() != nil {
		err = &wire.EndError{Reason: wire.ReasonTimeout}
	}
	e.trace.asked(StepOpen, l.held, took, err)
	if err == nil {
		pool.connected(l.held, l.conn, took)
		return nil
	}
	if ctx.Err() == nil && lost(err) {
		pool.retire(l.held)
	}
	return err
}

// lost reports whether a circuit is of no use any more: it is gone or full, or its exit is silent, or about
// to go. The next stream should not wait for it too.
func lost(err error) bool {
	end, ok := errors.AsType[*wire.EndError](err)
	return !ok || !end.Remote || end.Reason == wire.ReasonShutdown
}

// drop gives up a stream that was never connected. Nothing of it is worth waiting for.
func (e *errand) drop(l *leg) { e.proxy.pool.dropped(l.held, l.conn) }

// pushed gives a stream that the exit opened to the application.
func (e *errand) pushed(h *held, c *circuit.Conn) {
	pool := &e.proxy.pool
	pool.hold(h)
	pool.opened(h, c, stream{target: e.req.Target, began: time.Now()})
	e.req.Pushed(standing(&errand{proxy: e.proxy, req: e.req}, &leg{held: h, conn: c}))
}

// leg is one stream on one circuit.
type leg struct {
	held     *held
	conn     *circuit.Conn
	began    time.Time
	answered time.Time
}

// elsewhere reports whether another circuit may do better: the circuit broke or is silent, or the exit's
// answer is about the exit and not about the destination. Tor's clients draw the line in the same place,
// but for names: there "no such name" is asked of two more exits, which then know of it too.
func elsewhere(err error) bool {
	end, ok := errors.AsType[*wire.EndError](err)
	if !ok {
		return errors.Is(err, circuit.ErrClosed) || errors.Is(err, mux.ErrBusy) || errors.Is(err, mux.ErrExhausted)
	}
	switch end.Reason {
	case wire.ReasonPolicy, wire.ReasonResourceLimit, wire.ReasonShutdown, wire.ReasonInternal, wire.ReasonUnsupported,
		wire.ReasonNetUnreachable: // it may have no IPv6
		return true
	case wire.ReasonTimeout:
		return !end.Remote
	default:
		return false
	}
}

// isEnd reports whether the exit is to blame for the error, and not just any relay of the circuit.
func isEnd(err error) bool {
	_, ok := errors.AsType[*wire.EndError](err)
	return ok
}
