// Package proxy is the client: it keeps a verified consensus, chooses routes, builds circuits ahead of
// need, and gives out connections that travel through them. A Go program embeds it with New, Run and
// DialContext; package proxy/localnet brings a whole network for its tests.
//
//	Dial    which circuit: one of this isolation whose exit fits, else a spare, else a new one    dial.go, pool.go
//	        and which next, if that fails before a byte of the application has left               errand.go
//	Conn    one stream, or, as long as it may be moved, one after the other                       conn.go
//	Why     what was done for each request, which hop said what, how long it took                 record.go
//	Run     follow the consensus, keep spares, end circuits that are done with                    spares.go, build.go
//
// When circuits are built and when they end stands in POOL.md, how the first hop is chosen in guard/GUARDS.md.
//
// Names are never resolved here: they travel to the exit as they are.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"

	"golang.org/x/sync/errgroup"

	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
)

// DefaultHops is the length of a circuit unless the Config says otherwise.
const DefaultHops = 3

// Config is what a Proxy needs. Only Network is required.
type Config struct {
	Network *netdoc.Network

	// Hops is the length of every circuit, 1 to 8; 0 is DefaultHops.
	Hops int

	// Conn is the UDP socket of all links; the caller closes it after Run has returned. Nil: the proxy
	// opens one of its own, and closes it.
	Conn net.PacketConn

	// Spares is how many circuits to the ports of the web stand ready while the client is in use, at most
	// 16; 0 is six. Habits add to it: see package need. A negative number: none is ever built ahead.
	Spares int

	// IsolateDestinations keeps connections to different hosts on different circuits, besides what
	// Request.Isolation keeps apart. Hosts are compared as they are asked for: names without case and final
	// dot, addresses in any spelling. All ports of a host count as one; a name and what it resolves to, and
	// a name and its subdomains, do not.
	IsolateDestinations bool

	// Exit and Exclude choose relays for all requests, as those of a Request do for one: a request that
	// names exits takes those instead, and what it excludes is excluded besides.
	Exit, Exclude route.Selectors

	// Listeners are this process's own listeners; a Dial to one of them is refused. Nil knows none.
	Listeners *Listeners

	// Progress is told how far the bootstrap is whenever that changes, from one goroutine. Nil tells nobody.
	Progress func(Progress)

	Log *slog.Logger // nil discards
}

// ErrNotReady is wrapped by dials that gave up waiting for a first consensus or enough relays.
var ErrNotReady = errors.New("proxy: not ready")

// Proxy is a client of one network. It is made by New, works while Run runs, and is safe for concurrent use.
type Proxy struct {
	cfg      Config
	log      *slog.Logger
	conn     net.PacketConn
	node     *link.Node
	client   *directory.Client
	follower *directory.Follower
	rnd      *rand.Rand
	routes   route.Latest
	pool     pool
	outlooks outlooks
	health   health
	patience patience
	demand   demand
	guards   guards
	counts   counts
	records  records

	alive context.Context // ends with Run
	kill  context.CancelFunc

	ready     chan struct{} // closed by the first circuit that stands
	readyOnce sync.Once
}

// New checks the configuration and makes the proxy; it opens a socket if none is given, and starts nothing.
func New(cfg Config) (*Proxy, error) {
	switch {
	case cfg.Network == nil:
		return nil, errors.New("proxy: no network given")
	case cfg.Hops < 0 || cfg.Hops > wire.MaxHops:
		return nil, fmt.Errorf("proxy: %d hops: a circuit has 1 to %d", cfg.Hops, wire.MaxHops)
	}
	if cfg.Hops == 0 {
		cfg.Hops = DefaultHops
	}
	if cfg.Spares == 0 {
		cfg.Spares = defaultSpares
	}
	if cfg.Listeners == nil {
		cfg.Listeners = &Listeners{}
	}
	p := &Proxy{cfg: cfg, log: cfg.Log, rnd: route.NewRand()}
	p.guards.init(cfg, p.rnd)
	p.demand.init(cfg)
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.pool.init()
	p.ready = make(chan struct{})
	p.alive, p.kill = context.WithCancel(context.Background())
	socket := cfg.Conn
	if socket == nil {
		own, err := net.ListenUDP("udp", nil)
		if err != nil {
			return nil, fmt.Errorf("proxy: open a UDP socket: %w", err)
		}
		p.conn, socket = own, own
	}
	var err error
	if p.node, err = link.NewNode(link.Config{Conn: socket, Log: p.log}); err != nil {
		if p.conn != nil {
			p.conn.Close()
		}
		return nil, err
	}
	p.client = directory.NewClient(p.node)
	p.follower = directory.NewFollower(directory.FollowerConfig{
		Network: cfg.Network, Client: p.client, Keys: p.client, Routes: true, Log: p.log,
	})
	return p, nil
}

// Run keeps the proxy going until ctx ends, then destroys every circuit and closes every link. It returns
// the first cause, nil after ctx. It must be called exactly once.
func (p *Proxy) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.node.Run(ctx) })
	g.Go(func() error { return p.follower.Run(ctx) })
	g.Go(func() error { return p.keepSpares(ctx) })
	g.Go(func() error { return p.report(ctx) })
	err := g.Wait()
	p.kill()
	p.pool.close()
	p.client.Close()
	if p.conn != nil {
		p.conn.Close()
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Hops returns the length of the circuits.
func (p *Proxy) Hops() int { return p.cfg.Hops }

// Consensus returns the newest verified consensus, nil before the first.
func (p *Proxy) Consensus() *netdoc.Consensus { return p.follower.Current() }

// Changed returns a channel that is closed when the proxy next has another consensus.
func (p *Proxy) Changed() <-chan struct{} { return p.follower.Changed() }

// NewIdentity makes sure that no later stream shares a circuit with an earlier one, and forgets what Why
// knows. Streams that are open stay where they are.
func (p *Proxy) NewIdentity() {
	p.pool.retireAll()
	p.records.forget()
	p.log.Info("new identity: later connections use new circuits")
}

// Offer gives the proxy what Snapshot of an earlier run returned, so that it need not begin with the
// authorities: it knows mirrors, and may be ready at once. It is verified like everything else; the error
// says why it is of no use, most often because it is too old.
func (p *Proxy) Offer(consensus, onionKeys []byte) error {
	if err := p.follower.Offer(consensus); err != nil {
		return err
	}
	p.guards.offline()
	p.follower.OfferKeys(onionKeys)
	return nil
}

// Snapshot returns the consensus in use, and the onion keys that it names, one behind the other; nil
// before the first. All of it is public.
func (p *Proxy) Snapshot() (consensus, onionKeys []byte) {
	c := p.follower.Current()
	if c == nil {
		return nil, nil
	}
	for i := range c.Relays {
		onionKeys = append(onionKeys, c.Relays[i].OnionKey()...)
	}
	return c.Raw(), onionKeys
}
