package relay

import (
	"context"
	"crypto/ed25519"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// bed is a few relays and a client with a consensus that lists the relays and no authority that answers: on
// a simulated network in virtual time, or on loopback.
type bed struct {
	t      *testing.T
	relays []*Relay
	ids    []wire.ID
	client *link.Node
	master *link.Node     // the authority's, which answers nothing
	sim    *simnet.Simnet // nil: loopback
	conns  []net.PacketConn
	stop   context.CancelFunc // ends all relays and the client
	done   []func()           // to be called when the test is over
}

// onBed runs f in a bubble. configure may change each relay's configuration; listed says which relays
// are in the consensus (nil: all).
func onBed(t *testing.T, relays int, configure func(i int, c *Config), f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, sim: &simnet.Simnet{Router: &simnet.PerfectRouter{}}}
		ctx, cancel := context.WithCancel(t.Context())
		b.stop = cancel
		var running sync.WaitGroup
		b.make(ctx, relays, configure, &running)
		f(b)
		for _, done := range b.done {
			done()
		}
		cancel()
		running.Wait()
		<-time.After(time.Minute) // what QUIC still has to say is said
		for _, c := range b.conns {
			c.Close()
		}
		b.sim.Close()
	})
}

// onLoopback runs f with two relays on real sockets, of which the second is an exit to everywhere, in real time.
func onLoopback(t *testing.T, configure func(i int, c *Config), f func(b *bed)) {
	t.Helper()
	b := &bed{t: t}
	ctx, cancel := context.WithCancel(t.Context())
	b.stop = cancel
	var running sync.WaitGroup
	b.make(ctx, 2, func(i int, c *Config) {
		if i == 1 {
			c.Policy = policy(t, "accept private:*,accept *:*")
		}
		if configure != nil {
			configure(i, c)
		}
	}, &running)
	defer func() {
		for _, done := range b.done {
			done()
		}
		cancel()
		running.Wait()
		for _, c := range b.conns {
			c.Close()
		}
	}()
	f(b)
}

func (b *bed) make(ctx context.Context, relays int, configure func(i int, c *Config), running *sync.WaitGroup) {
	_, authority, _ := ed25519.GenerateKey(nil)
	network := &netdoc.Network{
		Version: netdoc.Version, Name: "test",
		Authorities: []netdoc.Authority{{Nickname: "nobody", ID: wire.PublicID(authority), Addresses: []netip.AddrPort{netip.MustParseAddrPort("10.0.9.9:1")}}},
		Params:      netdoc.Params{Round: netdoc.Duration(time.Hour), Valid: netdoc.Duration(100 * time.Hour), MinRelays: 1, OnionKeyLifetime: netdoc.Duration(24 * time.Hour)},
	}
	start := func(run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil {
				b.t.Error(err)
			}
		})
	}
	for i := range relays {
		_, key, _ := ed25519.GenerateKey(nil)
		cfg := Config{Network: network, Identity: key, Conn: b.socket(i + 1), Nickname: "relay"}
		if configure != nil {
			configure(i, &cfg)
		}
		r, err := New(cfg)
		if err != nil {
			b.t.Fatal(err)
		}
		b.relays, b.ids = append(b.relays, r), append(b.ids, r.ID())
	}
	var err error
	if b.master, err = link.NewNode(link.Config{Conn: b.socket(201), Identity: authority}); err != nil {
		b.t.Fatal(err)
	}
	if b.client, err = link.NewNode(link.Config{Conn: b.socket(200)}); err != nil {
		b.t.Fatal(err)
	}
	if b.sim != nil {
		b.sim.Start()
	}
	for _, r := range b.relays {
		start(r.Run)
	}
	start(b.client.Run)
	start(b.master.Run)
	raw := b.consensus(network, authority)
	for _, r := range b.relays {
		if err := r.follower.Offer(raw); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bed) socket(host int) net.PacketConn {
	if b.sim == nil {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			b.t.Fatal(err)
		}
		b.conns = append(b.conns, c)
		return c
	}
	// The simulated network compares addresses byte for byte: four of them, as links dial.
	addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(host)}), 9001))
	c := b.sim.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: 10 * time.Millisecond})
	b.conns = append(b.conns, c)
	return c
}

// consensus lists all relays but those whose nickname is "unlisted".
func (b *bed) consensus(n *netdoc.Network, key ed25519.PrivateKey) []byte {
	now := time.Now()
	fresh, until := n.Params.Times(now)
	c := &netdoc.Consensus{
		Network: n.Name, ValidAfter: now.UnixMilli(), FreshUntil: fresh.UnixMilli(), ValidUntil: until.UnixMilli(),
		Params: n.Params.Consensus(), Voters: []netdoc.VoteRef{{Authority: wire.PublicID(key), Digest: netdoc.DigestOf(nil)}},
	}
	for _, r := range b.relays {
		if r.cfg.Nickname == "unlisted" {
			continue
		}
		addrs, _ := r.addresses()
		c.Relays = append(c.Relays, netdoc.Relay{
			ID: r.ID(), Descriptor: netdoc.DigestOf(nil), Nickname: r.cfg.Nickname, Addresses: addrs,
			Key: r.keys.published()[0].Ref(), Weight: 1, Flags: netdoc.Running,
		})
	}
	slices.SortFunc(c.Relays, func(x, y netdoc.Relay) int { return netdoc.CompareIDs(x.ID, y.ID) })
	doc, err := c.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	return netdoc.SealConsensus(doc, []netdoc.Signature{netdoc.SignConsensus(doc, key)})
}

// create makes a CREATE through the relays of these indices.
func (b *bed) create(path ...int) ([]byte, *onion.Handshake) {
	b.t.Helper()
	hops := make([]onion.Hop, len(path))
	for i, p := range path {
		hops[i] = onion.Hop{ID: b.ids[p], OnionKey: b.relays[p].keys.published()[0].Public}
	}
	packet, h, err := onion.Create(hops, time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return packet, h
}

// open opens a stream from the client to a relay.
func (b *bed) open(relay int) *link.Stream {
	b.t.Helper()
	return b.openFrom(b.client, relay)
}

func (b *bed) openFrom(node *link.Node, relay int) *link.Stream {
	b.t.Helper()
	addrs, _ := b.relays[relay].addresses()
	l, err := node.Link(b.t.Context(), b.ids[relay], addrs)
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := l.Open(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// send writes a packet on a new stream to a relay and reads CREATED, or how the stream was reset.
func (b *bed) send(relay int, packet []byte) (s *link.Stream, created []byte, err error) {
	b.t.Helper()
	s = b.open(relay)
	if _, err := s.Write(packet); err != nil {
		return s, nil, err
	}
	created = make([]byte, wire.CreatedSize)
	_, err = io.ReadFull(s, created)
	return s, created, err
}

// wantReset reports an error that is not a reset with this code.
func wantReset(t *testing.T, err error, want wire.ResetCode) {
	t.Helper()
	if got, ok := link.ResetCodeOf(err); !ok || got != want {
		t.Errorf("got %v, want a reset: %v", err, want)
	}
}

func (b *bed) clientAddr() netip.Addr {
	return b.conns[len(b.conns)-1].LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}
