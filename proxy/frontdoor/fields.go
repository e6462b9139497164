package frontdoor

import (
	"net/http"
	"slices"
	"strings"
)

// naming are parts of names that proxies, carriers and programs give to fields that say who the client is,
// without their hyphens: X-Forwarded-For, X-Real-IP, True-Client-IP and their kin. The exit takes them out,
// too; what does not leave this machine need not be trusted to it.
var naming = []string{
	"forwarded", "clientip", "realip", "remoteip", "remoteaddr", "remotehost", "connectingip", "userip",
	"originatingip", "sourceip", "trueip", "peerip", "msisdn",
}

// strip takes the fields out of a request that are not for its destination.
func strip(h http.Header) {
	for name := range h {
		if !passes(name) {
			delete(h, name)
		}
	}
}

// passes reports whether a field of a request, its name in canonical form, goes on.
func passes(name string) bool {
	if between(name) || name == "Te" || name == "Via" || name == "From" || name == "Connection" || name == "Upgrade" {
		return false
	}
	plain := strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
	return !slices.ContainsFunc(naming, func(part string) bool { return strings.Contains(plain, part) })
}

// stripReply takes the fields out of a reply that are not for the client.
func stripReply(h http.Header) {
	for name := range h {
		if between(name) {
			delete(h, name)
		}
	}
}

// between reports whether a field is between the client and its proxy, or between that and its exits.
func between(name string) bool {
	return strings.HasPrefix(name, "Proxy-") || strings.HasPrefix(name, "Torproxy-")
}

// accepts reports whether a list of media ranges (RFC 9110 section 12.5.1) names a type itself, not by a
// wildcard and not with weight 0.
func accepts(values []string, mediaType string) bool {
	for _, list := range values {
		for one := range strings.SplitSeq(list, ",") {
			name, params, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(name), mediaType) && !refused(params) {
				return true
			}
		}
	}
	return false
}

// refused reports whether a media range's parameters have the weight 0.
func refused(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		name, weight, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(name, "q") && strings.Trim(weight, "0.") == "" {
			return true
		}
	}
	return false
}

// tokens are the elements of a field that is a list, in lower case.
func tokens(values []string) (list []string) {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if t = strings.ToLower(strings.TrimSpace(t)); t != "" {
				list = append(list, t)
			}
		}
	}
	return list
}
