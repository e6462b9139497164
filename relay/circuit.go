package relay

import (
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/time/rate"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/onion"
)

// circuit is one circuit at this relay while it is being built.
type circuit struct {
	relay  *Relay
	prev   *link.Stream
	bucket *rate.Limiter
	peeled *onion.Peeled
}

// serveCircuit serves one circuit from CREATE to its end. It is the link's handler: the stream is reset
// when it returns, if nothing else did so before.
func (r *Relay) serveCircuit(ctx context.Context, s *link.Stream) {
	c := &circuit{relay: r, prev: s, bucket: r.admission.bucket(s.Link().Peer(), s.Link().RemoteAddr().Addr())}
	if r.drain.under() || !c.bucket.Allow() {
		c.refuse(wire.ResetOverloaded)
		return
	}
	if s.Link().Peer().IsZero() {
		client := clientPrefix(s.Link().RemoteAddr().Addr())
		if !r.admission.enter(client) {
			c.refuse(wire.ResetOverloaded)
			return
		}
		defer r.admission.leave(client)
	}
	if code, ok := c.readCreate(ctx); !ok {
		c.refuse(code)
		return
	}
	r.cfg.Trace.create(s, c.peeled)
	defer r.drain.ended()
	defer r.circuits.Add(-1)
	verdict := c.peeled.Verdict
	if full := r.circuits.Add(1) > maxCircuits; (full || r.drain.under()) && verdict == 0 {
		verdict = wire.StatusOverloaded
	}
	if next := c.peeled.Next; verdict == 0 && !c.peeled.Last && next == s.Link().Peer() {
		verdict = wire.StatusRefused
	}
	ctx, cancel := context.WithTimeout(ctx, circuitLifetime)
	defer cancel()
	switch {
	case verdict != 0:
		c.answerError(verdict)
	case c.peeled.Last:
		c.serveLast(ctx)
	default:
		c.serveMiddle(ctx)
	}
}

// readCreate reads and peels CREATE. Whatever is wrong with it, the sender learns one code.
func (c *circuit) readCreate(ctx context.Context) (code wire.ResetCode, ok bool) {
	packet := make([]byte, wire.CreateSize)
	c.prev.SetReadDeadline(time.Now().Add(createTimeout))
	if _, err := io.ReadFull(c.prev, packet); err != nil {
		return wire.ResetDestroyed, false
	}
	var err error
	if busy := c.relay.peel.do(ctx, func() { c.peeled, err = c.relay.keys.ring.Peel(packet, time.Now()) }); busy != nil {
		return wire.ResetOverloaded, false
	}
	if errors.Is(err, onion.ErrFull) {
		return wire.ResetOverloaded, false
	}
	if err != nil {
		c.relay.log.Debug("CREATE not accepted", "cause", err)
		return wire.ResetCreate, false
	}
	if err := c.relay.cfg.Store.Append(c.peeled.Replay); err != nil {
		c.relay.log.Error("a circuit was turned away: the relay's state cannot be written", "err", err)
		return wire.ResetOverloaded, false
	}
	return 0, true
}

// answerError answers with a status that ends the circuit here, and waits for the client to close it.
func (c *circuit) answerError(status wire.Status) {
	if _, err := c.answer(status, nil); err != nil {
		return
	}
	c.prev.SetReadDeadline(time.Now().Add(closeTimeout))
	var b [1]byte
	if n, _ := c.prev.Peek(b[:]); n > 0 {
		c.prev.Reset(wire.ResetViolation)
	}
}

// answer sends CREATED with a status, and what came back from the next relay if it has answered.
func (c *circuit) answer(status wire.Status, came []byte) (*onion.HopKeys, error) {
	created, keys, err := c.peeled.Answer(status, came)
	if err != nil {
		return nil, err
	}
	c.prev.SetWriteDeadline(time.Now().Add(createTimeout))
	if _, err := c.prev.Write(created); err != nil {
		return nil, err
	}
	c.prev.SetReadDeadline(time.Time{})
	c.relay.counters.answered[status].Add(1)
	return keys, nil
}

// refuse resets the stream of a CREATE that gets no answer.
func (c *circuit) refuse(code wire.ResetCode) {
	c.prev.Reset(code)
	c.relay.counters.reset[code].Add(1)
}

func (t *Trace) create(s *link.Stream, p *onion.Peeled) {
	if t.Create != nil {
		t.Create(s.Link().Peer(), s.Link().RemoteAddr(), p.Next)
	}
}
