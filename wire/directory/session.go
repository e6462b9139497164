package directory

import (
	"context"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// session is a Client's connection to one server, from the first wish for it to its end.
type session struct {
	peer  Peer
	ready chan struct{} // closed when the dial is over: then conn or err is set
	conn  *http3.ClientConn
	err   error

	// Under Client.mu.
	users   int         // requests that run on it or wait for it
	retired bool        // takes no new request; ends with the last user
	idle    *time.Timer // runs while there are no users
}

// acquire returns a connected session, and whether it was there before; release gives it back.
func (c *Client) acquire(ctx context.Context, peer Peer) (s *session, kept bool, err error) {
	s, kept, err = c.join(peer)
	if err != nil {
		return nil, false, err
	}
	select {
	case <-s.ready:
		if s.err != nil {
			c.release(s, true)
			return nil, false, s.err
		}
		return s, kept, nil
	case <-ctx.Done():
		c.release(s, false)
		return nil, false, ctx.Err()
	}
}

// join makes the caller a user of the peer's session, and starts one where none takes requests.
func (c *Client) join(peer Peer) (s *session, kept bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false, ErrClosed
	}
	s = c.sessions[peer.ID]
	if s != nil && s.dead() {
		c.retireLocked(s)
		s = nil
	}
	if kept = s != nil; !kept {
		s = &session{peer: peer, ready: make(chan struct{})}
		c.sessions[peer.ID] = s
		c.open[s] = struct{}{}
		c.dials.Go(func() { c.dial(s) })
	}
	s.users++
	if s.idle != nil {
		s.idle.Stop()
	}
	return s, kept, nil
}

// dead reports whether the session's connection is known to be gone.
func (s *session) dead() bool {
	select {
	case <-s.ready:
		return s.err != nil || s.conn.Context().Err() != nil
	default:
		return false
	}
}

// dial connects a session for all who wait for it; none of them can call it off.
func (c *Client) dial(s *session) {
	ctx, cancel := context.WithTimeout(c.alive, requestTimeout)
	defer cancel()
	conn, err := c.dialer.DialDirectory(ctx, s.peer.ID, s.peer.Addresses)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(s.ready)
	switch {
	case err != nil:
		s.err = err
		if s.users == 0 { // nobody is left to give it back
			c.retireLocked(s)
		}
	case c.closed:
		conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		s.err = ErrClosed
	default:
		s.conn = c.transport.NewClientConn(conn)
		if s.users == 0 { // everybody gave up waiting
			c.restLocked(s)
		}
	}
}

// release gives a session back. A broken one takes no further request.
func (c *Client) release(s *session, broken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.users--
	switch {
	case broken || s.retired:
		c.retireLocked(s)
	case s.users == 0 && s.conn != nil:
		c.restLocked(s)
	}
}

// restLocked starts the idle time of a session without users.
func (c *Client) restLocked(s *session) {
	if s.idle != nil {
		s.idle.Reset(idleLifetime)
		return
	}
	s.idle = time.AfterFunc(idleLifetime, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.users == 0 {
			c.endLocked(s)
		}
	})
}

// retireLocked keeps new requests off a session, and ends it when it has no users.
func (c *Client) retireLocked(s *session) {
	s.retired = true
	if c.sessions[s.peer.ID] == s {
		delete(c.sessions, s.peer.ID)
	}
	if s.users == 0 {
		c.endLocked(s)
	}
}

// endLocked closes a session's connection; it may be called again.
func (c *Client) endLocked(s *session) {
	s.retired = true
	if c.sessions[s.peer.ID] == s {
		delete(c.sessions, s.peer.ID)
	}
	delete(c.open, s)
	if s.idle != nil {
		s.idle.Stop()
	}
	if s.conn != nil {
		s.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
}
