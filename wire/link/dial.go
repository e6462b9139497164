package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"torproxy/wire"
)

// peer is what the node knows of one relay. Fields are under Node.mu.
type peer struct {
	best   *Link // new circuits go here
	dial   *dial // a dial that runs
	failed error // the last dial's error, for dialMemory
	until  time.Time
}

// dial is one attempt that several callers may wait for.
type dial struct {
	done chan struct{}
	link *Link // after done
	err  error
}

// Link returns the live link to a relay, or makes one, trying its addresses in order. Callers for the
// same relay share one dial; a failed dial is remembered for ten seconds. ctx bounds the wait, not the
// dial.
func (n *Node) Link(ctx context.Context, id wire.ID, addrs []netip.AddrPort) (*Link, error) {
	d, link, err := n.linkOrDial(id, addrs)
	if d == nil {
		return link, err
	}
	select {
	case <-d.done:
		return d.link, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Forget forgets how the last dial to a relay failed, so that the next Link dials again: for callers that pace
// their attempts themselves, and need to know how things are now.
func (n *Node) Forget(id wire.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.peers[id]; p != nil {
		p.failed = nil
	}
}

// linkOrDial returns a live link, or a remembered failure, or the dial to wait for.
func (n *Node) linkOrDial(id wire.ID, addrs []netip.AddrPort) (*dial, *Link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, nil, ErrClosed
	}
	p := n.peer(id)
	switch {
	case p.best != nil && p.best.lease():
		return nil, p.best, nil
	case p.dial != nil:
		return p.dial, nil, nil
	case p.failed != nil && time.Now().Before(p.until):
		return nil, nil, p.failed
	}
	d := &dial{done: make(chan struct{})}
	p.dial = d
	n.handlers.Go(func() { n.runDial(d, id, addrs) })
	return d, nil, nil
}

// Dial makes a link of its own to a relay at one address, whatever links to it there are and however an
// earlier dial ended: it shows whether the relay can be reached there now. Nobody else is given the link.
// The caller closes it; the node does so at its end. ctx bounds the dial.
func (n *Node) Dial(ctx context.Context, id wire.ID, addr netip.AddrPort) (*Link, error) {
	conn, err := n.dialAny(ctx, id, []netip.AddrPort{addr}, wire.ALPN)
	if err != nil {
		return nil, err
	}
	l := newLink(n, conn, id, true)
	n.handlers.Go(func() {
		defer n.forget(conn)
		defer l.Close()
		if n.cfg.Circuit != nil {
			l.serve(n.alive)
		} else {
			<-conn.Context().Done()
		}
	})
	return l, nil
}

// runDial dials, stores the outcome, and then serves the new link until it dies.
func (n *Node) runDial(d *dial, id wire.ID, addrs []netip.AddrPort) {
	conn, err := n.dialAny(n.alive, id, addrs, wire.ALPN)
	if err != nil {
		n.dialled(d, id, nil, err)
		return
	}
	defer n.forget(conn)
	l := newLink(n, conn, id, true)
	defer n.lost(l)
	n.log.Debug("link dialled", "peer", id.Short())
	n.dialled(d, id, l, nil)
	if n.cfg.Circuit != nil {
		l.serve(n.alive)
	} else {
		<-conn.Context().Done()
	}
}

// dialled stores the outcome of a dial and tells it to those who wait for it. A link that the peer has
// dialled meanwhile serves them as well.
func (n *Node) dialled(d *dial, id wire.ID, l *Link, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peer(id)
	p.dial = nil
	switch {
	case l != nil:
		p.offer(l, n.prefers(id))
		d.link = p.best
	case p.best != nil && p.best.lease():
		d.link = p.best
	default:
		d.err = err
		p.failed, p.until = err, time.Now().Add(dialMemory)
	}
	close(d.done)
}

// accept makes a link that a relay dialled the one for new circuits to it, unless another is preferred.
func (n *Node) accept(l *Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peer(l.peer).offer(l, n.prefers(l.peer))
}

// offer gives a peer a new link. Of two links between the same relays the one dialled by the smaller ID
// stays, and of two that the same relay dialled the newer; the other ends when it is empty.
func (p *peer) offer(l *Link, ours bool) {
	keep, drop := l, p.best
	if drop != nil && !drop.lease() {
		drop = nil
	}
	if drop != nil && drop.dialled != l.dialled && drop.dialled == ours {
		keep, drop = drop, l
	}
	p.best, p.failed = keep, nil
	if drop != nil {
		drop.retire()
	}
}

// prefers reports whether, of two links to the same relay, the one that this node dialled stays.
func (n *Node) prefers(other wire.ID) bool { return string(n.id[:]) < string(other[:]) }

// lost ends a link and forgets it.
func (n *Node) lost(l *Link) {
	l.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[l.peer]
	if p == nil || p.best != l {
		return
	}
	p.best = nil
	if p.dial == nil {
		delete(n.peers, l.peer)
	}
}

// peer returns what the node knows of a relay. n.mu is held.
func (n *Node) peer(id wire.ID) *peer {
	p := n.peers[id]
	if p == nil {
		p = &peer{}
		n.peers[id] = p
	}
	return p
}

// DialDirectory makes a connection for directory requests (HTTP/3) to a relay or an authority. The caller
// closes it; the node does so at its end.
func (n *Node) DialDirectory(ctx context.Context, id wire.ID, addrs []netip.AddrPort) (*quic.Conn, error) {
	conn, err := n.dialAny(ctx, id, addrs, h3)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(conn.Context(), func() { n.forget(conn) })
	return conn, nil
}

// dialAny tries the addresses in order, within dialTimeout in all.
func (n *Node) dialAny(ctx context.Context, id wire.ID, addrs []netip.AddrPort, protocol string) (*quic.Conn, error) {
	if id == n.id {
		return nil, errors.New("link: will not dial itself")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	stop := context.AfterFunc(n.alive, cancel)
	defer stop()
	failed := errors.New("no address known")
	for i, addr := range addrs {
		timeout := dialTimeout
		if i < len(addrs)-1 {
			timeout /= time.Duration(len(addrs))
		}
		conn, err := n.dialOne(ctx, id, addr, protocol, timeout)
		if err == nil {
			return conn, nil
		}
		if n.alive.Err() != nil {
			return nil, ErrClosed
		}
		if !errors.Is(failed, ErrIdentity) { // which says more than a time-out somewhere else
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("link: dial relay %s: %w", id.Short(), failed)
}

func (n *Node) dialOne(ctx context.Context, id wire.ID, addr netip.AddrPort, protocol string, timeout time.Duration) (*quic.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	circuits, uniStreams := int64(-1), int64(-1) // of the peer's; none
	switch {
	case protocol == h3:
		uniStreams = maxUniStreams
	case n.cfg.Circuit != nil:
		circuits = maxCircuits
	}
	conn, err := n.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), dialTLS(n.cert, id, protocol), quicConfig(circuits, uniStreams))
	if err != nil {
		return nil, err
	}
	if !n.track(conn) {
		return nil, ErrClosed
	}
	return conn, nil
}
