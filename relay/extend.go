package relay

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
)

// serveMiddle extends the circuit to the next relay, answers, and passes cells until either side ends.
func (c *circuit) serveMiddle(ctx context.Context) {
	guard := c.watchPrevious(ctx)
	next, came, status := c.extend(guard.ctx)
	if !guard.stop() || status != wire.StatusForwarded {
		if next != nil {
			next.Reset(wire.ResetDestroyed)
		}
		if guard.quiet {
			if status == wire.StatusNextReset {
				chargeFailed(c.bucket)
			}
			c.answerError(status)
		}
		return
	}
	defer next.Reset(wire.ResetDestroyed)
	keys, err := c.answer(wire.StatusForwarded, came)
	if err != nil {
		return
	}
	c.relay.forward(ctx, c.prev, next, keys)
}

// extend opens the circuit at the next relay: the packet is written once, on one stream, and never again.
func (c *circuit) extend(ctx context.Context) (next *link.Stream, came []byte, status wire.Status) {
	r := c.relay
	relay, ok := r.follower.Lookup(c.peeled.Next)
	if !ok {
		return nil, nil, wire.StatusUnknownNext
	}
	reach, cancel := context.WithTimeout(ctx, extendTimeout)
	defer cancel()
	l, err := r.node.Link(reach, relay.ID, relay.Addresses)
	if err != nil {
		r.log.Debug("next relay unreachable", "relay", relay.ID.Short(), "cause", err)
		return nil, nil, wire.StatusNextUnreachable
	}
	if next, err = l.Open(reach); err != nil {
		return nil, nil, wire.StatusNextUnreachable
	}
	stop := context.AfterFunc(ctx, func() { next.Reset(wire.ResetDestroyed) })
	defer stop()
	next.SetWriteDeadline(time.Now().Add(extendTimeout))
	if _, err := next.Write(c.peeled.Packet); err != nil {
		return next, nil, noAnswer(err)
	}
	came = make([]byte, wire.CreatedSize)
	next.SetReadDeadline(time.Now().Add(answerTimeout))
	if _, err := io.ReadFull(next, came); err != nil {
		return next, nil, noAnswer(err)
	}
	next.SetReadDeadline(time.Time{})
	return next, came, wire.StatusForwarded
}

// noAnswer is the status for a next relay that took the stream and gave no CREATED. One that is slow is not
// one that reset: only the second is charged to who asked.
func noAnswer(err error) wire.Status {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return wire.StatusNextTimeout
	}
	return wire.StatusNextReset
}

// previousGuard watches the previous hop while the next one is asked: it must send nothing before it has
// its CREATED, and when it gives up there is nothing left to extend.
type previousGuard struct {
	ctx    context.Context // ends when the previous hop goes or talks
	cancel context.CancelFunc
	prev   *link.Stream
	done   chan struct{}
	quiet  bool // after done: it was silent, and is there
}

func (c *circuit) watchPrevious(ctx context.Context) *previousGuard {
	g := &previousGuard{prev: c.prev, done: make(chan struct{})}
	g.ctx, g.cancel = context.WithCancel(ctx)
	c.prev.SetReadDeadline(time.Time{})
	go func() {
		defer close(g.done)
		var b [1]byte
		n, err := c.prev.Peek(b[:])
		switch {
		case n > 0:
			c.prev.Reset(wire.ResetViolation)
		case errors.Is(err, os.ErrDeadlineExceeded):
			g.quiet = true
		}
		g.cancel()
	}()
	return g
}

// stop ends the watch and reports whether the previous hop was there and silent.
func (g *previousGuard) stop() bool {
	g.prev.SetReadDeadline(time.Unix(1, 0))
	<-g.done
	g.cancel()
	return g.quiet
}
