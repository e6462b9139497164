package proxy

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Listeners are the TCP listeners of this process, which nothing in it ever proxies to: a web page could
// otherwise reach the front door, or make the proxy call itself, through the proxy. The zero value knows
// none; it is safe for concurrent use.
//
// A listener is known by its port together with any address of this machine, so that no other name of the
// machine (localhost, 127.0.0.2, an IPv4-mapped or decimal form) gets around it.
type Listeners struct {
	mu    sync.RWMutex
	ports map[uint16]struct{}
}

// Add makes a listener known; addresses of another kind than TCP are ignored.
func (l *Listeners) Add(addr net.Addr) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ports == nil {
		l.ports = map[uint16]struct{}{}
	}
	l.ports[uint16(tcp.Port)] = struct{}{}
}

// HasTarget reports whether HOST:PORT names a listener. A name that only an exit can resolve is not
// resolved: an exit in this process asks HasAddr about what it resolves to.
func (l *Listeners) HasTarget(target string) bool {
	host, p, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return false
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return l.hasPort(uint16(port))
	}
	addr, ok := parseHost(name)
	return ok && l.HasAddr(netip.AddrPortFrom(addr, uint16(port)))
}

// HasAddr reports whether a connection to this address would reach a listener.
func (l *Listeners) HasAddr(to netip.AddrPort) bool {
	return l.hasPort(to.Port()) && ofThisMachine(to.Addr())
}

func (l *Listeners) hasPort(port uint16) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, ok := l.ports[port]
	return ok
}

// ofThisMachine reports whether an address leads back to this machine. When the system does not say which
// addresses it has, every one may be ours.
func ofThisMachine(addr netip.Addr) bool {
	addr = addr.WithZone("").Unmap()
	to := append(embedded(addr), addr)
	for _, a := range to {
		if a.IsLoopback() || a.IsUnspecified() {
			return true
		}
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range own {
		if prefix, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(prefix.IP); ok && slices.Contains(to, ip.Unmap()) {
				return true
			}
		}
	}
	return false
}

// wraps are the forms of IPv6 addresses that have an IPv4 address inside: whoever sends to one may have it
// taken to the other by a translator or a tunnel on the way. A translator's prefix out of a site's own
// addresses can't be told from any other address.
var wraps = []struct {
	prefix netip.Prefix
	inside func(b [16]byte) []netip.Addr
}{
	{netip.MustParsePrefix("::/96"), last4},                                                     // IPv4-compatible (RFC 4291 section 2.5.5.1)
	{netip.MustParsePrefix("::ffff:0:0:0/96"), last4},                                           // IPv4-translated (RFC 2765 section 2.1)
	{netip.MustParsePrefix("64:ff9b::/96"), last4},                                              // NAT64 (RFC 6052 section 2.1)
	{netip.MustParsePrefix("64:ff9b:1::/48"), localNAT64},                                       // NAT64 for local use (RFC 8215)
	{netip.MustParsePrefix("2002::/16"), func(b [16]byte) []netip.Addr { return ipv4(b[2:6]) }}, // 6to4 (RFC 3056)
	{netip.MustParsePrefix("2001::/32"), teredo},                                                // RFC 4380 section 4
	{netip.MustParsePrefix("::/0"), isatap},                                                     // RFC 5214 section 6.1
}

// embedded returns the IPv4 addresses that may be meant by an IPv6 address.
func embedded(addr netip.Addr) (found []netip.Addr) {
	if !addr.Is6() {
		return nil
	}
	for _, w := range wraps {
		if w.prefix.Contains(addr) {
			found = append(found, w.inside(addr.As16())...)
		}
	}
	return found
}

func ipv4(b []byte) []netip.Addr { return []netip.Addr{netip.AddrFrom4([4]byte(b))} }

func last4(b [16]byte) []netip.Addr { return ipv4(b[12:]) }

// localNAT64 tries every place that RFC 6052 section 2.2 has for the IPv4 address: the prefix that a site
// takes out of the /48 may be of any length, and octet 8 is always left out. Zeros are no address but the
// end of a shorter prefix, except in the last place.
func localNAT64(b [16]byte) []netip.Addr {
	b48, b56 := []byte{b[6], b[7], b[9], b[10]}, []byte{b[7], b[9], b[10], b[11]}
	places := slices.Concat(ipv4(b48), ipv4(b56), ipv4(b[9:13]))
	return append(slices.DeleteFunc(places, netip.Addr.IsUnspecified), last4(b)...)
}

// teredo finds the client's address, whose bits are inverted.
func teredo(b [16]byte) []netip.Addr {
	return ipv4([]byte{^b[12], ^b[13], ^b[14], ^b[15]})
}

// isatap goes by the interface identifier, with the universal bit or without.
func isatap(b [16]byte) []netip.Addr {
	if b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		return last4(b)
	}
	return nil
}

// parseHost reads an address in any form that a resolver somewhere takes for one: also those of
// inet_aton(3), with one to four parts, each decimal, octal or hexadecimal.
func parseHost(host string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr, true
	}
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var v uint64
	for i, part := range parts {
		n, err := strconv.ParseUint(octal(part), 0, 32)
		if err != nil || strings.Contains(part, "_") {
			return netip.Addr{}, false
		}
		if last := i == len(parts)-1; last {
			if n >= 1<<(8*(5-len(parts))) {
				return netip.Addr{}, false
			}
			v = v<<(8*(5-len(parts))) | n
		} else if n > 255 {
			return netip.Addr{}, false
		} else {
			v = v<<8 | n
		}
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
}

// octal keeps "0o" and "0b", which strconv knows and inet_aton does not, from being numbers.
func octal(part string) string {
	if len(part) > 1 && part[0] == '0' && (part[1] == 'o' || part[1] == 'O' || part[1] == 'b' || part[1] == 'B') {
		return "-"
	}
	return part
}
