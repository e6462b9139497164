package link

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"go.uber.org/goleak"

	"torproxy/wire"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// latency is that of a simulated network, one way.
const latency = 20 * time.Millisecond

// network is some sockets that reach one another.
type network struct {
	*testing.T
	conns []net.PacketConn
}

// overBoth runs f over loopback UDP, and over a simulated network in virtual time.
func overBoth(t *testing.T, sockets int, f func(nw *network)) {
	t.Run("loopback", func(t *testing.T) { f(loopback(t, sockets)) })
	t.Run("simnet", func(t *testing.T) { inBubble(t, sockets, f) })
}

func loopback(t *testing.T, sockets int) *network {
	nw := &network{T: t}
	for range sockets {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		nw.conns = append(nw.conns, c)
	}
	return nw
}

func inBubble(t *testing.T, sockets int, f func(nw *network)) {
	synctest.Test(t, func(t *testing.T) {
		sim := &simnet.Simnet{Router: &simnet.PerfectRouter{}}
		nw := &network{T: t}
		for i := range sockets {
			addr := &net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(i+1)).To4(), Port: 9001}
			nw.conns = append(nw.conns, sim.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: latency}))
		}
		sim.Start()
		t.Cleanup(func() {
			<-time.After(time.Minute) // virtual: closed connections linger, to answer late packets
			for _, c := range nw.conns {
				c.Close()
			}
			sim.Close()
		})
		f(nw)
	})
}

func (nw *network) addr(i int) netip.AddrPort {
	a := nw.conns[i].LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (nw *network) addrs(i int) []netip.AddrPort { return []netip.AddrPort{nw.addr(i)} }

// testKey returns the same identity for the same number.
func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte{31: n})
}

func testID(n byte) wire.ID { return wire.PublicID(testKey(n)) }

// testNode is a node that runs until the test ends or stop is called.
type testNode struct {
	*Node
	stop func()
	ran  error // of Run, after stop
}

// relay runs a node with the identity of its socket's number on socket i.
func (nw *network) relay(i int, change func(*Config)) *testNode {
	return nw.run(Config{
		Conn: nw.conns[i], Identity: testKey(byte(i)),
		Known:   func(wire.ID) bool { return true },
		Circuit: echo,
	}, change)
}

// client runs a node without identity on socket i.
func (nw *network) client(i int) *testNode { return nw.run(Config{Conn: nw.conns[i]}, nil) }

func (nw *network) run(cfg Config, change func(*Config)) *testNode {
	nw.Helper()
	if change != nil {
		change(&cfg)
	}
	n, err := NewNode(cfg)
	if err != nil {
		nw.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	node := &testNode{Node: n}
	go func() {
		defer close(done)
		node.ran = n.Run(ctx)
	}()
	node.stop = func() {
		cancel()
		<-done
	}
	nw.Cleanup(node.stop)
	return node
}

// echo serves a circuit by sending everything back.
func echo(_ context.Context, s *Stream) { io.Copy(s, s) }

// link dials relay i from a node.
func (nw *network) link(from *testNode, i int) *Link {
	nw.Helper()
	l, err := from.Link(nw.Context(), testID(byte(i)), nw.addrs(i))
	if err != nil {
		nw.Fatal(err)
	}
	return l
}

// open opens a circuit on a link and resets it when the test ends.
func (nw *network) open(l *Link) *Stream {
	nw.Helper()
	s, err := l.Open(nw.Context())
	if err != nil {
		nw.Fatal(err)
	}
	nw.Cleanup(func() { s.Reset(wire.ResetDestroyed) })
	return s
}

// ping sends a byte over a stream that echoes and waits for it.
func (nw *network) ping(s *Stream) {
	nw.Helper()
	if _, err := s.Write([]byte{42}); err != nil {
		nw.Fatal(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(s, b[:]); err != nil || b[0] != 42 {
		nw.Fatal(b, err)
	}
}

// raw is bare QUIC on socket i, to say what no Node would.
func (nw *network) raw(i int) *quic.Transport {
	tr := &quic.Transport{Conn: nw.conns[i]}
	nw.Cleanup(func() { tr.Close() })
	return tr
}

// rawDial dials socket i without looking at who answers.
func (nw *network) rawDial(tr *quic.Transport, i int, change func(*tls.Config)) (*quic.Conn, error) {
	cfg := &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{wire.ALPN}, MinVersion: tls.VersionTLS13,
	}
	if change != nil {
		change(cfg)
	}
	ctx, cancel := context.WithTimeout(nw.Context(), dialTimeout)
	defer cancel()
	conn, err := tr.Dial(ctx, nw.conns[i].LocalAddr(), cfg, nil)
	if err == nil {
		nw.Cleanup(func() { conn.CloseWithError(0, "") })
	}
	return conn, err
}
