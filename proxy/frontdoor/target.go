package frontdoor

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// target is a destination in canonical form: what is compared, pooled by, checked and dialled is one and
// the same string.
type target struct {
	host string     // lower-case name, or addr's text without brackets
	addr netip.Addr // valid when the host is an address; unmapped, without zone
	port uint16     // not 0
}

// String returns HOST:PORT with IPv6 in brackets.
func (t target) String() string {
	return net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

// authority is what a Host field says: without the port if that is http's.
func (t target) authority() string {
	if t.port == 80 {
		return strings.TrimSuffix(t.String(), ":80")
	}
	return t.String()
}

// Longest name and label of the DNS in its text form (RFC 1035 section 2.3.4), without a final dot.
const (
	maxName  = 253
	maxLabel = 63
)

// parseTarget reads an authority, HOST[:[PORT]]. Without a port it takes defaultPort; 0 means that there
// must be one. Names are lower-cased and may end in a dot. Every form of an IPv4 address that a resolver's
// inet_aton would take (2130706433, 0x7f.1, 127.1) comes out as four decimal numbers, and a mapped IPv6
// address as the IPv4 address that it wraps: a destination has one spelling from here on.
func parseTarget(authority string, defaultPort uint16) (target, error) {
	host, port, err := splitAuthority(authority)
	if err != nil {
		return target{}, err
	}
	t := target{port: defaultPort}
	if port != "" {
		if t.port, err = parsePort(port); err != nil {
			return target{}, err
		}
	}
	if t.port == 0 {
		return target{}, errors.New("the port is missing")
	}
	if strings.HasPrefix(host, "[") {
		t.addr, err = parseIPv6(host)
	} else if endsInNumber(host) {
		t.addr, err = parseIPv4(host)
	} else {
		t.host, err = parseName(host)
	}
	if err != nil {
		return target{}, err
	}
	if t.addr.IsValid() {
		t.addr = t.addr.Unmap()
		t.host = t.addr.String()
	}
	return t, nil
}

// splitAuthority cuts the port off; an IPv6 host keeps its brackets.
func splitAuthority(s string) (host, port string, err error) {
	host, port = s, ""
	end := strings.LastIndexByte(s, ']') + 1
	if colon := strings.IndexByte(s[end:], ':'); colon >= 0 {
		host, port = s[:end+colon], s[end+colon+1:]
	}
	switch {
	case host == "":
		return "", "", errors.New("the host is missing")
	case strings.Contains(port, ":"):
		return "", "", errors.New("an IPv6 address needs brackets: [2001:db8::1]:80")
	}
	return host, port, nil
}

func parsePort(s string) (uint16, error) {
	for _, c := range []byte(s) {
		if !isDigit(c) {
			return 0, fmt.Errorf("the port %.20q is not a number", s)
		}
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || len(s) > 5 {
		return 0, fmt.Errorf("the port %.20q is not between 1 and 65535", s)
	}
	return uint16(n), nil
}

func parseIPv6(bracketed string) (netip.Addr, error) {
	inner, closed := strings.CutSuffix(bracketed[1:], "]")
	a, err := netip.ParseAddr(inner)
	if !closed || err != nil || !a.Is6() {
		return netip.Addr{}, fmt.Errorf("%.60q is not an IPv6 address", bracketed)
	}
	if a.Zone() != "" {
		return netip.Addr{}, errors.New("an address with a zone is reachable only from its own machine")
	}
	return a, nil
}

// endsInNumber reports whether a host's last label makes it an IPv4 address rather than a name (WHATWG URL
// standard, "ends-in-a-number checker"): no top-level domain is a number.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" {
		return false
	}
	if hex, ok := cutHex(last); ok {
		return strings.Trim(hex, "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

// parseIPv4 reads one to four numbers, decimal, octal (0...) or hexadecimal (0x...), of which the last fills
// the bytes that are left, as inet_aton does.
func parseIPv4(host string) (netip.Addr, error) {
	bad := fmt.Errorf("%.60q is not an IPv4 address", host)
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, bad
	}
	var sum uint64
	for i, part := range parts {
		n, ok := parseNumber(part)
		most := uint64(math.MaxUint8)
		if i == len(parts)-1 {
			most = math.MaxUint32 >> (8 * i)
			sum <<= 8 * (4 - i)
		} else {
			sum <<= 8
		}
		if !ok || n > most {
			return netip.Addr{}, bad
		}
		sum += n
	}
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}), nil
}

func parseNumber(s string) (uint64, bool) {
	base := 10
	if hex, ok := cutHex(s); ok {
		if hex == "" {
			return 0, true // "0x" alone is zero to inet_aton's kin
		}
		s, base = hex, 16
	} else if len(s) > 1 && s[0] == '0' {
		base = 8
	}
	if s == "" || s[0] == '+' || s[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 64)
	return n, err == nil
}

func cutHex(s string) (string, bool) {
	if len(s) >= 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		return s[2:], true
	}
	return s, false
}

func parseName(host string) (string, error) {
	name, _ := strings.CutSuffix(host, ".")
	if len(name) > maxName {
		return "", fmt.Errorf("the name %.40q... is longer than %d bytes", host, maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return "", fmt.Errorf("the name %.60q has a part of %d bytes; 1 to %d are possible", host, len(label), maxLabel)
		}
	}
	for _, c := range []byte(name) {
		if c >= 0x80 {
			return "", fmt.Errorf("the name %.60q is not in ASCII; write it in its xn-- form", host)
		}
		if !isNameByte(c) {
			return "", fmt.Errorf("the name %.60q has a character that no host name has", host)
		}
	}
	return strings.ToLower(host), nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isNameByte admits the underscore: host names that exist have it.
func isNameByte(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '-' || c == '_' || c == '.'
}
