package frontdoor

import (
	"strings"
)

// ours reports whether t leads back to a listener of this process. Were it dialled, a web page could reach
// the front door past its guard, and a request could run in a circle.
func (d *door) ours(t target) bool {
	if t.port == d.addr.Port() && (isLocalhost(t.host) || d.ownAddr(t)) {
		return true
	}
	return d.Own != nil && d.Own(t.String())
}

// ownAddr is the part of the answer that needs no knowledge of the machine: loopback in all its addresses,
// "this host", and what the listener is bound to. A listener on every address, and the names and addresses
// of this machine, are Own's to know.
func (d *door) ownAddr(t target) bool {
	return t.addr.IsValid() && (t.addr.IsLoopback() || t.addr.IsUnspecified() || t.addr == d.addr.Addr().WithZone(""))
}

// isLocalhost reports whether a canonical host is localhost or below it (RFC 6761 section 6.3).
func isLocalhost(host string) bool {
	host = strings.TrimSuffix(host, ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// refuseOwn is the answer to a request for ourselves.
func refuseOwn(t target) *failure {
	return &failure{
		status: 403, kind: "proxy_loop_detected",
		what:   "the proxy does not connect to " + t.String(),
		cause:  "that is an address of torproxy itself, which it never reaches through itself",
		advice: "ask for it directly, without the proxy (curl: --noproxy '*', or leave -x away)",
	}
}
