package localnet

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"torproxy/relay"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// Errors of stopping and starting relays.
var (
	ErrNoRelay = errors.New("localnet: no such relay")
	ErrStopped = errors.New("localnet: the network does not run")
)

// member is a relay of the network, running or stopped. Its fields are under Network.mu.
type member struct {
	index  int
	key    ed25519.PrivateKey
	addr   netip.AddrPort
	socket net.PacketConn     // nil while stopped
	cancel context.CancelFunc // nil while stopped or stopping
	done   chan struct{}      // closed when it has stopped; nil if it never ran
}

// RelayInfo is a relay of the network as the network's owner sees it.
type RelayInfo struct {
	ID       wire.ID
	Nickname string
	Address  netip.AddrPort
	Exit     bool
	Running  bool
}

// Relays lists the relays in the order in which they were added.
func (n *Network) Relays() []RelayInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	infos := make([]RelayInfo, len(n.relays))
	for i, m := range n.relays {
		infos[i] = RelayInfo{ID: wire.PublicID(m.key), Nickname: m.nickname(), Address: m.addr, Exit: n.isExit(m.index), Running: m.cancel != nil}
	}
	return infos
}

func (m *member) nickname() string { return fmt.Sprintf("relay%d", m.index+1) }

// isExit makes the last relays of the first ones, and every one added later, exits.
func (n *Network) isExit(index int) bool { return index >= n.cfg.Relays-n.cfg.Exits }

// AddRelay adds an exit relay to a running network and starts it.
func (n *Network) AddRelay() (wire.ID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.alive == nil {
		return wire.ID{}, ErrStopped
	}
	if err := n.addMember(); err != nil {
		return wire.ID{}, err
	}
	m := n.relays[len(n.relays)-1]
	if err := n.startLocked(m); err != nil {
		n.relays = n.relays[:len(n.relays)-1]
		return wire.ID{}, err
	}
	return wire.PublicID(m.key), nil
}

// addMember makes a relay's key and socket. n.mu is held, or nobody else has n yet.
func (n *Network) addMember() error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("localnet: make a key: %w", err)
	}
	socket, err := n.cfg.Listen(netip.AddrPort{})
	if err != nil {
		return err
	}
	n.relays = append(n.relays, &member{index: len(n.relays), key: key, addr: addrOf(socket), socket: socket})
	return nil
}

// StartRelay starts a stopped relay, with the identity and the address that it had. One that is just being
// stopped is waited for.
func (n *Network) StartRelay(id wire.ID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.find(id)
	if m == nil {
		return ErrNoRelay
	}
	for m.cancel == nil && m.socket != nil && m.done != nil {
		n.awaitLocked(m.done)
	}
	switch {
	case n.alive == nil:
		return ErrStopped
	case m.cancel != nil:
		return nil
	}
	socket, err := n.cfg.Listen(m.addr)
	if err != nil {
		return err
	}
	m.socket = socket
	return n.startLocked(m)
}

// StopRelay stops a relay at once, as if its machine had been switched off, and waits until it has.
func (n *Network) StopRelay(id wire.ID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.find(id)
	if m == nil {
		return ErrNoRelay
	}
	if m.cancel != nil {
		m.cancel()
		m.cancel = nil
	}
	if m.done != nil {
		n.awaitLocked(m.done)
	}
	return nil
}

// awaitLocked waits for a relay's end without n.mu.
func (n *Network) awaitLocked(done <-chan struct{}) {
	n.mu.Unlock()
	<-done
	n.mu.Lock()
}

func (n *Network) find(id wire.ID) *member {
	for _, m := range n.relays {
		if wire.PublicID(m.key) == id {
			return m
		}
	}
	return nil
}

// startLocked makes a relay that has its socket and runs it. n.mu is held; without an error the relay is
// the network's, and its failure is the network's too.
func (n *Network) startLocked(m *member) error {
	r, err := n.newRelay(m)
	if err != nil {
		m.socket.Close()
		m.socket = nil
		return err
	}
	ctx, cancel := context.WithCancel(n.alive)
	done := make(chan struct{})
	m.cancel, m.done = cancel, done
	n.group.Go(func() error {
		defer close(done)
		defer n.stopped(m)
		defer cancel()
		return r.Run(ctx)
	})
	return nil
}

// stopped closes the socket of a relay whose Run has returned.
func (n *Network) stopped(m *member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m.socket.Close()
	m.socket, m.cancel = nil, nil
}

func (n *Network) newRelay(m *member) (*relay.Relay, error) {
	cfg := relay.Config{
		Network: n.file, Identity: m.key, Conn: m.socket, Nickname: m.nickname(), Bandwidth: bandwidth,
		Own: n.cfg.Own, Log: n.cfg.Log.With("relay", m.nickname()),
	}
	if n.isExit(m.index) {
		policy, err := netdoc.ParsePolicy(Policy)
		if err != nil {
			return nil, err
		}
		cfg.Policy = policy
	}
	if n.cfg.Relay != nil {
		n.cfg.Relay(m.index, &cfg)
	}
	return relay.New(cfg)
}
