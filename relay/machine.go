package relay

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// machine knows the addresses of the machine that a relay runs on. What listens on one of them may be meant
// for the machine itself, or stand behind a packet filter that only looks at what comes from outside; and
// the relay comes from inside. So an exit treats them like 127.0.0.1, however public they are. It is safe
// for concurrent use.
type machine struct {
	advertised []netip.AddrPort // may be those of a NAT in front, which leads back here
	interfaces func() ([]net.Addr, error)

	mu     sync.Mutex
	read   time.Time
	its    map[netip.Addr]struct{}
	wasErr error
}

func newMachine(advertised []netip.AddrPort) *machine {
	return &machine{advertised: advertised, interfaces: net.InterfaceAddrs}
}

// has reports whether an address is the machine's; the list is at most machineLife old. An error means
// that nobody can tell.
func (m *machine) has(addr netip.Addr) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); m.its == nil || now.Sub(m.read) >= machineLife {
		m.read = now
		m.wasErr = m.list()
	}
	_, ok := m.its[addr]
	return ok, m.wasErr
}

// list reads the addresses. m.mu is held.
func (m *machine) list() error {
	m.its = map[netip.Addr]struct{}{}
	for _, a := range m.advertised {
		m.its[a.Addr().Unmap()] = struct{}{}
	}
	all, err := m.interfaces()
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			m.its[prefix.Addr().Unmap().WithZone("")] = struct{}{}
		}
	}
	return err
}
