package circuit

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"torproxy/wire/mux"
)

// Conn is a stream of a circuit as a net.Conn with half close. Its addresses say nothing: neither end has
// one that the other could know.
type Conn struct {
	stream *mux.Stream
	once   sync.Once
	closed func() // called once by Close, if set
	ended  func() // called once behind it, if set
}

// nowhere is the address of both ends; programs that expect TCP find the type they expect.
var nowhere = &net.TCPAddr{IP: net.IPv4zero}

// Connected waits until the exit has answered: nil if it serves the stream, a *wire.EndError if not,
// ErrClosed if the circuit broke. The stream stays open when ctx ends first. Of a stream that the exit
// pushed, and of one that Open has waited for, it says nil at once.
func (c *Conn) Connected(ctx context.Context) error { return translate(c.stream.Connected(ctx)) }

// OnClose sets what the first Close calls, and what is called when the exit has answered it or the circuit
// is gone: until then, what was written may still be on its way, and would be lost with the circuit. ended
// must not block. OnClose is not for concurrent use.
func (c *Conn) OnClose(closed, ended func()) { c.closed, c.ended = closed, ended }

// Read implements net.Conn. After the destination's last byte it returns io.EOF; when the stream was cut
// short, a *wire.EndError or ErrClosed.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.stream.Read(p)
	return n, translate(err)
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.stream.Write(p)
	return n, translate(err)
}

// WriteTo implements io.WriterTo: received cells go to w without another copy.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.stream.WriteTo(w)
	return n, translate(err)
}

// ReadFrom implements io.ReaderFrom with a buffer of many cells.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.stream.ReadFrom(r)
	return n, translate(err)
}

// CloseWrite tells the destination that no more will be written; reading goes on.
func (c *Conn) CloseWrite() error { return translate(c.stream.CloseWrite()) }

// Close ends the stream. What was written is delivered.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.stream.Close()
		if c.closed != nil {
			c.closed()
		}
		if c.ended != nil {
			c.stream.OnDone(c.ended)
		}
	})
	return nil
}

// LocalAddr and RemoteAddr return the unspecified TCP address.
func (c *Conn) LocalAddr() net.Addr { return nowhere }

// RemoteAddr is described at LocalAddr.
func (c *Conn) RemoteAddr() net.Addr { return nowhere }

// SetDeadline, SetReadDeadline and SetWriteDeadline implement net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.stream.SetDeadline(t) }

// SetReadDeadline is described at SetDeadline.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.stream.SetReadDeadline(t) }

// SetWriteDeadline is described at SetDeadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.stream.SetWriteDeadline(t) }
