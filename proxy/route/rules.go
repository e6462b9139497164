package route

import (
	"net/netip"
	"slices"

	"torproxy/wire/netdoc"
)

// rules are what two relays of one route must keep; distinctness always holds.
type rules struct {
	family, subnet bool
}

// conflict reports whether two relays may not share a route.
func (r rules) conflict(a, b *netdoc.Relay) bool {
	return a.ID == b.ID || r.family && sameFamily(a, b) || r.subnet && sameSubnet(a, b)
}

// sameFamily reports whether each of two relays names the other. One alone does not count: a relay that
// names all honest ones would keep them out of its routes and share them with its accomplices only.
func sameFamily(a, b *netdoc.Relay) bool {
	return slices.Contains(a.Family, b.ID) && slices.Contains(b.Family, a.ID)
}

// sameSubnet reports whether any address of one relay lies in the subnet of any address of the other.
func sameSubnet(a, b *netdoc.Relay) bool {
	for _, x := range a.Addresses {
		for _, y := range b.Addresses {
			if subnet(x.Addr()) == subnet(y.Addr()) {
				return true
			}
		}
	}
	return false
}

// subnet returns the network that one operator is assumed to rent whole: IPv4 /16, IPv6 /32.
func subnet(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap()
	size := 32
	if addr.Is4() {
		size = 16
	}
	prefix, err := addr.WithZone("").Prefix(size)
	if err != nil {
		return netip.Prefix{} // no address at all: alike to its like only
	}
	return prefix
}
