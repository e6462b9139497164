package relay

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// mayKeep reports whether a reply to one request may answer another, moments later (RFC 9111, sections 3 and
// 4.2, as for a shared cache, each rule in its strict reading): what is pushed is asked for by a request that
// the exit has not seen. A reply that says nothing of its freshness is fresh for moments.
func mayKeep(resp *http.Response) bool {
	if resp.StatusCode != http.StatusOK || resp.Header["Set-Cookie"] != nil {
		return false
	}
	for name := range listed(resp.Header["Vary"]) {
		if name == "*" {
			return false
		}
	}
	control := directives(resp.Header)
	for _, never := range [...]string{"no-store", "private", "no-cache"} {
		if _, there := control[never]; there {
			return false
		}
	}
	if len(control) == 0 && strings.EqualFold(resp.Header.Get("Pragma"), "no-cache") {
		return false
	}
	return isFresh(resp.Header, control)
}

// isFresh reports whether a reply that says how long it is fresh still is, after what its Age says.
func isFresh(h http.Header, control map[string]string) bool {
	var life int64
	shared, isShared := control["s-maxage"]
	all, isAll := control["max-age"]
	switch {
	case isShared:
		life = seconds(shared)
	case isAll:
		life = seconds(all)
	case h["Expires"] != nil:
		expires, err := http.ParseTime(h.Get("Expires"))
		date, none := http.ParseTime(h.Get("Date"))
		if err == nil && none == nil {
			life = int64(expires.Sub(date) / time.Second)
		}
	default:
		return true
	}
	return life > seconds(h.Get("Age"))
}

// directives are those of Cache-Control, in lower case, of each the first.
func directives(h http.Header) map[string]string {
	m := map[string]string{}
	for directive := range listed(h["Cache-Control"]) {
		name, value, _ := strings.Cut(strings.ToLower(directive), "=")
		if _, there := m[name]; !there {
			m[name] = strings.Trim(value, `"`)
		}
	}
	return m
}

// seconds is a number of seconds; what is none is zero, and what is too large as large as can be.
func seconds(s string) int64 {
	n, _ := strconv.ParseUint(s, 10, 31)
	return int64(n)
}
