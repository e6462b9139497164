package socks

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"time"

	socks5 "github.com/armon/go-socks5"
)

var (
	errHungUp   = errors.New("socks: the client hung up")
	errDial     = errors.New("socks: no stream") // what go-socks5 gets, as it judges errors by their text
	errNoStream = errors.New("socks: Dial returned neither a stream nor an error")
)

// longAgo as a deadline ends a blocked read at once.
var longAgo = time.Unix(1, 0)

// dial is the Dial of the connection's socks5.Server. Its context and address are not used: the first
// never ends, the second is ambiguous (see Rewrite). A lookup ends as a refused CONNECT does, only that
// the reply is its answer.
func (c *client) dial(context.Context, string, string) (net.Conn, error) {
	c.SetDeadline(time.Time{})
	// From here to the first relayed byte, only the reply is written.
	defer func() { c.SetWriteDeadline(time.Now().Add(c.cfg.HandshakeTimeout)) }()
	err := c.carryOut()
	if err != nil {
		code := replyCode(err)
		c.reply = addressReply(code, unspecified)
		c.cfg.Log.Debug("a SOCKS request failed", "reply", code, "err", err)
	}
	if err != nil || c.answered {
		return nil, errDial
	}
	return c.target, nil
}

// carryOut does what the client has asked for: it sets target, or the reply of a lookup.
func (c *client) carryOut() (err error) {
	defer c.rescue(&err)
	if c.command != socks5.ConnectCommand {
		return c.lookUp()
	}
	to, err := destination(c.dest)
	if err != nil {
		return err
	}
	ctx, stop := c.watch()
	defer stop()
	conn, err := c.cfg.Dial(ctx, c.request(to))
	switch {
	case err != nil:
		return err
	case conn == nil:
		return errNoStream
	}
	c.target = newTarget(c, conn)
	return nil
}

func (c *client) request(to string) Request {
	return Request{Target: to, User: c.user, Password: c.password, Client: c.RemoteAddr()}
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
