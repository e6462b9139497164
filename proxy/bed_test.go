package proxy

import (
	"context"
	"crypto/ed25519"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// bed is a proxy with circuits of one hop, and exits that do what a test wants, on a simulated network in
// virtual time. There is a consensus, and no authority that answers.
type bed struct {
	*Proxy
	t     *testing.T
	exits []*exit
	stop  context.CancelFunc // ends the proxy
	ended chan struct{}      // when the proxy has ended

	sim   *simnet.Simnet
	conns []net.PacketConn
}

// exit is a relay as far as a circuit of one hop needs one.
type exit struct {
	id      wire.ID
	name    string // nickname
	key     *onion.PrivateKey
	ring    *onion.Keyring
	addr    netip.AddrPort
	node    *link.Node
	policy  netdoc.Policy
	creates atomic.Int64

	// circuit is what it does with a circuit: by default it answers CREATE.
	circuit func(s *link.Stream)
	// serve is what it does with a circuit whose CREATED it has sent: by default session. It must return
	// when the stream ends.
	serve func(s *link.Stream, keys *onion.HopKeys)
	// answer is what it does with a stream: by default echo.
	answer func(s *mux.Stream)
}

// onBed runs f in a bubble with some exits that accept everything; configure may change each before f.
func onBed(t *testing.T, exits int, cfg Config, configure func(i int, e *exit), f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, sim: &simnet.Simnet{Router: &simnet.PerfectRouter{}}, ended: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for i := range exits {
			e := b.newExit(i)
			if configure != nil {
				configure(i, e)
			}
			b.exits = append(b.exits, e)
		}
		raw := b.makeProxy(cfg)
		b.sim.Start()
		for _, e := range b.exits {
			running.Go(func() { e.node.Run(ctx) })
		}
		alive, stop := context.WithCancel(ctx)
		b.stop = stop
		go func() {
			defer close(b.ended)
			if err := b.Run(alive); err != nil {
				t.Errorf("Run: %v", err)
			}
		}()
		defer func() {
			stop()
			<-b.ended
			cancel()
			running.Wait()
			<-time.After(time.Minute) // what QUIC still has to say is said
			for _, c := range b.conns {
				c.Close()
			}
			b.sim.Close()
		}()
		if err := b.follower.Offer(raw); err != nil {
			t.Fatal(err)
		}
		for _, e := range b.exits {
			b.follower.OfferKeys(e.key.Public())
		}
		f(b)
	})
}

func (b *bed) socket(host int) (net.PacketConn, netip.AddrPort) {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(host)}), 9001)
	c := b.sim.NewEndpoint(net.UDPAddrFromAddrPort(addr), simnet.NodeBiDiLinkSettings{Latency: 10 * time.Millisecond})
	b.conns = append(b.conns, c)
	return c, addr
}

func (b *bed) newExit(i int) *exit {
	_, identity, _ := ed25519.GenerateKey(nil)
	key, err := onion.GenerateKey()
	if err != nil {
		b.t.Fatal(err)
	}
	conn, addr := b.socket(i + 1)
	e := &exit{id: wire.PublicID(identity), name: "exit", key: key, addr: addr, policy: policy(b.t, "accept *:*")}
	e.ring = onion.NewKeyring(e.id, key, 1<<16)
	e.circuit, e.serve, e.answer = e.create, e.session, echo
	e.node, err = link.NewNode(link.Config{Conn: conn, Identity: identity, Circuit: func(_ context.Context, s *link.Stream) { e.circuit(s) }})
	if err != nil {
		b.t.Fatal(err)
	}
	return e
}

func policy(t *testing.T, s string) netdoc.Policy {
	t.Helper()
	p, err := netdoc.ParsePolicy(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// create answers CREATE and serves the circuit.
func (e *exit) create(s *link.Stream) {
	packet := make([]byte, wire.CreateSize)
	if _, err := io.ReadFull(s, packet); err != nil {
		return
	}
	peeled, err := e.ring.Peel(packet, time.Now())
	if err != nil {
		s.Reset(wire.ResetCreate)
		return
	}
	e.creates.Add(1)
	created, keys, err := peeled.Answer(wire.StatusReady, nil)
	if err != nil {
		return
	}
	if _, err := s.Write(created); err == nil {
		e.serve(s, keys)
	}
}

// session serves a circuit's streams.
func (e *exit) session(s *link.Stream, keys *onion.HopKeys) { e.sessionOver(s, keys) }

func (e *exit) sessionOver(p mux.Pipe, keys *onion.HopKeys) {
	session := mux.NewSession(mux.Config{Accept: func(st *mux.Stream) { go e.answer(st) }})
	session.Run(p, codec{onion.NewLayer(&keys.Forward, wire.CellSize), onion.NewLayer(&keys.Backward, wire.CellSize)})
}

type codec struct{ outward, inward *onion.Layer }

func (c codec) Open(cell []byte) bool { return c.outward.Recognise(cell) }
func (c codec) Seal(cell []byte)      { c.inward.Originate(cell) }

// echo is a destination that sends back what it gets.
func echo(st *mux.Stream) {
	defer st.Close()
	st.Connect()
	io.Copy(st, st)
}

// says is an exit that answers every BEGIN with a reason.
func says(r wire.Reason) func(*mux.Stream) { return func(st *mux.Stream) { st.End(r) } }

// silent is an exit that answers no BEGIN.
func silent(st *mux.Stream) {
	defer st.Close()
	done := make(chan struct{})
	st.OnDone(func() { close(done) })
	<-done
}

// makeProxy makes the proxy and returns the consensus of its network. A network that is given tells the
// addresses of the authority.
func (b *bed) makeProxy(cfg Config) (raw []byte) {
	_, authority, _ := ed25519.GenerateKey(nil)
	addrs := []netip.AddrPort{netip.MustParseAddrPort("10.0.9.9:1")}
	if cfg.Network != nil {
		addrs = cfg.Network.Authorities[0].Addresses
	}
	cfg.Network = &netdoc.Network{
		Version: netdoc.Version, Name: "test",
		Authorities: []netdoc.Authority{{Nickname: "nobody", ID: wire.PublicID(authority), Addresses: addrs}},
		Params:      netdoc.Params{Round: netdoc.Duration(time.Hour), Valid: netdoc.Duration(3 * time.Hour), MinRelays: 1, OnionKeyLifetime: netdoc.Duration(24 * time.Hour)},
	}
	cfg.Hops = 1
	cfg.Conn, _ = b.socket(200)
	var err error
	if b.Proxy, err = New(cfg); err != nil {
		b.t.Fatal(err)
	}
	now := time.Now()
	fresh, until := cfg.Network.Params.Times(now)
	c := &netdoc.Consensus{
		Network: "test", ValidAfter: now.UnixMilli(), FreshUntil: fresh.UnixMilli(), ValidUntil: until.UnixMilli(),
		Params: cfg.Network.Params.Consensus(), Voters: []netdoc.VoteRef{{Authority: wire.PublicID(authority), Digest: netdoc.DigestOf(nil)}},
	}
	for _, e := range b.exits {
		c.Relays = append(c.Relays, netdoc.Relay{
			ID: e.id, Descriptor: netdoc.DigestOf(nil), Nickname: e.name, Addresses: []netip.AddrPort{e.addr}, Policy: e.policy,
			Key: netdoc.KeyRef{Digest: e.key.Digest(), From: now.UnixMilli(), Until: until.UnixMilli()}, Weight: 1, Flags: netdoc.Running,
		})
	}
	slices.SortFunc(c.Relays, func(x, y netdoc.Relay) int { return netdoc.CompareIDs(x.ID, y.ID) })
	doc, err := c.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	return netdoc.SealConsensus(doc, []netdoc.Signature{netdoc.SignConsensus(doc, authority)})
}

// dial dials and fails the test if that fails.
func (b *bed) dial(isolation string) net.Conn {
	b.t.Helper()
	conn, err := b.Dial(b.t.Context(), Request{Target: "site.test:80", Isolation: isolation})
	if err != nil {
		b.t.Fatal(err)
	}
	return conn
}

// circuitOf returns the ID of the circuit that carries the newest stream of a label that is open.
func (b *bed) circuitOf(isolation string) string {
	b.t.Helper()
	id, age := "", time.Duration(-1)
	for _, c := range b.Circuits() {
		for _, s := range c.Streams {
			if c.Isolation == isolation && (age < 0 || s.Age < age) {
				id, age = c.ID, s.Age
			}
		}
	}
	if id == "" {
		b.t.Fatalf("no circuit carries a stream of %q", isolation)
	}
	return id
}

// creates returns how many circuits all exits were asked for.
func (b *bed) creates() (n int64) {
	for _, e := range b.exits {
		n += e.creates.Load()
	}
	return n
}
