package netdoc

import "net/netip"

// Special addresses: those that are not globally reachable unicast by IANA's registries, and those that
// carry such an IPv4 address inside. No "*" of a policy includes them.

var special4 = prefixes(
	"0.0.0.0/8",       // this network; 0.0.0.0 reaches the machine itself
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // shared, behind carriers' NAT
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, where clouds keep their metadata
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays, deprecated
	"192.168.0.0/16",  // private
	"198.18.0.0/15",   // benchmarking
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, and broadcast
)

var special6 = prefixes(
	"::/3",          // all outside 2000::/3: loopback, unspecified, IPv4-compatible, 64:ff9b:1::/48, ...
	"4000::/2",      // not allocated
	"8000::/1",      // unique local, link-local, multicast
	"2001::/23",     // protocol assignments: Teredo, benchmarking, ORCHID
	"2001:db8::/32", // documentation
	"3fff::/20",     // documentation
)

// Prefixes whose addresses carry IPv4 addresses that a machine or its network may send them to.
var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
	teredo = netip.MustParsePrefix("2001::/32")
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// IsSpecial reports whether an address is special: not globally reachable unicast, or carrying such an IPv4
// address inside. An IPv4-mapped address is its IPv4 address; the zero Addr is special.
func IsSpecial(a netip.Addr) bool {
	if !a.IsValid() {
		return true
	}
	a = a.Unmap().WithZone("")
	return allSpecial(netip.PrefixFrom(a, a.BitLen()))
}

// allSpecial reports whether every address of p is special.
func allSpecial(p netip.Prefix) bool {
	list := special6
	switch {
	case p.Addr().Is4():
		list = special4
	case within(p, nat64):
		return allSpecial(inside4(p, 96))
	case within(p, sixTo4) && allSpecial(inside4(p, 16)):
		return true
	}
	for _, s := range list {
		if within(p, s) {
			return true
		}
	}
	return false
}

// within reports whether all of p lies in q.
func within(p, q netip.Prefix) bool { return p.Bits() >= q.Bits() && q.Contains(p.Addr()) }

// inside4 returns the IPv4 prefix that an IPv6 prefix of at least offset bits carries from bit offset on.
func inside4(p netip.Prefix, offset int) netip.Prefix {
	b := p.Addr().As16()
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[offset/8:])), min(p.Bits()-offset, 32))
}

// carried returns the IPv4 addresses inside an IPv6 address: none, one (NAT64, 6to4), or two (Teredo: the
// server, and the client with its bits inverted).
func carried(a netip.Addr) []netip.Addr {
	if a.Is4() {
		return nil
	}
	at := func(offset int, flip byte) netip.Addr {
		b := a.As16()
		v := [4]byte(b[offset:])
		for i := range v {
			v[i] ^= flip
		}
		return netip.AddrFrom4(v)
	}
	switch {
	case nat64.Contains(a):
		return []netip.Addr{at(12, 0)}
	case sixTo4.Contains(a):
		return []netip.Addr{at(2, 0)}
	case teredo.Contains(a):
		return []netip.Addr{at(4, 0), at(12, 0xff)}
	}
	return nil
}
