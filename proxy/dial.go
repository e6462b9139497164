package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"torproxy/proxy/route"
	"torproxy/wire"
)

const (
	dialTimeout = 60 * time.Second // for a Dial as a whole, when its context sets no earlier end
	openTimeout = 20 * time.Second // for one exit to answer BEGIN; an exit gives its own dial up before
	maxAttempts = 3                // circuits that one request tries
)

// Request is one connection to make, or one name or address to look up.
type Request struct {
	// Target is HOST:PORT; a name is resolved by the exit. For Resolve it is a name, for ResolveAddr an
	// address, without a port.
	Target string

	// Isolation keeps apart: connections of different labels never share a circuit. It is compared, never
	// shown. The empty label is one like any other.
	Isolation string

	// Exit and Exclude choose relays: the last hop is one of Exit, if any are given, and no hop is one of
	// Exclude. Connections of different choices never share a circuit.
	Exit, Exclude route.Selectors

	// Kind is wire.KindTCP (also 0) for a pipe to the target, or wire.KindHTTP: then the exit makes the
	// HTTP/1.1 request that is written to the connection, and what is read is the response. Lookups leave
	// it 0, as they do with all that follows.
	Kind wire.Kind

	// Early makes Dial return before the exit has answered, so that what is written travels with the
	// question. Reads wait for the answer, and have the error if there was none. KindHTTP always does so.
	Early bool

	// Pushed gets the streams that the exit opens because of this one: what an HTTP reply led to. It is
	// called in a goroutine that must not be held up, and owns the connection. Nil takes none.
	Pushed func(net.Conn)

	// After is the connection of an earlier attempt at the same request, which failed before any answer.
	// Dial closes it and goes on from there: on another circuit, and another exit if that one was to
	// blame. It returns the attempt's error if that would not help, or three circuits have been tried.
	// Only a request that may be made twice has a second attempt once it was written: a GET or HEAD
	// without a body.
	After net.Conn
}

// Dial connects to a destination through a circuit. Another circuit is tried when the first breaks, and
// another exit when that exit can't serve the target, three in all, but only while no byte of the
// application has left: so never after a connection that was not Early is returned, nor after the first
// byte was written to one that was.
//
// The error is an *Error if there was anything to ask. Why tells the whole story of each Dial.
func (p *Proxy) Dial(ctx context.Context, req Request) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	e, err := p.errandOf(ctx, req)
	if err != nil {
		return nil, err
	}
	hurry := req.Early || req.Kind == wire.KindHTTP
	var l *leg
	err = e.run(ctx, func(h *held) (err error) {
		if l, err = e.begin(ctx, h); err != nil || hurry {
			return err
		}
		if err = e.await(ctx, l); err != nil {
			e.drop(l)
		}
		return err
	})
	switch {
	case err != nil:
		e.failed(err)
		return nil, err
	case !hurry:
		e.connected(OutcomeConnected)
		return standing(e, l), nil
	}
	if c := early(e, l); c != nil {
		return c, nil
	}
	e.drop(l)
	err = e.explain(errStopped)
	e.failed(err)
	return nil, err
}

// errandOf makes the errand of a Dial, or takes up that of an earlier attempt.
func (p *Proxy) errandOf(ctx context.Context, req Request) (*errand, error) {
	host, port, err := splitTarget(req.Target)
	if err != nil {
		return nil, err
	}
	switch req.Kind {
	case 0:
		req.Kind = wire.KindTCP
	case wire.KindTCP, wire.KindHTTP:
	default:
		return nil, fmt.Errorf("proxy: streams of kind %d are not dialled", req.Kind)
	}
	if req.After != nil {
		return p.resume(ctx, req, host, port)
	}
	e := p.newErrand(req, host, port)
	if p.cfg.Listeners.HasTarget(req.Target) {
		err := e.explain(fmt.Errorf("%w: %w", errOwn, &wire.EndError{Reason: wire.ReasonPolicy}))
		e.failed(err)
		return nil, err
	}
	return e, nil
}

// resume takes up the errand of an attempt that got no answer.
func (p *Proxy) resume(ctx context.Context, req Request, host string, port uint16) (*errand, error) {
	c, ok := req.After.(*conn)
	if !ok || c.errand.proxy != p || c.errand.req.Target != req.Target {
		return nil, errors.New("proxy: After is no connection of this proxy to the same target")
	}
	c.Close()
	select {
	case <-c.settled:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	e := c.errand
	switch err := c.unanswered(); {
	case err == nil:
		return nil, errors.New("proxy: the earlier attempt has been answered, or has not failed")
	case !e.again(err, c.leg.held):
		return nil, err
	}
	e.ask(req, host, port)
	e.trace.again()
	return e, nil
}

// splitTarget reads HOST:PORT, where HOST is a name or an address.
func splitTarget(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return "", 0, errors.New("proxy: the target is not HOST:PORT")
	}
	if !printable(s) {
		return "", 0, errors.New("proxy: the target is too long, or not in printable ASCII: a name may need its xn-- form")
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, errors.New("proxy: the target's port is not 1 to 65535")
	}
	return host, uint16(n), nil
}

// printable reports whether a BEGIN can carry a target.
func printable(target string) bool {
	_, _, err := wire.ParseBegin(wire.AppendBegin(nil, wire.KindTCP, target))
	return err == nil
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
