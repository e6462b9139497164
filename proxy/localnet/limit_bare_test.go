package localnet_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"torproxy/proxy/localnet"
	"torproxy/wire"
	"torproxy/wire/link"
)

// What the limits of PERFORMANCE.md are measured against: a chain of the same links whose nodes forward
// plain bytes, without cells, onions or streams inside. Its last node makes a TCP connection, as an exit
// does.
//
// A stream begins with its route, of which each node takes its part off:
//
//	left 1 | (address 4 | port 2 | identity 32) * left | port 2 of the destination, on 127.0.0.1

const (
	bareStep   = 6 + len(wire.ID{})
	bareBuffer = 64 << 10 // a relay's batch of cells, so that both write alike
)

var bareBuffers = sync.Pool{New: func() any { return new([bareBuffer]byte) }}

// bareNode is one node of a bare chain.
type bareNode struct {
	node *link.Node
	addr netip.AddrPort
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// newBareNode makes a node on a socket.
func newBareNode(conn net.PacketConn) (*bareNode, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	n := &bareNode{addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), dial: (&net.Dialer{}).DialContext}
	n.addr = netip.AddrPortFrom(n.addr.Addr().Unmap(), n.addr.Port())
	n.node, err = link.NewNode(link.Config{Conn: conn, Identity: key, Circuit: n.serve})
	return n, err
}

// serve forwards one stream to the next node, or to the destination.
func (n *bareNode) serve(ctx context.Context, from *link.Stream) {
	var left [1]byte
	if _, err := io.ReadFull(from, left[:]); err != nil {
		return
	}
	if left[0] == 0 {
		n.exit(ctx, from)
		return
	}
	rest := make([]byte, bareStep*int(left[0])+2)
	if _, err := io.ReadFull(from, rest); err != nil {
		return
	}
	to, err := openBare(ctx, n.node, rest[:bareStep])
	if err != nil {
		return
	}
	defer to.Reset(wire.ResetDestroyed)
	if _, err := to.Write(append([]byte{left[0] - 1}, rest[bareStep:]...)); err != nil {
		return
	}
	join(from, to, func() { from.Reset(wire.ResetDestroyed); to.Reset(wire.ResetDestroyed) })
}

func (n *bareNode) exit(ctx context.Context, from *link.Stream) {
	var port [2]byte
	if _, err := io.ReadFull(from, port[:]); err != nil {
		return
	}
	to, err := n.dial(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", binary.BigEndian.Uint16(port[:])))
	if err != nil {
		return
	}
	defer to.Close()
	join(from, to, func() { from.Reset(wire.ResetDestroyed); to.Close() })
}

// join copies both ways until one of them ends, and then ends both.
func join(a, b io.ReadWriter, end func()) {
	var copies sync.WaitGroup
	copies.Go(func() { copyBare(a, b); end() })
	copyBare(b, a)
	end()
	copies.Wait()
}

func copyBare(to io.Writer, from io.Reader) {
	buf := bareBuffers.Get().(*[bareBuffer]byte)
	defer bareBuffers.Put(buf)
	for {
		n, err := from.Read(buf[:])
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// openBare opens a stream to the node that one step of a route names.
func openBare(ctx context.Context, node *link.Node, step []byte) (*link.Stream, error) {
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte(step)), binary.BigEndian.Uint16(step[4:]))
	l, err := node.Link(ctx, wire.ID(step[6:bareStep]), []netip.AddrPort{at})
	if err != nil {
		return nil, err
	}
	return l.Open(ctx)
}

// bareClient opens streams through a chain.
type bareClient struct {
	node  *link.Node
	route []byte
}

// bareAt is where a node of a chain is.
type bareAt struct {
	addr netip.AddrPort
	id   wire.ID
}

func (n *bareNode) at() bareAt { return bareAt{n.addr, n.node.ID()} }

// chainOf makes a client of a chain of nodes.
func chainOf(conn net.PacketConn, nodes []bareAt) (*bareClient, error) {
	node, err := link.NewNode(link.Config{Conn: conn})
	return (&bareClient{node: node}).through(nodes...), err
}

// through returns the same client with another chain.
func (c *bareClient) through(nodes ...bareAt) *bareClient {
	other := &bareClient{node: c.node}
	for _, n := range nodes {
		ip := n.addr.Addr().Unmap().As4()
		other.route = append(other.route, ip[:]...)
		other.route = binary.BigEndian.AppendUint16(other.route, n.addr.Port())
		other.route = append(other.route, n.id[:]...)
	}
	return other
}

// Open makes a way of c: see ways.
func (c *bareClient) Open(ctx context.Context, target netip.AddrPort) (io.ReadWriteCloser, error) {
	s, err := openBare(ctx, c.node, c.route[:bareStep])
	if err != nil {
		return nil, err
	}
	head := append([]byte{byte(len(c.route)/bareStep - 1)}, c.route[bareStep:]...)
	if _, err := s.Write(binary.BigEndian.AppendUint16(head, target.Port())); err != nil {
		return nil, errors.Join(err, bareStream{s}.Close())
	}
	return bareStream{s}, nil
}

type bareStream struct{ *link.Stream }

func (s bareStream) Close() error {
	s.Reset(wire.ResetDestroyed)
	return nil
}

// startBare runs a chain of so many nodes, and a client, until the test ends.
func startBare(t testing.TB, hops int) *bareClient {
	t.Helper()
	return startBareClient(t, startBareNodes(t, hops))
}

// startBareSpread runs a network of twelve nodes and a client, until the test ends, and returns chains of three that
// are spread as a client's circuits are: they have the first node in common, and the last one is one of four.
func startBareSpread(t testing.TB, chains int) (ways []way) {
	t.Helper()
	nodes := startBareNodes(t, localnet.DefaultRelays)
	first, middle, last := nodes[0], nodes[1:len(nodes)-localnet.DefaultExits], nodes[len(nodes)-localnet.DefaultExits:]
	c := startBareClient(t, nodes[:1])
	for i := range chains {
		ways = append(ways, c.through(first, middle[i%len(middle)], last[i%len(last)]))
	}
	return ways
}

func startBareNodes(t testing.TB, n int) (nodes []bareAt) {
	t.Helper()
	for range n {
		node, err := newBareNode(udpOn(t, "127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		runNode(t, node.node)
		nodes = append(nodes, node.at())
	}
	return nodes
}

func startBareClient(t testing.TB, nodes []bareAt) *bareClient {
	t.Helper()
	c, err := chainOf(udpOn(t, "127.0.0.1"), nodes)
	if err != nil {
		t.Fatal(err)
	}
	runNode(t, c.node)
	return c
}

// runNode runs a node until the test ends.
func runNode(t testing.TB, n *link.Node) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("node: %v", err)
		}
	})
}

// udpOn opens a UDP socket on an address of loopback until the test ends.
func udpOn(t testing.TB, ip string) net.PacketConn {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestBareChain carries bytes there and back through a chain of each length.
func TestBareChain(t *testing.T) {
	to := startSource(t)
	for _, hops := range []int{1, 3, 5} {
		c := startBare(t, hops)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		conn, err := c.Open(ctx, to)
		if err != nil {
			t.Fatal(err)
		}
		if err := pull(conn, 1<<20); err != nil {
			t.Errorf("%d hops: %v", hops, err)
		}
		conn.Close()
		cancel()
	}
}
