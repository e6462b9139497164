package circuit

import (
	"context"
	"fmt"
	"io"

	"torproxy/wire"
	"torproxy/wire/mux"
)

// Request is one stream to open.
type Request struct {
	Kind   wire.Kind // what the exit is asked for; 0 is wire.KindTCP
	Target string    // in the form that the kind wants, HOST:PORT for most

	// Early lets Open return before the exit has answered, so that what is written goes out right behind
	// BEGIN. Conn.Connected, reads and writes then tell what the exit said.
	Early bool

	// Pushed gets each stream that the exit pushes because of this one, to be read to its end and closed;
	// nil: they are refused. It is called in the circuit's reading goroutine and must return at once. The
	// circuit keeps the functions of its newest maxPushers streams that have one, also when the streams are
	// over: what they led to may come later.
	Pushed func(*Conn)
}

// Open begins a stream and waits until the exit has answered, unless the request is Early, or ctx ends. The
// error is a *wire.EndError when the exit said no, ErrClosed when the circuit broke, mux.ErrBusy or
// mux.ErrExhausted when another circuit must be used.
func (c *Circuit) Open(ctx context.Context, req Request) (*Conn, error) {
	st, err := c.begin(req)
	if err != nil {
		return nil, translate(err)
	}
	conn := &Conn{stream: st}
	if req.Early {
		return conn, nil
	}
	if err := conn.Connected(ctx); err != nil {
		st.Close()
		return nil, err
	}
	return conn, nil
}

func (c *Circuit) begin(req Request) (*mux.Stream, error) {
	kind := req.Kind
	if kind == 0 {
		kind = wire.KindTCP
	}
	if req.Pushed == nil {
		return c.session.Open(kind, req.Target)
	}
	return c.pushes.open(c.session, kind, req.Target, req.Pushed)
}

// Resolve asks the exit for the addresses of a host name, or for the names of an IP address. It ends with
// ctx; errors are as Open's, and an exit that answers nonsense counts as one with an internal error.
func (c *Circuit) Resolve(ctx context.Context, host string) ([]wire.Answer, error) {
	st, err := c.session.Open(wire.KindResolve, host)
	if err != nil {
		return nil, translate(err)
	}
	defer st.Close()
	st.CloseWrite()
	stop := context.AfterFunc(ctx, func() { st.Close() })
	b, err := io.ReadAll(io.LimitReader(st, wire.MaxAnswersSize+1))
	if !stop() {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, translate(err)
	}
	answers, err := wire.ParseAnswers(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", &wire.EndError{Reason: wire.ReasonInternal, Remote: true}, err)
	}
	return answers, nil
}
