package frontdoor

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The front door has no password. What keeps web pages out of it, although the browser that shows them
// can reach it:
//
//   - the Host header must name the listener: a name of the attacker's own that resolves to 127.0.0.1
//     (DNS rebinding) gets 421
//   - what changes something is refused when Origin or Sec-Fetch-Site is foreign (CSRF), and so is what
//     holds a place (events) or tells of the user's doings (circuits, why, links): no foreign page has a
//     reason to ask
//   - no CORS header is ever sent, so that no foreign page reads an answer; nosniff and
//     Cross-Origin-Resource-Policy keep answers out of <script> and <img>
//   - the proxy does not connect to it (own.go)

// guard sets the headers that every answer of the front door has and reports what is wrong with the
// request; "" is nothing.
func (d *door) guard(h http.Header, r *http.Request) (status int, problem string) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	switch {
	case !d.named(r):
		return http.StatusMisdirectedRequest, "this is torproxy's own page, at http://" + d.addr.String() +
			"/ and under no other name. To fetch a page through it, use it as a proxy: curl -x http://" + d.addr.String() + " URL"
	case foreign(r) || private(r.URL.Path) && fromElsewhere(r):
		return http.StatusForbidden, "a page of another site may not do this"
	}
	return 0, ""
}

// named reports whether the Host header names this listener: localhost, the address it is bound to, the one
// that the connection came in on, and, where these are loopback, 127.0.0.1 and [::1]; each with the port,
// which may be missing if it is 80. Names are compared without case. "localhost." with a dot is not
// accepted: nothing of ours prints it.
func (d *door) named(r *http.Request) bool {
	host, port := r.Host, "80"
	if h, p, err := net.SplitHostPort(r.Host); err == nil {
		host, port = h, p
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if port != strconv.Itoa(int(d.addr.Port())) {
		return false
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return strings.EqualFold(host, "localhost")
	}
	return slices.Contains(d.addresses(r), addr)
}

var loopback = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// addresses lists the addresses under which r can have reached this listener.
func (d *door) addresses(r *http.Request) []netip.Addr {
	var own []netip.Addr
	for _, a := range []netip.Addr{d.addr.Addr(), d.localAddr(r)} {
		if a.IsLoopback() {
			own = append(own, loopback...)
		}
		if a.IsValid() && !a.IsUnspecified() {
			own = append(own, a.WithZone(""))
		}
	}
	return own
}

// localAddr is this side's address of the connection that r came on.
func (d *door) localAddr(r *http.Request) netip.Addr {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if a, err := netip.ParseAddrPort(local.String()); err == nil {
			return a.Addr().Unmap()
		}
	}
	return netip.Addr{}
}

var crossOrigin = http.NewCrossOriginProtection()

// foreign reports whether r would change something at another site's wish. A request with neither Origin
// nor Sec-Fetch-Site comes from no browser and passes.
func foreign(r *http.Request) bool {
	if crossOrigin.Check(r) != nil {
		return true
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	// Stricter than net/http: with Sec-Fetch-Site of "same-origin" or "none" it does not look at Origin, and it
	// looks at the first of several headers only.
	return fromElsewhere(r) || len(r.Header.Values("Sec-Fetch-Site")) > 1
}

// private reports whether a path is for pages of our own and for programs only: all that is not known
// beforehand to be harmless.
func private(path string) bool {
	return path == "/metrics" || strings.HasPrefix(path, "/api/") && path != "/api/status"
}

// fromElsewhere reports whether another site's page is behind a request, whatever its method. A browser says
// so in one header or the other; an address typed in says "none".
func fromElsewhere(r *http.Request) bool {
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" {
			return true
		}
	}
	return slices.ContainsFunc(r.Header.Values("Origin"), func(origin string) bool { return origin != "http://"+r.Host })
}
