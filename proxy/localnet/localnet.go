// Package localnet is a whole network in one process: directory authorities that vote, relays that
// register with them, over loopback UDP. It is the network that the command starts when it is given none,
// the ground of the integration tests, and, in the manner of net/http/httptest, a network for the tests of
// programs that embed the client:
//
//	network, err := localnet.Start(localnet.Config{})
//	defer network.Close()
//	client, err := proxy.New(proxy.Config{Network: network.File()})
//
// A network on one machine hides nothing from that machine: it is for trying out and for tests.
package localnet

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"torproxy/dirauth"
	"torproxy/relay"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// The embedded network unless the Config says otherwise.
const (
	DefaultAuthorities = 4
	DefaultRelays      = 12
	DefaultExits       = 4
	minRelays          = 5

	// Policy is that of the exits: everything, also on this machine and in its private networks.
	Policy = "accept private:*,accept *:*"

	// The first rounds are short, so that the network is ready at once; later ones only keep it so.
	round         = 5 * time.Second
	initialRound  = 250 * time.Millisecond
	initialRounds = 20

	bandwidth = 10 << 20 // what every relay says it carries, bytes per second
)

// Config is the shape of a network; the zero value is the default one.
type Config struct {
	Authorities int // 0: DefaultAuthorities
	Relays      int // 0: DefaultRelays
	Exits       int // how many of the relays are exits, 0: DefaultExits

	// Own reports whether an address is a listener of this process; no exit dials it. Nil knows none.
	Own func(netip.AddrPort) bool

	// Params and Relay may change the parameters and each relay's configuration before they are used; i
	// counts relays from 0, the exits being the last. Relay is called again when a relay is started again,
	// from several goroutines but never twice at once, and must not call the Network.
	Params func(p *netdoc.Params)
	Relay  func(i int, c *relay.Config)

	// Listen opens a socket for an authority or a relay; addr is the address to take, or invalid for a
	// new one. Nil: UDP on 127.0.0.1.
	Listen func(addr netip.AddrPort) (net.PacketConn, error)

	Log *slog.Logger // nil discards
}

// Network is a running or yet to be run network. Its methods may be called from any goroutine.
type Network struct {
	cfg         Config
	file        *netdoc.Network
	authorities []*dirauth.Authority
	sockets     []net.PacketConn // the authorities'

	mu     sync.Mutex
	relays []*member
	alive  context.Context // while Run runs
	group  *errgroup.Group
	cancel context.CancelFunc // of Start
	ended  chan struct{}      // after Start
	err    error              // after ended
}

// New makes a network and opens its sockets: the network file must name their addresses. Run starts it.
func New(cfg Config) (*Network, error) {
	cfg.defaults()
	n := &Network{cfg: cfg}
	if err := n.make(); err != nil {
		n.closeSockets()
		return nil, err
	}
	return n, nil
}

func (c *Config) defaults() {
	for _, d := range []struct {
		field *int
		value int
	}{{&c.Authorities, DefaultAuthorities}, {&c.Relays, DefaultRelays}, {&c.Exits, DefaultExits}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Listen == nil {
		c.Listen = listenLoopback
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// listenLoopback opens a UDP socket on 127.0.0.1.
func listenLoopback(addr netip.AddrPort) (net.PacketConn, error) {
	if !addr.IsValid() {
		addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("localnet: open a UDP socket: %w", err)
	}
	return conn, nil
}

func (n *Network) make() error {
	n.file = &netdoc.Network{Version: netdoc.Version, Name: "private", Params: netdoc.Params{
		Round: netdoc.Duration(round), InitialRound: netdoc.Duration(initialRound), InitialRounds: initialRounds,
		Start:            time.Now().UnixMilli(),
		MinRelays:        minRelays,
		OnionKeyLifetime: netdoc.Duration(24 * time.Hour),
	}}
	if n.cfg.Params != nil {
		n.cfg.Params(&n.file.Params)
	}
	keys := make([]ed25519.PrivateKey, n.cfg.Authorities)
	for i := range keys {
		if err := n.addAuthority(i, keys); err != nil {
			return err
		}
	}
	for i, key := range keys {
		a, err := dirauth.New(dirauth.Config{
			Network: n.file, Identity: key, Conn: n.sockets[i],
			Log: n.cfg.Log.With("authority", n.file.Authorities[i].Nickname),
		})
		if err != nil {
			return err
		}
		n.authorities = append(n.authorities, a)
	}
	for range n.cfg.Relays {
		if err := n.addMember(); err != nil {
			return err
		}
	}
	return nil
}

// addAuthority makes an authority's key and socket and names it in the network file.
func (n *Network) addAuthority(i int, keys []ed25519.PrivateKey) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("localnet: make a key: %w", err)
	}
	conn, err := n.cfg.Listen(netip.AddrPort{})
	if err != nil {
		return err
	}
	keys[i] = key
	n.sockets = append(n.sockets, conn)
	n.file.Authorities = append(n.file.Authorities, netdoc.Authority{
		Nickname: fmt.Sprintf("authority%d", i+1), ID: wire.PublicID(key), Addresses: []netip.AddrPort{addrOf(conn)},
	})
	return nil
}

func addrOf(conn net.PacketConn) netip.AddrPort {
	a := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// File returns the network file, with which clients and further relays find the network.
func (n *Network) File() *netdoc.Network { return n.file }

// Authorities returns the authorities, in the order of the network file.
func (n *Network) Authorities() []*dirauth.Authority { return n.authorities }

// Run runs the network until ctx ends, waits for all of it, and returns the first cause, nil after ctx.
func (n *Network) Run(ctx context.Context) error {
	defer n.closeSockets()
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range n.authorities {
		group.Go(func() error { return a.Run(ctx) })
	}
	group.Go(func() error { return n.runRelays(ctx, group) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// runRelays starts the relays and stays until ctx ends: relays come and go in the group meanwhile, and as
// long as one member stays it does not count as finished in between. None is started behind it.
func (n *Network) runRelays(ctx context.Context, group *errgroup.Group) error {
	n.mu.Lock()
	n.alive, n.group = ctx, group
	var err error
	for _, m := range n.relays {
		err = errors.Join(err, n.startLocked(m))
	}
	n.mu.Unlock()
	if err == nil {
		<-ctx.Done()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.alive, n.group = nil, nil
	return err
}

func (n *Network) closeSockets() {
	for _, s := range n.sockets {
		s.Close()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.relays {
		if m.socket != nil {
			m.socket.Close()
			m.socket = nil
		}
	}
}

// Start makes a network and runs it until Close.
func Start(cfg Config) (*Network, error) {
	n, err := New(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan struct{})
	go func() {
		defer close(n.ended)
		n.err = n.Run(ctx)
	}()
	return n, nil
}

// Close ends a network made by Start, waits for all of it, and returns what went wrong while it ran. Of a
// network made by New that never ran it frees the sockets; one that runs ends with Run's context.
func (n *Network) Close() error {
	if n.cancel == nil {
		n.closeSockets()
		return nil
	}
	n.cancel()
	<-n.ended
	return n.err
}
