package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"torproxy/wire"
)

// Link is one authenticated QUIC connection that carries circuits, in both directions. It closes itself
// when it has been without a circuit for a while, and when its node stops.
type Link struct {
	node    *Node
	conn    *quic.Conn
	peer    wire.ID // whose key the other end has shown; zero: it showed none
	dialled bool    // by this node

	mu       sync.Mutex
	streams  int         // circuits that run on it
	retiring bool        // no new circuits of ours: another link to the same relay is preferred
	closing  bool        // no circuits at all
	empty    *time.Timer // runs while streams is 0
	until    time.Time   // when it is due
}

func newLink(n *Node, conn *quic.Conn, peer wire.ID, dialled bool) *Link {
	l := &Link{node: n, conn: conn, peer: peer, dialled: dialled}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.empty = time.AfterFunc(emptyLifetime, l.closeIfEmpty)
	l.startClock()
	return l
}

// Peer returns the relay at the other end, or the zero ID for a client. Who dialled us counts as a relay
// from the moment that Config.Known says so: it may have linked before we heard of it.
func (l *Link) Peer() wire.ID {
	if l.dialled || l.node.knows(l.peer) {
		return l.peer
	}
	return wire.ID{}
}

// RemoteAddr returns the peer's address as the socket sees it.
func (l *Link) RemoteAddr() netip.AddrPort {
	if udp, ok := l.conn.RemoteAddr().(*net.UDPAddr); ok {
		return netip.AddrPortFrom(udp.AddrPort().Addr().Unmap(), udp.AddrPort().Port())
	}
	return netip.AddrPort{}
}

// Done is closed when the link is dead.
func (l *Link) Done() <-chan struct{} { return l.conn.Context().Done() }

// ErrFull is wrapped by Open's error when the link has carried as many circuits as any peer allows for as long as
// ctx lasted. It says nothing of the peer.
var ErrFull = errors.New("link: it carries as many circuits as it can")

// Open starts a circuit on the link. It waits, until ctx ends, while the peer allows no more streams. The
// peer learns of the stream with the first bytes written.
func (l *Link) Open(ctx context.Context) (*Stream, error) {
	if !l.acquire() {
		return nil, fmt.Errorf("link: to %s is closed", l.peer.Short())
	}
	qs, err := l.conn.OpenStreamSync(ctx)
	if err != nil {
		if l.full() && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
		l.release()
		return nil, fmt.Errorf("link: open stream to %s: %w", l.peer.Short(), err)
	}
	return &Stream{qs: qs, link: l}, nil
}

// full reports whether a living link has no room for the last circuit that was counted in.
func (l *Link) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alive() && l.streams > maxCircuits
}

// serve accepts the peer's circuits until the link dies.
func (l *Link) serve(ctx context.Context) {
	for {
		qs, err := l.conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		s := &Stream{qs: qs, link: l}
		if !l.acquire() {
			qs.CancelRead(quic.StreamErrorCode(wire.ResetDestroyed))
			qs.CancelWrite(quic.StreamErrorCode(wire.ResetDestroyed))
			continue
		}
		l.node.handlers.Go(func() {
			defer s.Reset(wire.ResetDestroyed)
			l.node.cfg.Circuit(l.conn.Context(), s)
		})
	}
}

// refuseOneWay ends an accepted link whose peer opens a one-way stream. The transport settings, which
// directory connections share, allow some; on a link nobody would ever read them.
func (l *Link) refuseOneWay(ctx context.Context) {
	if _, err := l.conn.AcceptUniStream(ctx); err == nil {
		l.conn.CloseWithError(quic.ApplicationErrorCode(wire.ResetViolation), "")
	}
}

// acquire counts a circuit in; false if the link is dead.
func (l *Link) acquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.alive() {
		return false
	}
	l.streams++
	l.empty.Stop()
	return true
}

// release counts a circuit out and starts the clock when it was the last.
func (l *Link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams--
	l.startClock()
}

// lease keeps an empty link for a caller that is about to open a circuit; false if the link is dead.
func (l *Link) lease() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.alive() {
		return false
	}
	if l.streams == 0 && time.Until(l.until) < openLease {
		l.closeIn(openLease)
	}
	return true
}

// retire gives the link no new circuits of ours, and ends it soon after the last one has gone. Not at once:
// the peer may open its first circuit on it in this very moment.
func (l *Link) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retiring = true
	l.startClock()
}

// startClock starts the clock of a link if it has no circuits. l.mu is held.
func (l *Link) startClock() {
	if l.streams > 0 || !l.alive() {
		return
	}
	life := emptyLifetime
	switch {
	case l.retiring:
		life = retiredLife
	case !l.dialled:
		life += emptyGrace
	}
	l.closeIn(life)
}

func (l *Link) closeIn(d time.Duration) {
	l.until = time.Now().Add(d)
	l.empty.Reset(d)
}

// alive reports whether circuits may still run. l.mu is held.
func (l *Link) alive() bool { return !l.closing && l.conn.Context().Err() == nil }

// closeIfEmpty is called by the clock, which may have been set again at the last moment.
func (l *Link) closeIfEmpty() {
	l.mu.Lock()
	due := l.streams == 0 && !time.Now().Before(l.until)
	l.closing = l.closing || due
	l.mu.Unlock()
	if due {
		l.Close()
	}
}

// Close ends the link and all circuits on it; the node's next Link to the same relay dials anew. Closing it
// again does nothing.
func (l *Link) Close() {
	l.mu.Lock()
	l.closing = true
	l.empty.Stop()
	l.mu.Unlock()
	l.conn.CloseWithError(quic.ApplicationErrorCode(wire.ResetDestroyed), "")
}
