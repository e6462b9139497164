package netdoc

import (
	"math"
	"net/netip"
	"slices"
)

// All addresses of a family. Of two prefixes one lies in the other, or they have nothing in common: so sums tell
// exactly how much of a family a policy accepts, however many rules it has.
var (
	ipv4 = netip.MustParsePrefix("0.0.0.0/0")
	ipv6 = netip.MustParsePrefix("::/0")
)

// allowsMost reports whether the rules accept more than half of the addresses of a family that are not special.
// IPv6 addresses that carry IPv4 ones count as what they look like; they are too few to matter.
func (p Policy) allowsMost(port uint16, family netip.Prefix, special []netip.Prefix) bool {
	var decided space
	for _, s := range special {
		decided.add(s)
	}
	public, accepted := sizeOf(family)-decided.size(), 0.0
	for i := range p.rules {
		r := &p.rules[i]
		if !r.hasPort(port) || r.host == hostPrivate || r.host == hostPrefix && r.prefix.Addr().Is4() != family.Addr().Is4() {
			continue
		}
		reach := family
		if r.host == hostPrefix {
			reach = r.prefix
		}
		if fresh := decided.add(reach); r.accept {
			accepted += fresh
		}
	}
	return accepted > public/2
}

// space is a set of addresses, as prefixes of which none lies in another.
type space []netip.Prefix

// add adds a prefix, and returns how much of it is new.
func (s *space) add(p netip.Prefix) (fresh float64) {
	if slices.ContainsFunc(*s, func(q netip.Prefix) bool { return within(p, q) }) {
		return 0
	}
	before := s.size()
	*s = slices.DeleteFunc(*s, func(q netip.Prefix) bool { return within(q, p) })
	*s = append(*s, p)
	return s.size() - before
}

func (s space) size() (sum float64) {
	for _, p := range s {
		sum += sizeOf(p)
	}
	return sum
}

// sizeOf is the part of its family that a prefix is.
func sizeOf(p netip.Prefix) float64 { return math.Ldexp(1, -p.Bits()) }
