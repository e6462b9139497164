package socks

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	socks5 "github.com/armon/go-socks5"
)

// maxName is the longest name a request can carry: its length is one byte.
const maxName = 255

var (
	errPort = errors.New("socks: port 0")
	errHost = errors.New("socks: the destination is neither a host name nor an IP address")
	errZone = errors.New("socks: IPv6 zones mean nothing on another machine")
)

// destination checks where a request wants to go and returns it as HOST:PORT, in the form of
// Request.Target: one spelling for one destination.
func destination(a *socks5.AddrSpec) (string, error) {
	if a.Port < 1 || a.Port > 65535 {
		return "", errPort
	}
	addr, name, err := host(a)
	switch {
	case err != nil:
		return "", err
	case addr.IsValid():
		return netip.AddrPortFrom(addr, uint16(a.Port)).String(), nil
	default:
		return net.JoinHostPort(name, strconv.Itoa(a.Port)), nil
	}
}

// host is what a request names: an address, or else a name in lower case. An IPv4 address in IPv6 clothes
// is an IPv4 address.
func host(a *socks5.AddrSpec) (addr netip.Addr, name string, err error) {
	if a.FQDN == "" { // an address, or a name of length zero
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			return netip.Addr{}, "", errHost
		}
		return addr.Unmap(), "", nil
	}
	if addr, err := netip.ParseAddr(unbracket(a.FQDN)); err == nil { // an address sent as a name
		if addr.Zone() != "" {
			return netip.Addr{}, "", errZone
		}
		return addr.Unmap(), "", nil
	}
	if !isName(a.FQDN) {
		return netip.Addr{}, "", errHost
	}
	return netip.Addr{}, strings.ToLower(a.FQDN), nil
}

// unbracket accepts an IPv6 address in the form URLs have it.
func unbracket(s string) string {
	if in, ok := strings.CutPrefix(s, "["); ok && strings.Contains(in, ":") {
		if in, ok = strings.CutSuffix(in, "]"); ok {
			return in
		}
	}
	return s
}

// isName reports whether s can be a host name: labels of letters, digits, hyphens and underscores with
// single dots between them and perhaps one at the end, and not ending in a number.
func isName(s string) bool {
	if len(s) > maxName {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if !isLabel(label) {
			return false
		}
		last = label
	}
	return !isNumber(last)
}

func isLabel(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != ""
}

// isNumber reports whether a last label makes a name an IPv4 address for a resolver of the inet_aton
// kind: 127.1, 0x7f.1, 2130706433. No such top-level domain exists; were it let through, it could reach
// an address that no rule had recognised (URL Standard, "ends in a number").
func isNumber(label string) bool {
	digits, base := label, 10
	if len(label) >= 2 && label[0] == '0' && label[1]|0x20 == 'x' {
		digits, base = label[2:], 16
	}
	for i := range len(digits) {
		c := digits[i]
		if !('0' <= c && c <= '9' || base == 16 && 'a' <= c|0x20 && c|0x20 <= 'f') {
			return false
		}
	}
	return true
}
