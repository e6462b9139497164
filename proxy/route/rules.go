package route

import (
	"net/netip"
	"slices"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// rules are what two relays of one route must keep; distinctness always holds.
type rules struct {
	family, subnet bool
}

// conflict reports whether two relays may not share a route.
func (r rules) conflict(a, b *node) bool {
	return a == b || r.family && sameFamily(a.relay, b.relay) || r.subnet && sameSubnet(a.subnets, b.subnets)
}

// sameFamily reports whether each of two relays names the other. One alone does not count: a relay that
// names all honest ones would keep them out of its routes and share them with its accomplices only.
func sameFamily(a, b *netdoc.Relay) bool { return names(a.Family, b.ID) && names(b.Family, a.ID) }

func names(family []wire.ID, id wire.ID) bool {
	if len(family) == 0 {
		return false
	}
	_, found := slices.BinarySearchFunc(family, id, netdoc.CompareIDs)
	return found
}

// sameSubnet reports whether any address of one relay lies in the subnet of any address of the other.
func sameSubnet(a, b []subnet) bool {
	for _, s := range a {
		if slices.Contains(b, s) {
			return true
		}
	}
	return false
}

// subnet is a network that one operator is assumed to rent whole, IPv4 /16 or IPv6 /32: its leading bytes,
// behind one that tells the families apart.
type subnet [5]byte

func subnetOf(addr netip.Addr) (s subnet) {
	addr = addr.Unmap()
	switch {
	case addr.Is4():
		a := addr.As4()
		s[0] = 4
		copy(s[1:], a[:2])
	case addr.Is6():
		a := addr.As16()
		s[0] = 6
		copy(s[1:], a[:4])
	}
	return s // no address at all: alike to its like only
}
