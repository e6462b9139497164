package echo

import (
	"net/http"
	"slices"
	"strings"
)

// fact is something that the server could learn of its caller.
type fact struct {
	Name  string // of a header, or "address"
	Value string
	Tells string // what that is
}

// telltales say what headers give away; a name that ends in * stands for all that begin so.
var telltales = map[string]string{
	"Accept-Language":    "the languages of the user",
	"Authorization":      "who logs in",
	"Cf-Connecting-Ip":   ownAddress,
	"Client-Ip":          ownAddress,
	"Cookie":             "earlier visits: all with this cookie are one person's",
	"Dnt":                "a wish that few have, which sets them apart",
	"Forwarded":          ownAddress,
	"From":               "an e-mail address",
	"If-Modified-Since":  "an earlier visit: the browser has kept a copy",
	"If-None-Match":      "an earlier visit: the browser has kept a copy with this mark",
	"Origin":             "the site that the request comes from",
	"Proxy-*":            "something meant for a proxy, which should have stayed there",
	"Referer":            "the page that the request comes from",
	"Sec-Ch-*":           "the browser, its version and the system it runs on",
	"Sec-Gpc":            "a wish that few have, which sets them apart",
	"Torproxy-*":         "something between two parts of torproxy, which should never arrive",
	"True-Client-Ip":     ownAddress,
	"User-Agent":         "the program, its version and often the system it runs on",
	"Via":                "a proxy on the way",
	"X-Client-Ip":        ownAddress,
	"X-Forwarded-*":      ownAddress,
	"X-Real-Ip":          ownAddress,
	"X-Requested-With":   "the program",
	"X-Wap-Profile":      "the telephone",
	"X-Client-Data":      "the browser's own installation (Chrome)",
	"Sec-Browsing-Topic": "what the user is interested in",
}

const ownAddress = "an address that a proxy on the way has noted: perhaps the caller's own"

// factsOf lists what a request tells, the address first and then headers by name.
func factsOf(r *http.Request) []fact {
	facts := []fact{{"address", r.RemoteAddr, "the exit's if the request came through torproxy, else the caller's"}}
	var names []string
	for name := range r.Header {
		if tellsOf(name) != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		facts = append(facts, fact{name, shownHeader(name, strings.Join(r.Header[name], ", ")), tellsOf(name)})
	}
	return facts
}

func tellsOf(header string) string {
	if tells, ok := telltales[header]; ok {
		return tells
	}
	for pattern, tells := range telltales {
		if head, all := strings.CutSuffix(pattern, "*"); all && strings.HasPrefix(header, head) {
			return tells
		}
	}
	return ""
}

// shownHeader is a header's value as it is sent back, except that a password that came in the clear is not
// sent in the clear once more.
func shownHeader(name, value string) string {
	if scheme, _, _ := strings.Cut(value, " "); strings.HasSuffix(name, "Authorization") && !strings.EqualFold(scheme, "Digest") {
		return scheme + " (not shown: everybody on the way has read it)"
	}
	return value
}
