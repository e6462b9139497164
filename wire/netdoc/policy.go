package netdoc

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Policy says to which addresses and ports a relay lets traffic out: rules of which the first match wins,
// and no match is reject. The zero value rejects all. A Policy is immutable and safe for concurrent use.
type Policy struct {
	rules []rule
	text  string // the canonical form
}

type rule struct {
	accept    bool
	host      host
	prefix    netip.Prefix // if host is hostPrefix
	low, high uint16       // ports, both included
}

type host uint8

const (
	hostAny     host = iota // "*": every address that is not special
	hostPrivate             // "private": every address that is special
	hostPrefix
)

// ParsePolicy reads comma-separated rules "accept|reject HOST:PORTS": HOST is "*", "private", an address or
// a prefix, IPv6 in brackets as in [2001:db8::]/32; PORTS is "*", a port, or LOW-HIGH. Space around a rule
// and between its two words may be any. An error quotes the rule that is wrong.
func ParsePolicy(s string) (Policy, error) {
	p, err := parsePolicy(s)
	if err != nil {
		return Policy{}, fmt.Errorf("netdoc: exit policy: %w", err)
	}
	return p, nil
}

func parsePolicy(s string) (Policy, error) {
	if strings.TrimSpace(s) == "" {
		return Policy{}, nil
	}
	var p Policy
	for text := range strings.SplitSeq(s, ",") {
		if len(p.rules) == MaxPolicyRules {
			return Policy{}, fmt.Errorf("more than %d rules", MaxPolicyRules)
		}
		r, err := parseRule(text)
		if err != nil {
			return Policy{}, fmt.Errorf("rule %.80q: %w", strings.TrimSpace(text), err)
		}
		p.rules = append(p.rules, r)
	}
	p.text = writeRules(p.rules)
	return p, p.check()
}

// parseCanonicalPolicy reads a policy inside a document.
func parseCanonicalPolicy(s string) (Policy, error) {
	if len(s) > MaxPolicyText {
		return Policy{}, fmt.Errorf("%d bytes are more than %d", len(s), MaxPolicyText)
	}
	p, err := parsePolicy(s)
	if err == nil && p.text != s {
		err = errors.New("not in canonical form")
	}
	return p, err
}

func (p Policy) check() error {
	if len(p.text) > MaxPolicyText {
		return fmt.Errorf("%d bytes are more than %d", len(p.text), MaxPolicyText)
	}
	return nil
}

func parseRule(s string) (rule, error) {
	words := strings.Fields(s)
	if len(words) != 2 {
		return rule{}, errors.New("not of the form accept HOST:PORTS or reject HOST:PORTS")
	}
	var r rule
	switch words[0] {
	case "accept":
		r.accept = true
	case "reject":
	default:
		return rule{}, fmt.Errorf("%.20q is neither accept nor reject", words[0])
	}
	// The last colon: those of an IPv6 address stand in brackets.
	colon := strings.LastIndexByte(words[1], ':')
	if colon < 0 || colon < strings.LastIndexByte(words[1], ']') {
		return rule{}, errors.New("no ports: write HOST:* for all")
	}
	err := first(r.parseHost(words[1][:colon]), r.parsePorts(words[1][colon+1:]))
	return r, err
}

func (r *rule) parseHost(s string) (err error) {
	switch s {
	case "*":
		r.host = hostAny
		return nil
	case "private":
		r.host = hostPrivate
		return nil
	}
	r.host = hostPrefix
	r.prefix, err = parsePrefix(s)
	return err
}

// parsePrefix reads ADDRESS or ADDRESS/LENGTH with an IPv6 address in brackets.
func parsePrefix(s string) (netip.Prefix, error) {
	text, length, hasLength := strings.Cut(s, "/")
	inner, bracketed := strings.CutPrefix(text, "[")
	if bracketed {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, "]"); !closed {
			return netip.Prefix{}, errors.New("a bracket is missing")
		}
	}
	addr, err := netip.ParseAddr(inner)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%.80q is no address, no prefix, not * and not private", s)
	case addr.Is6() != bracketed:
		return netip.Prefix{}, errors.New("IPv6 addresses stand in brackets, IPv4 addresses do not")
	case addr.Zone() != "":
		return netip.Prefix{}, errors.New("an address with a zone")
	case addr.Is4In6():
		return netip.Prefix{}, errors.New("an IPv4-mapped address: write the IPv4 address")
	}
	bits := addr.BitLen()
	if hasLength {
		if bits, err = parseNumber(length, addr.BitLen()); err != nil {
			return netip.Prefix{}, field("prefix length", err)
		}
	}
	p := netip.PrefixFrom(addr, bits)
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("bits are set behind the prefix length; the prefix is %v", p.Masked())
	}
	return p, nil
}

func (r *rule) parsePorts(s string) error {
	if s == "*" {
		r.low, r.high = 1, 65535
		return nil
	}
	lowText, highText, isRange := strings.Cut(s, "-")
	if !isRange {
		highText = lowText
	}
	low, err := parseNumber(lowText, 65535)
	if err != nil {
		return field("port", err)
	}
	high, err := parseNumber(highText, 65535)
	if err != nil {
		return field("port", err)
	}
	if low == 0 || low > high {
		return errors.New("ports are 1 to 65535, the lower one first")
	}
	r.low, r.high = uint16(low), uint16(high)
	return nil
}

// parseNumber reads decimal digits without sign or leading zeros, at most max.
func parseNumber(s string, max int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > max || strconv.Itoa(n) != s {
		return 0, fmt.Errorf("%.20q is not a number from 0 to %d", s, max)
	}
	return n, nil
}

// String returns the canonical form, which ParsePolicy reads back to an equal policy; that of the zero
// value is empty.
func (p Policy) String() string { return p.text }

// Equal reports whether both policies have the same rules.
func (p Policy) Equal(q Policy) bool { return p.text == q.text }

func writeRules(rules []rule) string {
	var b strings.Builder
	for i, r := range rules {
		if i > 0 {
			b.WriteByte(',')
		}
		r.write(&b)
	}
	return b.String()
}

func (r *rule) write(b *strings.Builder) {
	if r.accept {
		b.WriteString("accept ")
	} else {
		b.WriteString("reject ")
	}
	switch r.host {
	case hostAny:
		b.WriteByte('*')
	case hostPrivate:
		b.WriteString("private")
	default:
		addr := r.prefix.Addr()
		if addr.Is6() {
			b.WriteString("[" + addr.String() + "]")
		} else {
			b.WriteString(addr.String())
		}
		if !r.prefix.IsSingleIP() {
			b.WriteString("/" + strconv.Itoa(r.prefix.Bits()))
		}
	}
	switch {
	case r.low == 1 && r.high == 65535:
		b.WriteString(":*")
	case r.low == r.high:
		fmt.Fprintf(b, ":%d", r.low)
	default:
		fmt.Fprintf(b, ":%d-%d", r.low, r.high)
	}
}

// Allows reports whether the policy accepts a connection to that address and port. The address is the one
// that is really dialled. An IPv4-mapped address is judged as its IPv4 address; an address that carries
// IPv4 addresses (NAT64, 6to4, Teredo) is accepted only if these are accepted too. An address with a zone
// and port 0 are never accepted.
func (p Policy) Allows(to netip.AddrPort) bool {
	if !to.IsValid() || to.Addr().Zone() != "" || to.Port() == 0 {
		return false
	}
	addr := to.Addr().Unmap()
	if !p.accepts(addr, to.Port()) {
		return false
	}
	for _, inner := range carried(addr) {
		if !p.accepts(inner, to.Port()) {
			return false
		}
	}
	return true
}

func (p Policy) accepts(addr netip.Addr, port uint16) bool {
	special := IsSpecial(addr)
	for i := range p.rules {
		if r := &p.rules[i]; r.hasPort(port) && r.matches(addr, special) {
			return r.accept
		}
	}
	return false
}

func (r *rule) hasPort(port uint16) bool { return r.low <= port && port <= r.high }

func (r *rule) matches(addr netip.Addr, special bool) bool {
	switch r.host {
	case hostAny:
		return !special
	case hostPrivate:
		return special
	}
	// An accept rule that is wider than a special range does not reach into it: 0.0.0.0/0 must not be a
	// second, careless spelling of "accept private".
	return r.prefix.Contains(addr) && (!r.accept || !special || allSpecial(r.prefix))
}

// AllowsAddress reports whether the policy accepts a connection to that address with some port: whether
// there is any use in knowing it.
func (p Policy) AllowsAddress(addr netip.Addr) bool {
	// Where what the rules say changes, as ports rise, a rule begins or has just ended.
	for i := range p.rules {
		r := &p.rules[i]
		if p.Allows(netip.AddrPortFrom(addr, r.low)) || r.high < 65535 && p.Allows(netip.AddrPortFrom(addr, r.high+1)) {
			return true
		}
	}
	return false
}

// AllowsPort reports whether most of the public IPv4 addresses, or most of the public IPv6 addresses, are accepted
// with that port: what a client asks when it chooses an exit for a name. An exit for a few addresses would
// learn of every name that it is drawn for, and refuse nearly all.
func (p Policy) AllowsPort(port uint16) bool {
	for i := range p.rules {
		switch r := &p.rules[i]; {
		case !r.hasPort(port) || r.host == hostPrivate:
		case r.host == hostAny: // the usual policy: no prefix stands before it
			return r.accept
		default:
			return p.allowsMost(port, ipv4, special4) || p.allowsMost(port, ipv6, special6)
		}
	}
	return false
}

// IsExit reports whether the policy accepts anything at all, as far as one reject rule before each accept
// rule tells.
func (p Policy) IsExit() bool {
	for i := range p.rules {
		if r := &p.rules[i]; r.accept && !p.covered(i, r.low, r.high) {
			return true
		}
	}
	return false
}

func (r *rule) reachesPublic() bool {
	return r.host == hostAny || r.host == hostPrefix && !allSpecial(r.prefix)
}

// covered reports whether one reject rule before rule i, an accept rule, takes from it all addresses with
// the ports low to high.
func (p Policy) covered(i int, low, high uint16) bool {
	r := &p.rules[i]
	for j := range p.rules[:i] {
		q := &p.rules[j]
		if !q.accept && q.low <= low && high <= q.high && q.covers(r) {
			return true
		}
	}
	return false
}

func (r *rule) covers(a *rule) bool {
	switch r.host {
	case hostAny:
		return a.reachesPublic() // an accept rule's prefix that is not all special reaches no special address
	case hostPrivate:
		return !a.reachesPublic()
	}
	return a.host == hostPrefix && within(a.prefix, r.prefix)
}
