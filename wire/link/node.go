// Package link makes authenticated QUIC links between relays, authorities and clients (section 2 of
// SPEC.md), over one socket per node.
//
// A link is QUIC v1 with TLS 1.3, whose key exchange is X25519MLKEM768 and nothing else. The accepting
// side shows a self-signed certificate of its Ed25519 identity, and the dialler requires the very identity
// that it meant to reach: no name, no certificate authority, no server name on the wire. A relay that
// dials shows its own certificate, a client shows none. One link serves a pair of relays in both
// directions; each circuit is one bidirectional stream on it.
//
// A Node is safe for concurrent use.
package link

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"torproxy/wire"
)

// ErrClosed is returned by dials on a node whose Run has ended.
var ErrClosed = errors.New("link: node is closed")

// Node is one end of many links: a socket, an identity, and the links that are up.
type Node struct {
	cfg       Config
	id        wire.ID
	cert      *tls.Certificate // nil at a client
	transport *quic.Transport
	log       *slog.Logger

	alive    context.Context // ends with the node
	kill     context.CancelFunc
	handlers sync.WaitGroup // everything that Run must wait for

	mu     sync.Mutex
	closed bool
	conns  map[*quic.Conn]struct{} // every connection, to close them at the end
	peers  map[wire.ID]*peer
}

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

// NewNode checks the configuration and makes the node; Run starts it. Dials work before Run does.
func NewNode(cfg Config) (*Node, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Log, conns: map[*quic.Conn]struct{}{}, peers: map[wire.ID]*peer{}}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.transport = &quic.Transport{Conn: cfg.Conn}
	if cfg.Identity != nil {
		cert, err := certificate(cfg.Identity)
		if err != nil {
			return nil, err
		}
		n.id, n.cert = wire.PublicID(cfg.Identity), &cert
		// Without a key a restarted node stays silent to its old peers, and they wait out the idle time.
		n.transport.StatelessResetKey = new(quic.StatelessResetKey)
		rand.Read(n.transport.StatelessResetKey[:])
		unproven := rate.NewLimiter(unprovenPerSecond, unprovenPerSecond)
		n.transport.VerifySourceAddress = func(net.Addr) bool { return !unproven.Allow() }
	}
	n.alive, n.kill = context.WithCancel(context.Background())
	return n, nil
}

// ID returns the node's identity, zero for a client.
func (n *Node) ID() wire.ID { return n.id }

// Run accepts links until ctx ends, then closes every link, waits for every handler and returns. A client
// accepts nothing: its Run only cleans up. It returns nil when ctx ended, else what stopped it.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	if n.cert == nil {
		<-ctx.Done()
		return nil
	}
	listener, err := n.transport.Listen(serverTLS(*n.cert, n.protocols()), quicConfig(maxCircuits, maxUniStreams))
	if err != nil {
		return fmt.Errorf("link: listen on %v: %w", n.cfg.Conn.LocalAddr(), err)
	}
	defer listener.Close()
	for {
		conn, err := listener.Accept(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("link: accept: %w", err)
		}
		if !n.track(conn) {
			return nil
		}
		n.handlers.Go(func() { n.accepted(conn) })
	}
}

func (n *Node) protocols() []string {
	var p []string
	if n.cfg.Circuit != nil {
		p = append(p, wire.ALPN)
	}
	if n.cfg.Directory != nil {
		p = append(p, h3)
	}
	return p
}

// accepted serves a connection that a peer dialled, until it dies.
func (n *Node) accepted(conn *quic.Conn) {
	defer n.forget(conn)
	state := conn.ConnectionState().TLS
	if state.NegotiatedProtocol == h3 {
		n.cfg.Directory(n.alive, conn)
		return
	}
	id, ok, err := peerID(state)
	if err != nil {
		return
	}
	if !ok || n.cfg.Known == nil || !n.cfg.Known(id) {
		id = wire.ID{}
	}
	l := newLink(n, conn, id, false)
	defer l.close()
	n.log.Debug("link accepted", "peer", id.Short())
	if !id.IsZero() {
		n.offer(l)
	}
	l.serve(n.alive)
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

// linkOrDial returns a live link, or a remembered failure, or the dial to wait for.
func (n *Node) linkOrDial(id wire.ID, addrs []netip.AddrPort) (*dial, *Link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, nil, ErrClosed
	}
	p := n.peers[id]
	if p == nil {
		p = &peer{}
		n.peers[id] = p
	}
	switch {
	case p.best != nil && p.best.conn.Context().Err() == nil:
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

// runDial dials, stores the outcome, and then serves the new link until it dies.
func (n *Node) runDial(d *dial, id wire.ID, addrs []netip.AddrPort) {
	conn, err := n.dialAny(n.alive, id, addrs, wire.ALPN)
	if err != nil {
		n.dialled(d, id, nil, err)
		return
	}
	defer n.forget(conn)
	l := newLink(n, conn, id, true)
	defer l.close()
	n.log.Debug("link dialled", "peer", id.Short())
	n.dialled(d, id, l, nil)
	if n.cfg.Circuit != nil {
		l.serve(n.alive)
	} else {
		<-conn.Context().Done()
	}
}

func (n *Node) dialled(d *dial, id wire.ID, l *Link, err error) {
	n.mu.Lock()
	p := n.peers[id]
	p.dial = nil
	p.failed, p.until = err, time.Now().Add(dialMemory)
	n.mu.Unlock()
	if l != nil {
		l = n.offer(l)
	}
	d.link, d.err = l, err
	close(d.done)
}

// offer makes l the link for new circuits to its peer, unless a live one has the better right: of two
// links between the same relays the one dialled by the smaller ID stays, the other ends when it is empty.
// It returns the link to use.
func (n *Node) offer(l *Link) *Link {
	n.mu.Lock()
	p := n.peers[l.peer]
	if p == nil {
		p = &peer{}
		n.peers[l.peer] = p
	}
	keep, drop := l, p.best
	if drop != nil && drop.conn.Context().Err() != nil {
		drop = nil
	}
	if drop != nil && drop.dialled != l.dialled && drop.dialled == n.smallerThan(l.peer) {
		keep, drop = drop, l
	}
	p.best, p.failed = keep, nil
	n.mu.Unlock()
	if drop != nil {
		drop.retire()
	}
	return keep
}

func (n *Node) smallerThan(other wire.ID) bool { return string(n.id[:]) < string(other[:]) }

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
	uni := int64(-1)
	circuits := int64(-1)
	if protocol == h3 {
		uni = maxUniStreams
	} else if n.cfg.Circuit != nil {
		circuits = maxCircuits
	}
	err := errors.New("no address known")
	for i, addr := range addrs {
		attempt, stop := ctx, context.CancelFunc(func() {})
		if i < len(addrs)-1 {
			attempt, stop = context.WithTimeout(ctx, dialTimeout/time.Duration(len(addrs)))
		}
		var conn *quic.Conn
		conn, err = n.transport.Dial(attempt, net.UDPAddrFromAddrPort(addr), dialTLS(n.cert, id, protocol), quicConfig(circuits, uni))
		stop()
		if err == nil {
			if !n.track(conn) {
				return nil, ErrClosed
			}
			return conn, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("link: dial relay %s: %w", id.Short(), err)
}

// track notes a live connection; when the node is already closed it closes it instead.
func (n *Node) track(conn *quic.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		go conn.CloseWithError(quic.ApplicationErrorCode(wire.ResetDestroyed), "")
		return false
	}
	n.conns[conn] = struct{}{}
	return true
}

// forget closes a connection and drops it.
func (n *Node) forget(conn *quic.Conn) {
	conn.CloseWithError(quic.ApplicationErrorCode(wire.ResetDestroyed), "")
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, conn)
}

// close ends every connection, waits for the handlers, and frees the socket for its owner to close.
func (n *Node) close() {
	n.mu.Lock()
	n.closed = true
	conns := make([]*quic.Conn, 0, len(n.conns))
	for c := range n.conns {
		conns = append(conns, c)
	}
	n.mu.Unlock()
	n.kill()
	for _, c := range conns {
		c.CloseWithError(quic.ApplicationErrorCode(wire.ResetDestroyed), "")
	}
	n.handlers.Wait()
	n.transport.Close()
}
