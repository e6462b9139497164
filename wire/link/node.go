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
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

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

// NewNode checks the configuration and makes the node; Run starts it. Dials work before Run does.
func NewNode(cfg Config) (*Node, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Log, conns: map[*quic.Conn]struct{}{}, peers: map[wire.ID]*peer{}}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.transport = &quic.Transport{Conn: joinDatagrams(cfg.Conn)}
	if cfg.Identity != nil {
		cert, err := certificate(cfg.Identity)
		if err != nil {
			return nil, err
		}
		n.id, n.cert = wire.PublicID(cfg.Identity), &cert
		if n.transport.StatelessResetKey, err = resetKey(cfg.Identity); err != nil {
			return nil, err
		}
		unproven := rate.NewLimiter(unprovenPerSecond, unprovenPerSecond)
		n.transport.VerifySourceAddress = func(net.Addr) bool { return !unproven.Allow() }
	}
	n.alive, n.kill = context.WithCancel(context.Background())
	return n, nil
}

// ID returns the node's identity, zero for a client.
func (n *Node) ID() wire.ID { return n.id }

// Run accepts links until ctx ends, then closes every link, waits for every handler and returns. A node
// that serves nothing, a client above all, accepts nothing: its Run only cleans up. It returns nil when ctx
// ended, else what stopped it.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	if len(n.protocols()) == 0 {
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
	id, _, err := peerID(state)
	if err != nil {
		return
	}
	l := newLink(n, conn, id, false)
	defer n.lost(l)
	n.log.Debug("link accepted", "peer", l.Peer().Short())
	if n.knows(id) {
		n.accept(l)
	}
	n.handlers.Go(func() { l.refuseOneWay(n.alive) })
	l.serve(n.alive)
}

// knows reports whether an identity is a relay of this node's consensus.
func (n *Node) knows(id wire.ID) bool {
	return !id.IsZero() && n.cfg.Known != nil && n.cfg.Known(id)
}

// track notes a live connection, which must be given to forget in the end; when the node is already closed
// it closes it instead.
func (n *Node) track(conn *quic.Conn) bool {
	n.mu.Lock()
	open := !n.closed
	if open {
		n.conns[conn] = struct{}{}
		n.handlers.Add(1)
	}
	n.mu.Unlock()
	if !open {
		conn.CloseWithError(quic.ApplicationErrorCode(wire.ResetDestroyed), "")
	}
	return open
}

// forget closes a connection and drops it.
func (n *Node) forget(conn *quic.Conn) {
	defer n.handlers.Done()
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
