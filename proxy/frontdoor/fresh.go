package frontdoor

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What may be done with a reply that answers another request than it is given for: the rules of a shared
// cache (RFC 9111), the strict reading of each.

// isPage reports whether a browser asks for a page to show. Only then does it name text/html; it sends no
// Sec-Fetch-Dest to plain http sites.
func isPage(r *http.Request) bool {
	return r.Method == http.MethodGet && accepts(r.Header["Accept"], "text/html")
}

// worthPrefetch reports whether what the links of a page lead to is likely to be used. A request with
// credentials is followed by others with credentials, which are never answered by what was pushed; one that
// has seen the page before has its links in its own cache, or wants them anew.
func worthPrefetch(r *http.Request) bool {
	return servable(r) && r.ContentLength == 0 && r.Header["Upgrade"] == nil
}

// conditional are fields that make a request one for something else than a whole, present reply.
var conditional = []string{
	"Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Upgrade",
}

// servable reports whether a request may be answered by a reply to another one.
func servable(r *http.Request) bool {
	if r.Method != http.MethodGet || hasCredentials(r.Header) {
		return false
	}
	if slices.ContainsFunc(conditional, func(name string) bool { return r.Header[name] != nil }) {
		return false
	}
	d := directives(r.Header)
	return !d.has("no-cache") && !d.has("no-store") && !d.has("max-age") && !d.has("min-fresh") &&
		!slices.Contains(tokens(r.Header["Pragma"]), "no-cache")
}

func hasCredentials(h http.Header) bool { return h["Cookie"] != nil || h["Authorization"] != nil }

// keepable reports how long a reply may serve another request (RFC 9111 sections 3 and 4.2), or why it may
// not. Without anything that says so it may for seconds, which is what is asked here.
func keepable(request *http.Request, reply *http.Response) (time.Duration, error) {
	d := directives(reply.Header)
	switch {
	case reply.StatusCode != http.StatusOK:
		return 0, errors.New("its status is one that exits do not push")
	case d.has("no-store") || d.has("private") || d.has("no-cache"):
		return 0, errors.New("its Cache-Control says that it is not to be kept, or only for one user")
	case len(d) == 0 && slices.Contains(tokens(reply.Header["Pragma"]), "no-cache"):
		return 0, errors.New("its Pragma says that it is not to be kept")
	case reply.Header["Set-Cookie"] != nil:
		return 0, errors.New("it sets a cookie: it is for one user")
	case slices.Contains(tokens(reply.Header["Vary"]), "*"):
		return 0, errors.New("its Vary says that it fits no other request")
	}
	lifetime, said := freshness(reply.Header, d)
	if !said {
		return pushLifetime, nil
	}
	if lifetime -= age(reply.Header); lifetime <= 0 {
		return 0, errors.New("it is old already")
	}
	return lifetime, nil
}

// age is how old a reply was when it came (section 5.1).
func age(h http.Header) time.Duration {
	n, _ := strconv.ParseUint(h.Get("Age"), 10, 31)
	return time.Duration(n) * time.Second
}

// freshness is how long a reply was fresh when it was made, if it says so.
func freshness(h http.Header, d cacheControl) (lifetime time.Duration, said bool) {
	for _, name := range []string{"s-maxage", "max-age"} {
		if seconds, ok := d[name]; ok {
			n, err := strconv.ParseUint(seconds, 10, 31)
			if err != nil {
				n = 0 // what cannot be read is stale (section 4.2.1)
			}
			return time.Duration(n) * time.Second, true
		}
	}
	if h["Expires"] == nil {
		return 0, false
	}
	expires, err := http.ParseTime(h.Get("Expires"))
	date, dateErr := http.ParseTime(h.Get("Date"))
	if err != nil || dateErr != nil {
		return 0, true
	}
	return expires.Sub(date), true
}

// cacheControl are the directives of Cache-Control with their values (RFC 9111 section 5.2). Of one that is
// there twice the first counts.
type cacheControl map[string]string

func (d cacheControl) has(name string) bool { _, ok := d[name]; return ok }

func directives(h http.Header) cacheControl {
	d := cacheControl{}
	for _, t := range tokens(h["Cache-Control"]) {
		name, value, _ := strings.Cut(t, "=")
		if !d.has(name) {
			d[name] = strings.Trim(value, `"`)
		}
	}
	return d
}

// matches reports whether a reply to one request is one to another of the same URL (RFC 9111 section 4.1).
// Content coding counts as if Vary named it, and Origin always: not every server remembers to, and a reply
// without leave for the origin is one that the browser will not let its page use.
func matches(request *http.Request, reply *http.Response, other *http.Request) bool {
	names := append(tokens(reply.Header["Vary"]), "origin")
	if reply.Header["Content-Encoding"] != nil {
		names = append(names, "accept-encoding")
	}
	for _, name := range names {
		name = http.CanonicalHeaderKey(name)
		if !slices.Equal(elements(request.Header[name]), elements(other.Header[name])) {
			return false
		}
	}
	return true
}

// elements are the parts of a field that commas part, without the space around them: the same field may be
// written in more than one way.
func elements(values []string) (list []string) {
	for _, v := range values {
		for e := range strings.SplitSeq(v, ",") {
			if e = strings.TrimSpace(e); e != "" {
				list = append(list, e)
			}
		}
	}
	return list
}

// parseReferer reads the URL of a Referer.
func parseReferer(s string) (t target, path string, ok bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return target{}, "", false
	}
	t, err = parseTarget(u.Host, 80)
	if path = u.EscapedPath(); path == "" {
		path = "/"
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	return t, path, err == nil
}
