// Package relay is the relay's role: it accepts links, peels CREATE, passes cells from one neighbour to
// the other, and at the end of a circuit makes the connection that the client asked for.
//
//	accept a circuit's stream                          circuit.go
//	  1  admit: budgets per client address and link    admission.go
//	  2  read CREATE, peel it in a bounded pool        circuit.go, peel.go
//	  3  middle hop: extend to the next relay          extend.go
//	     pass cells both ways, one layer each          forward.go
//	  3' last hop: streams of package mux              exit.go
//	     look the name up, once for each circuit       names.go
//	     judge by policy, dial                         dial.go, eyeballs.go, machine.go
//	     or make an HTTP request there                 http.go
//	     and open the links of the page that it got    prefetch.go
//	     or tell what the name stands for              resolve.go
//	     or return what an authority measures with     echo.go
//	before it stops: let circuits end                  drain.go
//	what it counts for its operator                    stats.go
//	its onion keys, and what outlives the process      keys.go, store.go
//
// A relay dials no relay that is not in its consensus, and no destination that its policy does not allow
// on the very address that is dialled. It knows its two neighbours and, as an exit, the destination; it
// logs none of them above debug level.
package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// Config is what a relay needs. Network, Identity and Conn are required.
type Config struct {
	Network  *netdoc.Network
	Identity ed25519.PrivateKey

	// Conn is the relay's one UDP socket; the caller closes it after Run has returned.
	Conn net.PacketConn

	// OnionKey is the onion key to begin with; nil takes up those in Store, or makes a new one.
	OnionKey *onion.PrivateKey

	// Store keeps the onion keys beyond the process. Nil: they end with it.
	Store Store

	// Advertise are the addresses in the descriptor. None: Conn's own address.
	Advertise []netip.AddrPort

	Nickname  string
	Policy    netdoc.Policy // the zero policy is no exit; addresses of this machine count as 127.0.0.1
	Family    []wire.ID
	Bandwidth uint64 // bytes per second that the operator says it carries

	// Own reports whether an address is a listener of this process: no exit ever dials it. Nil knows none.
	Own func(netip.AddrPort) bool

	// Resolver looks names up for the exit, Dial makes its connections; both return soon after their context
	// has ended. Nil: the servers and the hosts file of this machine, and a net.Dialer whose every attempt is
	// judged again in its ControlContext. Tests in virtual time give theirs.
	Resolver Resolver
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)

	// Trace sees what the relay could know. It is for tests and for showing how onion routing works; a
	// relay that serves people has none.
	Trace *Trace

	Log *slog.Logger // nil discards
}

// Trace has a function for each thing that a relay learns; nil ones are skipped. They are called from the
// circuits' goroutines. peer is the zero ID and from the address for a client.
type Trace struct {
	// Create is called when a CREATE was peeled: who sent it, and which relay is next (zero: none).
	Create func(peer wire.ID, from netip.AddrPort, next wire.ID)
	// Cells is called with whole cells before this relay's layer is applied, inward or outward; changing
	// them makes this a relay that lies.
	Cells func(outward bool, cells []byte)
	// Payload is called at the last hop with the cells in clear: outward after the layer is taken off,
	// inward before it is put on.
	Payload func(outward bool, cell []byte)
	// Begin is called at the last hop with each destination.
	Begin func(target string)
}

func (c *Config) check() error {
	switch {
	case c.Network == nil:
		return errors.New("relay: no network given")
	case len(c.Identity) != ed25519.PrivateKeySize:
		return errors.New("relay: no identity given")
	case c.Conn == nil:
		return errors.New("relay: no socket given")
	}
	return nil
}

// Relay is one relay. It is made by New and works while Run runs; its methods may be called from anywhere.
type Relay struct {
	cfg       Config
	log       *slog.Logger
	node      *link.Node
	client    *directory.Client
	follower  *directory.Follower
	mirror    http.Handler // the follower's
	publisher *directory.Publisher
	keys      *keys
	peel      *peelPool
	admission *admission
	dialer    *dialer
	budget    *mux.Budget
	stalls    *stalls
	drain     *drain
	policy    atomic.Pointer[netdoc.Policy]
	circuits  atomic.Int64
	exits     atomic.Int64 // connections to destinations
	lookups   atomic.Int64 // streams of kind resolve
	heads     atomic.Int64 // requests of kind http that are being read
	echoes    atomic.Int64 // streams that authorities measure with
	counters  counters

	alive context.Context // ends with Run
	kill  context.CancelFunc
}

// New checks the configuration and makes the relay; it starts nothing.
func New(cfg Config) (*Relay, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, log: cfg.Log, peel: newPeelPool(), admission: newAdmission(), budget: mux.NewBudget(unreadBudget), stalls: newStalls(maxStalled), drain: newDrain()}
	r.policy.Store(&cfg.Policy)
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.cfg.Trace == nil {
		r.cfg.Trace = &Trace{}
	}
	if r.cfg.Store == nil {
		r.cfg.Store = memory{}
	}
	r.alive, r.kill = context.WithCancel(context.Background())
	var err error
	if r.keys, err = newKeys(wire.PublicID(cfg.Identity), cfg.OnionKey, r.cfg.Store, cfg.Network.Params, time.Now()); err != nil {
		return nil, err
	}
	r.keys.log = r.log
	if r.keys.lost != nil {
		r.log.Warn("the onion keys were made anew: what they had peeled could not be restored", "cause", r.keys.lost)
	}
	r.dialer = newDialer(&r.cfg)
	r.dialer.policy = r.policy.Load
	r.dialer.results = &r.counters.dials
	r.node, err = link.NewNode(link.Config{
		Conn: cfg.Conn, Identity: cfg.Identity, Log: r.log,
		Known:     func(id wire.ID) bool { return r.follower.Known(id) || r.isAuthority(id) },
		Circuit:   r.serveCircuit,
		Directory: directory.Serving(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.mirror.ServeHTTP(w, req) })),
	})
	if err != nil {
		return nil, err
	}
	r.client = directory.NewClient(r.node)
	r.follower = directory.NewFollower(directory.FollowerConfig{Network: cfg.Network, Client: r.client, Keys: r.client, Log: r.log})
	r.mirror = r.follower.Mirror()
	r.publisher = directory.NewPublisher(directory.PublisherConfig{
		Network: cfg.Network, Client: r.client, Log: r.log,
		Descriptor: r.descriptor, Changed: r.keys.changed,
	})
	return r, nil
}

// isAuthority reports whether an identity is an authority of the network. No relay is: extend asks the
// consensus, and no authority is in there.
func (r *Relay) isAuthority(id wire.ID) bool {
	_, ok := r.cfg.Network.Authority(id)
	return ok
}

// ID returns the relay's identity.
func (r *Relay) ID() wire.ID { return r.node.ID() }

// Circuits returns how many circuits run through the relay now.
func (r *Relay) Circuits() int { return int(r.circuits.Load()) }

// Consensus returns the newest consensus that the relay holds, nil before the first.
func (r *Relay) Consensus() *netdoc.Consensus { return r.follower.Current() }

// Changed returns a channel that is closed when Consensus next changes. Take it before looking at Consensus.
func (r *Relay) Changed() <-chan struct{} { return r.follower.Changed() }

// SetPolicy changes the exit policy: for every connection from now on, and in a new descriptor. Those that
// stand are left alone.
func (r *Relay) SetPolicy(p netdoc.Policy) {
	r.policy.Store(&p)
	r.keys.announce()
}

// Run serves until ctx ends or the relay fails, closes every link and connection, and returns the first
// cause: nil after ctx.
func (r *Relay) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, r.kill)
	defer stop()
	g.Go(func() error { return r.node.Run(ctx) })
	g.Go(func() error { return r.follower.Run(ctx) })
	g.Go(func() error { return r.publish(ctx) })
	g.Go(func() error { return r.keys.run(ctx, r.follower) })
	err := g.Wait()
	r.client.Close()
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// addresses returns what the descriptor advertises.
func (r *Relay) addresses() ([]netip.AddrPort, error) {
	if len(r.cfg.Advertise) > 0 {
		return r.cfg.Advertise, nil
	}
	udp, ok := r.cfg.Conn.LocalAddr().(*net.UDPAddr)
	if !ok || udp.IP.IsUnspecified() {
		return nil, fmt.Errorf("relay: %v is no address that others can dial: say which one to advertise", r.cfg.Conn.LocalAddr())
	}
	a := udp.AddrPort()
	return []netip.AddrPort{netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}, nil
}

// descriptor makes the relay's signed descriptor of this moment.
func (r *Relay) descriptor() ([]byte, error) {
	addrs, err := r.addresses()
	if err != nil {
		return nil, err
	}
	d := &netdoc.Descriptor{
		Version: netdoc.Version, ID: r.ID(), Nickname: r.cfg.Nickname, Addresses: addrs,
		OnionKeys: r.keys.published(), Policy: *r.policy.Load(), Family: r.cfg.Family, Bandwidth: r.cfg.Bandwidth,
		Protocols: []uint64{wire.Version}, Software: software, Published: time.Now().UnixMilli(),
	}
	return d.Sign(r.cfg.Identity)
}
