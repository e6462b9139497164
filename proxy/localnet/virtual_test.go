package localnet_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"torproxy/proxy"
	"torproxy/proxy/circuit"
	"torproxy/proxy/localnet"
	"torproxy/relay"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
)

// world is a simulated internet in virtual time: every machine has its own address, every packet takes
// the same time.
type world struct {
	sim   *simnet.Simnet
	delay time.Duration

	mu    sync.Mutex
	hosts int
	conns []net.PacketConn
	lines []*line // the network's sockets, its authorities' first
}

// line is a socket that can be cut off.
type line struct {
	*simnet.SimConn
	cut atomic.Bool
}

func (l *line) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := l.SimConn.ReadFrom(p)
		if err != nil || !l.cut.Load() {
			return n, from, err
		}
	}
}

func (l *line) WriteTo(p []byte, to net.Addr) (int, error) {
	if l.cut.Load() {
		return len(p), nil
	}
	return l.SimConn.WriteTo(p, to)
}

// inWorld runs f in a bubble, on a network of localnet's usual shape. f's machines are gone when it returns.
func inWorld(t *testing.T, delay time.Duration, cfg localnet.Config, f func(ctx context.Context, w *world, n *localnet.Network)) {
	t.Helper()
	inWorldOver(t, &simnet.PerfectRouter{}, delay, cfg, f)
}

// inWorldOver is inWorld with another internet.
func inWorldOver(t *testing.T, router simnet.Router, delay time.Duration, cfg localnet.Config, f func(ctx context.Context, w *world, n *localnet.Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{sim: &simnet.Simnet{Router: router}, delay: delay}
		cfg.Listen = func(netip.AddrPort) (net.PacketConn, error) {
			l := &line{SimConn: w.socket()}
			w.lines = append(w.lines, l)
			return l, nil
		}
		params := cfg.Params
		cfg.Params = func(p *netdoc.Params) {
			// A packet takes longer here than a round of a quarter of a second can wait.
			p.InitialRound, p.InitialRounds = netdoc.Duration(5*time.Second), 10
			if params != nil {
				params(p)
			}
		}
		n, err := localnet.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		clients := make([]net.PacketConn, 8) // f's: clients, and whatever else it runs
		for i := range clients {
			clients[i] = w.socket()
		}
		w.sim.Start()
		w.conns = clients // what socket gives to f
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		f(ctx, w, n)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		<-time.After(time.Minute) // what QUIC still has to say is said
		for _, c := range clients {
			c.Close()
		}
		w.sim.Close()
	})
}

// socket puts a machine on the network, before it starts.
func (w *world) socket() *simnet.SimConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts++
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(w.hosts)}), 9001)
	return w.sim.NewEndpoint(net.UDPAddrFromAddrPort(addr), simnet.NodeBiDiLinkSettings{Latency: w.delay})
}

// greeter is a destination in virtual time: it greets and closes.
func greeter(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		io.WriteString(there, "good day")
		there.Close()
	}()
	return here, nil
}

// TestOneRoundTrip builds circuits of 1 to 8 hops over warm links of 50 ms: each is ready after exactly one
// round trip of its path, and its first byte comes after exactly one more. Nothing else on a low-latency
// network does that: telescoping takes 1 + 2 + ... + n round trips.
func TestOneRoundTrip(t *testing.T) {
	const delay = 50 * time.Millisecond
	cfg := localnet.Config{Relay: func(_ int, c *relay.Config) { c.Dial = greeter }}
	inWorld(t, delay, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
		p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[0], Hops: wire.MaxHops})
		if err != nil {
			t.Error(err)
			return
		}
		node, err := link.NewNode(link.Config{Conn: w.conns[1]})
		if err != nil {
			t.Error(err)
			return
		}
		running, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() { p.Run(running) })
		all.Go(func() { node.Run(running) })
		<-p.Ready()
		route := p.Circuits()[0].Route
		for hops := 1; hops <= wire.MaxHops; hops++ {
			// The end of the route, so that its last relay is an exit.
			checkRoundTrips(t, running, node, route[wire.MaxHops-hops:], delay, &all)
		}
		stop()
		all.Wait()
	})
}

func checkRoundTrips(t *testing.T, ctx context.Context, node *link.Node, route []*netdoc.Relay, delay time.Duration, running *sync.WaitGroup) {
	roundTrip := 2 * delay * time.Duration(len(route))
	for _, warm := range []bool{false, true} {
		c, err := circuit.Build(ctx, node, route)
		if err != nil {
			t.Errorf("%d hops: %v", len(route), err)
			return
		}
		running.Go(func() { c.Run(ctx) })
		if warm && c.Took() != roundTrip {
			t.Errorf("%d hops: built in %v, want %v", len(route), c.Took(), roundTrip)
		}
		began := time.Now()
		conn, err := c.Open(ctx, circuit.Request{Target: "198.41.0.4:80"})
		if err != nil {
			t.Errorf("%d hops: %v", len(route), err)
			return
		}
		if took := time.Since(began); took != roundTrip {
			t.Errorf("%d hops: connected after %v, want %v", len(route), took, roundTrip)
		}
		got, err := io.ReadAll(conn)
		if took := time.Since(began); err != nil || string(got) != "good day" || took != roundTrip {
			t.Errorf("%d hops: %q after %v, %v; want it after %v", len(route), got, took, err, roundTrip)
		}
		conn.Close()
		c.Close()
	}
}

// TestADay runs the network for a day of rounds: relays renew their keys and descriptors, the consensus
// is never older than its round, and the client stays ready.
func TestADay(t *testing.T) {
	cfg := localnet.Config{
		Relays: 6, Exits: 2,
		Relay:  func(_ int, c *relay.Config) { c.Dial = greeter },
		Params: func(p *netdoc.Params) { p.Round = netdoc.Duration(15 * time.Minute) },
	}
	inWorld(t, 5*time.Millisecond, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
		p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[0]})
		if err != nil {
			t.Error(err)
			return
		}
		running, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() { p.Run(running) })
		<-p.Ready()
		firstKey := p.Consensus().Relays[0].OnionKey()
		hours := 26
		if testing.Short() {
			hours = 2
		}
		for range hours {
			<-time.After(time.Hour)
			checkHour(t, ctx, p)
		}
		if !testing.Short() && string(p.Consensus().Relays[0].OnionKey()) == string(firstKey) {
			t.Error("after more than a day the relay has its first onion key")
		}
		stop()
		all.Wait()
	})
}

// TestMeasured: some minutes after its start every relay of a network has a weight that authorities have
// measured, and every flag that suits it.
func TestMeasured(t *testing.T) {
	inWorld(t, 5*time.Millisecond, localnet.Config{Relays: 6, Exits: 2}, func(ctx context.Context, w *world, n *localnet.Network) {
		<-time.After(3 * time.Minute)
		c := n.Authorities()[0].Consensus()
		if c == nil || len(c.Relays) != 6 {
			t.Error("no consensus of six relays")
			return
		}
		exits := 0
		for _, r := range c.Relays {
			const claimed = 1 << 20 // what counts of a claim
			if r.Weight == claimed || r.Weight == 0 {
				t.Errorf("relay %s was not measured: its weight is %d", r.Nickname, r.Weight)
			}
			if r.Flags.Has(netdoc.Exit) {
				exits++
			}
			if want := netdoc.Running | netdoc.Fast | netdoc.Stable | netdoc.Guard; r.Flags&^netdoc.Exit != want {
				t.Errorf("relay %s has the flags %v", r.Nickname, r.Flags)
			}
		}
		if exits != 2 {
			t.Errorf("%d exits, want 2", exits)
		}
	})
}

// TestTwoAuthoritiesDown: with two of four gone there is no new consensus. The client goes on with the last
// one and says so; when that is over it builds nothing any more, and says that; and when one is back it
// goes on.
func TestTwoAuthoritiesDown(t *testing.T) {
	cfg := localnet.Config{Relays: 6, Exits: 2, Relay: func(_ int, c *relay.Config) { c.Dial = greeter }}
	inWorld(t, 5*time.Millisecond, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
		p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[0]})
		if err != nil {
			t.Error(err)
			return
		}
		running, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() { p.Run(running) })
		<-p.Ready()
		says := func(percent int, works bool, want ...string) {
			t.Helper()
			said := p.Progress()
			for _, part := range want {
				if !strings.Contains(said.Summary, part) {
					t.Errorf("the client says %q, want %q in it", said.Summary, part)
				}
			}
			conn, err := p.Dial(ctx, proxy.Request{Target: "198.41.0.4:80"})
			if err == nil {
				conn.Close()
			}
			if said.Percent != percent || works != (err == nil) {
				t.Errorf("at %d percent, want %d; dial: %v", said.Percent, percent, err)
			}
		}
		<-time.After(30 * time.Second)
		says(100, true, "ready")
		w.lines[2].cut.Store(true)
		w.lines[3].cut.Store(true)
		<-time.After(40 * time.Second)
		says(100, true, "with an old consensus", "only 2 of 4", "good until")
		<-time.After(30 * time.Second)
		says(10, false, "only 2 of 4", "the consensus held")
		w.lines[3].cut.Store(false)
		<-time.After(time.Minute)
		says(100, true, "ready")
		if said := p.Progress().Summary; said != "ready" {
			t.Errorf("with three of four the client says %q", said)
		}
		stop()
		all.Wait()
	})
}

func checkHour(t *testing.T, ctx context.Context, p *proxy.Proxy) {
	c := p.Consensus()
	if age := time.Since(time.UnixMilli(c.ValidAfter)); age > 16*time.Minute {
		t.Errorf("the newest consensus is %v old", age)
	}
	if len(c.Relays) != 6 {
		t.Errorf("%d relays run, want 6", len(c.Relays))
	}
	conn, err := p.Dial(ctx, proxy.Request{Target: "198.41.0.4:80"})
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	var got strings.Builder
	if _, err := io.Copy(&got, conn); err != nil || got.String() != "good day" {
		t.Errorf("got %q, %v", got.String(), err)
	}
}
