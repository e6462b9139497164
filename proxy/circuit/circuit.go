// Package circuit builds a circuit over a given route and is the client's end of it: all layers of the
// onion, and the streams inside.
//
//	Build   link to the first hop, one CREATE out, one CREATED back     (one round trip of the path)
//	Run     serve the streams until the circuit ends
//	Open    BEGIN a stream, wait for CONNECTED unless the caller won't        (one more; none if it won't)
//	Resolve BEGIN a lookup, read its answers
//
// It decides nothing about routes and keeps no pool: package proxy does.
package circuit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// ErrClosed is what streams of a broken or closed circuit return.
var ErrClosed = errors.New("circuit: the circuit is gone")

// BuildError says which hop a circuit failed at. Hop counts from 1; hop 0 is this machine's link to the
// first hop. Err is an *onion.HopError when the hop itself said so.
type BuildError struct {
	Hop   int
	Relay string // nickname of the relay that could not be reached or that refused
	Err   error
}

func (e *BuildError) Error() string {
	if e.Hop == 0 {
		return fmt.Sprintf("circuit: first hop %s: %v", e.Relay, e.Err)
	}
	return fmt.Sprintf("circuit: hop %d (%s): %v", e.Hop, e.Relay, e.Err)
}

func (e *BuildError) Unwrap() error { return e.Err }

// Circuit is a built circuit. Its methods may be called from any goroutine.
type Circuit struct {
	route   []*netdoc.Relay
	stream  *link.Stream
	session *mux.Session
	codec   *onion.Client
	began   time.Time
	took    time.Duration
	done    chan struct{}
	pushes  pushes
	heard   atomic.Int64 // how often cells have come
}

// Build makes a circuit along route, first hop first, over node. It takes one round trip of the whole
// path when the links are up, and ends with ctx. The circuit carries nothing until Run.
func Build(ctx context.Context, node *link.Node, route []*netdoc.Relay) (*Circuit, error) {
	began := time.Now()
	path := make([]onion.Hop, len(route))
	for i, r := range route {
		path[i] = onion.Hop{ID: r.ID, OnionKey: r.OnionKey()}
	}
	packet, handshake, err := onion.Create(path, began)
	if err != nil {
		return nil, fmt.Errorf("circuit: %w", err)
	}
	first := route[0]
	l, err := node.Link(ctx, first.ID, first.Addresses)
	if err != nil {
		return nil, &BuildError{Hop: 0, Relay: first.Nickname, Err: err}
	}
	stream, err := l.Open(ctx)
	if err != nil {
		return nil, &BuildError{Hop: 0, Relay: first.Nickname, Err: err}
	}
	hops, err := exchange(ctx, stream, packet, handshake)
	if err != nil {
		stream.Reset(wire.ResetDestroyed)
		return nil, buildError(route, err)
	}
	c := &Circuit{
		route: route, stream: stream, codec: onion.NewClient(hops, wire.CellSize),
		began: began, took: time.Since(began), done: make(chan struct{}),
	}
	c.session = mux.NewSession(mux.Config{Pushed: c.pushes.deliver, Clock: time.Now})
	return c, nil
}

// exchange writes CREATE and reads CREATED.
func exchange(ctx context.Context, stream *link.Stream, packet []byte, h *onion.Handshake) ([]onion.HopKeys, error) {
	stop := context.AfterFunc(ctx, func() {
		past := time.Unix(1, 0)
		stream.SetReadDeadline(past)
		stream.SetWriteDeadline(past)
	})
	created := make([]byte, wire.CreatedSize)
	_, err := stream.Write(packet)
	if err == nil {
		_, err = io.ReadFull(stream, created)
	}
	if !stop() {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return h.Finish(created)
}

func buildError(route []*netdoc.Relay, err error) error {
	hop := 1
	var said *onion.HopError
	if errors.As(err, &said) {
		hop = said.Hop + 1
	}
	return &BuildError{Hop: hop, Relay: route[hop-1].Nickname, Err: err}
}

// Run serves the circuit until ctx ends, Close is called, or it breaks, and returns why. It must be called
// exactly once.
func (c *Circuit) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	defer close(c.done)
	return c.session.Run(listening{c.stream, &c.heard}, c.codec)
}

// listening counts how often cells come.
type listening struct {
	*link.Stream
	heard *atomic.Int64
}

// ReadCells implements mux.Pipe.
func (l listening) ReadCells(f func(cells []byte) error) error {
	return l.Stream.ReadCells(func(cells []byte) error {
		l.heard.Add(1)
		return f(cells)
	})
}

// Close destroys the circuit and breaks its streams.
func (c *Circuit) Close() { c.session.Close(ErrClosed) }

// Done is closed when the circuit has ended.
func (c *Circuit) Done() <-chan struct{} { return c.done }

// Route returns the relays, first hop first.
func (c *Circuit) Route() []*netdoc.Relay { return c.route }

// Link returns the link to the first relay.
func (c *Circuit) Link() *link.Link { return c.stream.Link() }

// Exit returns the last relay.
func (c *Circuit) Exit() *netdoc.Relay { return c.route[len(c.route)-1] }

// Began returns when building began, Took how long it took.
func (c *Circuit) Began() time.Time { return c.began }

// Took is described at Began.
func (c *Circuit) Took() time.Duration { return c.took }

// Streams returns how many streams are open, those not counted that the exit pushed; wire.MaxStreams bounds
// them. Bytes returns what all streams carried.
func (c *Circuit) Streams() int { return c.session.Streams() }

// Bytes is described at Streams.
func (c *Circuit) Bytes() (in, out int64) { return c.session.Bytes() }

// Heard is a number that rises whenever anything comes from the exit.
func (c *Circuit) Heard() int64 { return c.heard.Load() }

// translate gives a stream's errors the names that users of net.Conn and of this package know.
func translate(err error) error {
	switch {
	case err == nil, err == io.EOF:
		return err
	case errors.Is(err, mux.ErrDeadline):
		return os.ErrDeadlineExceeded
	case errors.Is(err, mux.ErrClosed) && !errors.Is(err, ErrClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	default:
		return err
	}
}
