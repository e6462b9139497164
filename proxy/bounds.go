package proxy

import (
	"errors"
	"time"
)

// bounds are the deadlines of a connection, for waits that are not its stream's and for streams to come.
// conn.mu is held for all of it.
type bounds struct {
	read, write time.Time
	changed     chan struct{} // closed when one is set; nil while nobody waits
}

// untilRead returns what fires at the read deadline and what is closed when that changes; untilWrite does
// the same for writes.
func (b *bounds) untilRead() (<-chan time.Time, <-chan struct{}) { return b.until(b.read) }

func (b *bounds) untilWrite() (<-chan time.Time, <-chan struct{}) { return b.until(b.write) }

func (b *bounds) until(t time.Time) (passed <-chan time.Time, changed <-chan struct{}) {
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	if !t.IsZero() {
		passed = time.After(time.Until(t))
	}
	return passed, b.changed
}

func (b *bounds) set(which *time.Time, t time.Time) {
	*which = t
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// SetDeadline, SetReadDeadline and SetWriteDeadline implement net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline is described at SetDeadline.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bounds.set(&c.bounds.read, t)
	return c.leg.conn.SetReadDeadline(t)
}

// SetWriteDeadline is described at SetDeadline.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bounds.set(&c.bounds.write, t)
	return c.leg.conn.SetWriteDeadline(t)
}
