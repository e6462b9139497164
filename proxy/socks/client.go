package socks

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"sync"
	"sync/atomic"
	"time"

	socks5 "github.com/armon/go-socks5"
)

// linger is how long a connection is read on after a last answer. Closing with bytes unread makes the
// kernel send a reset, which may overtake the answer.
const (
	linger     = time.Second
	lingerRead = 256 << 10 // bytes
)

// silent is go-socks5's log: it would show destinations.
var silent = log.New(io.Discard, "", 0)

// client is one accepted connection. It is the net.Conn that go-socks5 is given, and the hooks of that
// connection's socks5.Server: credential store, resolver, rewriter.
//
// It belongs to the goroutine of serveConn. While Dial runs, readAhead (dial.go) has conn's reading side,
// held and readErr; while bytes are relayed, the upload goroutine has them (relay.go).
type client struct {
	net.Conn // as accepted; Read, Write, Close, CloseWrite and WriteTo are overridden
	server   *Server
	cfg      *Config         // the server's
	ctx      context.Context // ends with Serve

	held     []byte // read but not yet given out by Read or WriteTo
	readErr  error  // what the accepted connection's Read failed with; EOF too
	writeErr error  // what writing go-socks5's messages failed with

	user, password string
	command        byte             // of the request
	dest           *socks5.AddrSpec // of the request
	reply          []byte           // not nil: goes out in place of go-socks5's
	answered       bool             // reply is a lookup's answer
	target         *target          // set once Dial has succeeded

	relays sync.WaitGroup // go-socks5's two copying goroutines
	torn   atomic.Bool    // the stream to the client broke off: it must not look like its end
}

// serveConn serves one connection and closes it. It returns when all its goroutines have ended.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	c := &client{Conn: conn, server: s, cfg: &s.cfg, ctx: ctx}
	defer conn.Close()
	defer onDone(ctx, c.reset)()
	defer c.relays.Wait()
	var err error
	defer c.rescue(&err)
	if err = c.serve(); err != nil {
		c.cfg.Log.Debug("SOCKS connection failed", "client", conn.RemoteAddr(), "err", err)
	}
}

// serve runs the connection up to its end.
func (c *client) serve() error {
	c.SetDeadline(time.Now().Add(c.cfg.HandshakeTimeout))
	var first [1]byte
	if _, err := io.ReadFull(c.Conn, first[:]); err != nil {
		return err
	}
	if first[0] != 5 {
		return c.answerForeign(first[0])
	}
	if err := c.readGreeting(); err != nil {
		return err
	}
	server, err := socks5.New(&socks5.Config{
		AuthMethods: []socks5.Authenticator{socks5.NoAuthAuthenticator{}, socks5.UserPassAuthenticator{Credentials: c}},
		Resolver:    c,
		Rewriter:    c,
		Dial:        c.dial,
		Logger:      silent,
	})
	if err != nil {
		return err
	}
	err = server.ServeConn(c)
	if c.answered {
		return c.writeErr
	}
	return err
}

// readGreeting reads what follows the version byte of the greeting and holds it for go-socks5. That takes
// the first method of the client's list it knows, and programs such as curl list "none" before "user and
// password" even when they have credentials: isolation would silently be lost. So a list that has
// the latter is held as that alone.
func (c *client) readGreeting() error {
	head := make([]byte, 2, 2+255)
	head[0] = 5
	if _, err := io.ReadFull(c.Conn, head[1:]); err != nil {
		return err
	}
	methods := head[2 : 2+int(head[1])]
	if _, err := io.ReadFull(c.Conn, methods); err != nil {
		return err
	}
	if bytes.IndexByte(methods, socks5.UserPassAuth) >= 0 {
		head[1], methods = 1, append(methods[:0], socks5.UserPassAuth)
	}
	c.held = head[:2+len(methods)]
	return nil
}

// Valid implements socks5.CredentialStore: it asks Config.Login, and keeps what go-socks5 would drop.
func (c *client) Valid(user, password string) bool {
	c.user, c.password = user, password
	if c.cfg.Login == nil {
		return true
	}
	err := c.cfg.Login(user, password)
	if err != nil && c.server.refused.due() {
		c.cfg.Log.Warn("a SOCKS login was refused; others in the next minute are not mentioned", "err", err)
	}
	return err == nil
}

// Resolve implements socks5.NameResolver by not resolving: the default would ask this machine's DNS.
func (c *client) Resolve(ctx context.Context, _ string) (context.Context, net.IP, error) {
	return ctx, nil, nil
}

// Rewrite implements socks5.AddressRewriter. It keeps the destination as it came, since the string that
// Dial gets no longer tells a name from an address, and lets a lookup pass for a CONNECT: go-socks5
// refuses commands that it does not know.
func (c *client) Rewrite(ctx context.Context, req *socks5.Request) (context.Context, *socks5.AddrSpec) {
	c.dest, c.command = req.DestAddr, req.Command
	if c.looksUp() {
		req.Command = socks5.ConnectCommand
	}
	return ctx, req.DestAddr
}

// Read gives out what is held, then what the connection has.
func (c *client) Read(p []byte) (int, error) {
	if len(c.held) > 0 {
		n := copy(p, c.held)
		c.held = c.held[n:]
		return n, nil
	}
	if c.readErr != nil {
		return 0, c.readErr
	}
	n, err := c.Conn.Read(p)
	c.readErr = err
	return n, err
}

// Write sends go-socks5's messages, or the reply that go-socks5 cannot know. The copying goes by WriteTo of
// the target instead.
func (c *client) Write(p []byte) (int, error) {
	if c.reply != nil {
		p = c.reply
	}
	n, err := c.Conn.Write(p)
	c.writeErr = err
	if c.target != nil && err == nil { // that was "succeeded": go-socks5 now starts its two goroutines
		c.relays.Add(2)
		c.target.relaying = true
	}
	return n, err
}

// Close is called by go-socks5 at the end of all.
func (c *client) Close() error {
	switch {
	case c.torn.Load():
		c.reset()
	case c.unread():
		c.lingerOut()
	}
	return c.Conn.Close()
}

// unread reports whether the client may have sent more than was read, and might so lose an answer.
func (c *client) unread() bool {
	if t := c.target; t != nil && t.relaying {
		return t.writeErr != nil
	}
	return c.readErr == nil && c.writeErr == nil
}

// lingerOut ends the writing side and reads until the client ends its own, for a while.
func (c *client) lingerOut() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.SetDeadline(time.Now().Add(linger))
	io.Copy(io.Discard, io.LimitReader(c.Conn, lingerRead))
}

// reset closes the connection so that the client sees an error and not an end, where there is a way.
// It may be called at any time, from any goroutine.
func (c *client) reset() {
	if l, ok := c.Conn.(interface{ SetLinger(sec int) error }); ok {
		l.SetLinger(0)
	}
	c.Conn.Close()
}
