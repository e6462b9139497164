package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
)

const (
	dialTimeout = 60 * time.Second // for a Dial as a whole, when its context sets no earlier end
	openTimeout = 20 * time.Second // for one exit to answer BEGIN; an exit gives its own dial up before
	maxAttempts = 3                // circuits that one Dial tries
)

// Request is one connection to make.
type Request struct {
	// Target is HOST:PORT; a name is resolved by the exit.
	Target string
	// Isolation keeps apart: connections of different labels never share a circuit. It is compared, never
	// shown. The empty label is one like any other.
	Isolation string
}

// want is what a request asks of its circuit.
type want struct {
	purpose                      // shared by requests that wait for the same circuit
	avoid   map[wire.ID]struct{} // exits that would not serve this one
	trace   trace
}

// fits reports whether a circuit along a route would do.
func (w *want) fits(route []*netdoc.Relay) bool {
	exit := route[len(route)-1]
	_, avoided := w.avoid[exit.ID]
	return !avoided && exitFits(exit, w.target)
}

// route asks for relays of a circuit that would do.
func (w *want) route(hops int) route.Request {
	return route.Request{Hops: hops, Target: w.target, Avoid: w.avoid}
}

// Dial connects to a destination through a circuit. Before any byte of the application has left, another
// circuit is tried when the first breaks, and another exit when the exit will not serve the target. The
// error wraps *wire.EndError when an exit said no, and ErrNotReady or one of package route's errors when
// there was no circuit to ask.
func (p *Proxy) Dial(ctx context.Context, req Request) (conn net.Conn, err error) {
	defer func() { p.counts.dialled(err) }()
	target, err := parseTarget(req.Target)
	if err != nil {
		return nil, err
	}
	if p.cfg.Listeners.HasTarget(req.Target) {
		return nil, fmt.Errorf("proxy: the target is a listener of this program: %w", &wire.EndError{Reason: wire.ReasonPolicy})
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	w := &want{purpose: purpose{label: p.pool.labelled(req.Isolation, ""), target: target}, avoid: map[wire.ID]struct{}{}}
	var answer error // of the last exit that would not serve the target
	for attempt := 1; ; attempt++ {
		conn, exit, err := p.dialOnce(ctx, req.Target, w)
		switch {
		case err == nil:
			return conn, nil
		case exit == nil && answer != nil:
			return nil, fmt.Errorf("%w; and no other exit could be asked: %v", answer, err)
		case exit == nil || attempt == maxAttempts || ctx.Err() != nil || !elsewhere(err):
			return nil, err
		case isEnd(err):
			w.avoid[exit.ID], answer = struct{}{}, err
		}
	}
}

// dialOnce opens a stream on one circuit. exit is nil when there was no circuit.
func (p *Proxy) dialOnce(ctx context.Context, to string, w *want) (net.Conn, *netdoc.Relay, error) {
	held, err := p.circuitFor(ctx, w)
	if err != nil {
		return nil, nil, err
	}
	began := time.Now()
	opening, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	conn, err := held.circuit.Open(opening, circuit.Request{Target: to})
	if err != nil {
		if ctx.Err() == nil && !isEnd(err) {
			// It is gone or full, or its exit is silent: whatever that is busy with, the next stream
			// should not wait for it too.
			p.pool.retire(held)
			if opening.Err() != nil {
				err = &wire.EndError{Reason: wire.ReasonTimeout}
			}
		}
		p.pool.release(held)
		return nil, held.circuit.Exit(), err
	}
	p.pool.opened(held, conn, stream{target: to, began: began, took: time.Since(began)})
	return conn, held.circuit.Exit(), nil
}

// elsewhere reports whether another circuit may do better: the circuit broke or is silent, or the exit's
// answer is about the exit and not about the destination.
func elsewhere(err error) bool {
	var end *wire.EndError
	if !errors.As(err, &end) {
		return errors.Is(err, circuit.ErrClosed) || errors.Is(err, mux.ErrBusy) || errors.Is(err, mux.ErrExhausted)
	}
	switch end.Reason {
	case wire.ReasonPolicy, wire.ReasonResourceLimit, wire.ReasonShutdown, wire.ReasonInternal, wire.ReasonUnsupported:
		return true
	case wire.ReasonTimeout:
		return !end.Remote
	default:
		return false
	}
}

// isEnd reports whether the exit is to blame for the error, and not just any relay of the circuit.
func isEnd(err error) bool {
	var end *wire.EndError
	return errors.As(err, &end)
}

func parseTarget(s string) (route.Target, error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return route.Target{}, errors.New("proxy: the target is not HOST:PORT")
	}
	if _, _, err := wire.ParseBegin(wire.AppendBegin(nil, wire.KindTCP, s)); err != nil {
		return route.Target{}, errors.New("proxy: the target is too long, or not in printable ASCII: a name may need its xn-- form")
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil || port == 0 {
		return route.Target{}, errors.New("proxy: the target's port is not 1 to 65535")
	}
	return route.TargetOf(host, uint16(port)), nil
}

// Dialer makes connections of one isolation label with the method that net/http.Transport and others
// expect. The zero label is fine.
type Dialer struct {
	proxy     *Proxy
	isolation string
}

// Dialer returns a Dialer for a label.
func (p *Proxy) Dialer(isolation string) *Dialer { return &Dialer{proxy: p, isolation: isolation} }

// DialContext connects to address (HOST:PORT) through a circuit. network is "tcp", "tcp4" or "tcp6"; which
// family is used is the exit's choice.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		return d.proxy.Dial(ctx, Request{Target: address, Isolation: d.isolation})
	default:
		return nil, net.UnknownNetworkError(network)
	}
}
