package socks

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"time"
)

var (
	errHungUp   = errors.New("socks: the client hung up")
	errDial     = errors.New("socks: no stream") // what go-socks5 gets: it judges errors by their text
	errNoStream = errors.New("socks: Dial returned neither a stream nor an error")
)

// longAgo as a deadline ends a blocked read at once.
var longAgo = time.Unix(1, 0)

// dial is the Dial of the connection's socks5.Server. Its context and address are not used: the first
// never ends, the second is ambiguous (see Rewrite).
func (c *client) dial(context.Context, string, string) (net.Conn, error) {
	c.SetDeadline(time.Time{})
	// From here to the first relayed byte, only the reply is written.
	defer func() { c.SetWriteDeadline(time.Now().Add(c.cfg.HandshakeTimeout)) }()
	conn, err := c.open()
	if err != nil {
		c.reply = replyCode(err)
		c.cfg.Log.Debug("no stream for a SOCKS client", "reply", c.reply, "err", err)
		return nil, errDial
	}
	c.target = newTarget(c, conn)
	return c.target, nil
}

// open checks the request and calls Config.Dial, with a context that ends when the client hangs up.
func (c *client) open() (conn net.Conn, err error) {
	defer c.rescue(&err)
	r := Request{User: c.user, Password: c.password, Client: c.RemoteAddr()}
	if r.Target, err = destination(c.dest); err != nil {
		return nil, err
	}
	ctx, stop := c.watch()
	defer stop()
	conn, err = c.cfg.Dial(ctx, r)
	if err == nil && conn == nil {
		err = errNoStream
	}
	return conn, err
}

// watch reads from the client until stop is called. The context it returns ends when the client's data
// ends or breaks off, even by a half close: a client that cannot know yet whether there is a stream, and
// has nothing more to send, has gone. If the stream is there all the same, it is served as a half close.
func (c *client) watch() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c.readAhead(); c.readErr != nil {
			cancel(cmp.Or(context.Cause(c.ctx), errHungUp)) // the end of Serve closes the connection, too
		}
	}()
	return ctx, func() {
		c.SetReadDeadline(longAgo)
		<-done
		c.SetReadDeadline(time.Time{})
		cancel(nil)
	}
}

// readAhead holds what the client sends, up to one buffer, until its reading side ends (readErr) or the
// deadline has been moved to longAgo. A client that has filled the buffer has to wait, and its hanging up
// is then seen only by the relaying.
func (c *client) readAhead() {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	n := 0
	for n < len(buf) {
		k, err := c.Conn.Read(buf[n:])
		n += k
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			c.readErr = err
			break
		}
	}
	c.held = append(c.held, buf[:n]...)
}
