package relay

import (
	"iter"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// This file is what HTTP header fields may look like, and which of them pass an exit. The same ones are
// taken out of requests and of responses.

// hopByHop are the fields that are for the next machine only (RFC 9110, section 7.6.1), and those that say
// where a body ends: net/http writes its own towards the destination, reply.go towards the client.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Content-Length",
}

// naming are parts of names that proxies and carriers give to fields that say who the client is, without
// their hyphens: X-Forwarded-For, True-Client-IP, CF-Connecting-IP, X-Nokia-MSISDN and their many kin.
var naming = []string{
	"forwarded", "clientip", "realip", "remoteip", "remoteaddr", "remotehost", "connectingip", "userip",
	"originatingip", "sourceip", "trueip", "peerip", "msisdn", "xuidh", "xupsubno", "xupcalling",
}

// strip takes out what does not pass an exit: fields of one hop and those that Connection names, fields that
// name the client or the machines on the way, and those between front door and exit (Torproxy-).
func strip(h http.Header) {
	for name := range listed(h["Connection"]) {
		delete(h, http.CanonicalHeaderKey(name))
	}
	for name := range h {
		if !passes(name) {
			delete(h, name)
		}
	}
}

// passes reports whether a field, its name in canonical form, may go on.
func passes(name string) bool {
	if slices.Contains(hopByHop, name) || name == "Via" || name == "From" {
		return false
	}
	lower := strings.ToLower(name)
	if strings.HasPrefix(lower, "proxy-") || strings.HasPrefix(lower, "torproxy-") || strings.HasSuffix(lower, "-via") {
		return false
	}
	plain := strings.NewReplacer("-", "", "_", "").Replace(lower)
	return !slices.ContainsFunc(naming, func(part string) bool { return strings.Contains(plain, part) })
}

// mayTrail reports whether a field may stand behind a body: one that frames, routes or authenticates a
// message must not come after it (RFC 9110, section 6.5.1).
func mayTrail(name string) bool {
	switch name {
	case "Host", "Expect", "Range", "Authorization", "Set-Cookie", "Cookie", "Cache-Control", "Max-Forwards",
		"Content-Encoding", "Content-Type", "Content-Range":
		return false
	}
	return passes(name)
}

// listed yields the elements of fields that are lists.
func listed(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, v := range values {
			for element := range strings.SplitSeq(v, ",") {
				if element = strings.Trim(element, " \t"); element != "" && !yield(element) {
					return
				}
			}
		}
	}
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// isFieldValue reports whether s has no control character but tab.
func isFieldValue(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isAuthority reports whether s has the form of a Host field: a name or an address, perhaps a port. What
// some server might take for a path, a user or a list is not of that form.
func isAuthority(s string) bool {
	host, port := splitAuthority(s)
	if strings.Trim(port, "0123456789") != "" {
		return false
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return ok && err == nil && addr.Is6() && addr.Zone() == ""
	}
	for _, c := range []byte(host) {
		if !isAlphanumeric(c) && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return host != ""
}

// sameAuthority reports whether two of HOST or HOST:PORT mean the same; without a port, it is 80.
func sameAuthority(a, b string) bool {
	hostA, portA := splitAuthority(a)
	hostB, portB := splitAuthority(b)
	return strings.EqualFold(hostA, hostB) && portA == portB
}

// splitAuthority splits HOST or HOST:PORT; brackets stay.
func splitAuthority(s string) (host, port string) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || colon < strings.LastIndexByte(s, ']') {
		return s, "80"
	}
	return s[:colon], s[colon+1:]
}
