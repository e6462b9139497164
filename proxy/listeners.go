package proxy

import (
	"net"
	"net/netip"
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
	addr = embedded(addr)
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range own {
		if prefix, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(prefix.IP); ok && ip.Unmap() == addr {
				return true
			}
		}
	}
	return false
}

// embedded returns the IPv4 address inside an IPv4-mapped, IPv4-compatible or NAT64 one.
func embedded(addr netip.Addr) netip.Addr {
	addr = addr.WithZone("").Unmap()
	if !addr.Is6() {
		return addr
	}
	b := addr.As16()
	for _, wrap := range []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("::/96")} {
		if wrap.Contains(addr) && addr != netip.IPv6Loopback() && !addr.IsUnspecified() {
			return netip.AddrFrom4([4]byte(b[12:]))
		}
	}
	return addr
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
