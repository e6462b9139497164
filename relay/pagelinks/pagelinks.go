// Package pagelinks reads the links that a browser will open by itself to show a page: stylesheets, scripts,
// images, fonts, icons and what the page asks to be preloaded; and those inside stylesheets.
//
//	HTML   a page, as it streams                       html.go
//	CSS    a stylesheet, or a page's own styles        css.go
//
// It errs on the side of leaving out: what is opened and not wanted is sent in vain. So it names no link that
// depends on the window's size, on scrolling, on an older browser or on a printer, and of a font the first
// form only. It opens nothing itself.
package pagelinks

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a link is opened as.
type Kind int

// The kinds of link.
const (
	Style Kind = iota + 1
	Script
	Image
	Font
	Other
)

func (k Kind) String() string {
	switch k {
	case Style:
		return "style"
	case Script:
		return "script"
	case Image:
		return "image"
	case Font:
		return "font"
	default:
		return "other"
	}
}

// Link is something to open. URL is absolute, of scheme http, without a fragment, and spelled as browsers
// spell it where they ask for it; but for a bar or a caret in a path, which package url escapes.
type Link struct {
	URL  *url.URL
	Kind Kind
	CORS bool // browsers ask for it under the rules of the Fetch Standard for sharing between origins
}

// maxURL is the longest link that is followed, in bytes.
const maxURL = 2048

// resolve makes a link of what stands in an attribute or a url(); ok is false for what is not to be opened:
// another scheme, a user name, a port that is blocked, an anchor in the page itself, something that is no URL.
func resolve(base *url.URL, ref string, kind Kind, cors bool) (l Link, ok bool) {
	ref = strings.Map(withoutBreaks, strings.Trim(ref, " \t\r\n\f"))
	if ref == "" || ref[0] == '#' || len(ref) > maxURL {
		return l, false
	}
	u, err := base.Parse(ref)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil || u.Opaque != "" || isBlocked(u.Port()) {
		return l, false
	}
	u.Fragment, u.RawFragment = "", ""
	u.Host = strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(u.Host), ":80"), ":")
	u.RawQuery = spelled(u.RawQuery)
	return Link{URL: u, Kind: kind, CORS: cors}, true
}

// blocked are the ports that browsers open for no page (Fetch Standard, "bad port"): what listens there could
// take a request for something in its own protocol, mail above all.
var blocked = []uint16{
	0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113, 115,
	117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601,
	636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
}

// isBlocked reports whether a URL's port is one of those, or none at all; "" is the scheme's own.
func isBlocked(port string) bool {
	if port == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	_, found := slices.BinarySearch(blocked, uint16(n))
	return err != nil || found
}

// spelled escapes what the URL Standard escapes in a query of http; package url leaves queries as they are.
func spelled(query string) string {
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"#<>'`, r) }
	if !strings.ContainsFunc(query, odd) {
		return query
	}
	var b strings.Builder
	for _, c := range []byte(query) {
		if odd(rune(c)) {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// withoutBreaks takes out what the URL Standard takes out of every URL.
func withoutBreaks(r rune) rune {
	if r == '\t' || r == '\r' || r == '\n' {
		return -1
	}
	return r
}
