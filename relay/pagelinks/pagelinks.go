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
	"net/url"
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

// Link is something to open. URL is absolute, of scheme http, without a fragment.
type Link struct {
	URL  *url.URL
	Kind Kind
}

// maxURL is the longest link that is followed, in bytes.
const maxURL = 2048

// resolve makes a link of what stands in an attribute or a url(); ok is false for what is not to be opened:
// another scheme, a user name, an anchor in the page itself, something that is no URL.
func resolve(base *url.URL, ref string, kind Kind) (l Link, ok bool) {
	ref = strings.Map(withoutBreaks, strings.Trim(ref, " \t\r\n\f"))
	if ref == "" || ref[0] == '#' || len(ref) > maxURL {
		return l, false
	}
	u, err := base.Parse(ref)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil || u.Opaque != "" {
		return l, false
	}
	u.Fragment, u.RawFragment = "", ""
	return Link{URL: u, Kind: kind}, true
}

// withoutBreaks takes out what the URL Standard takes out of every URL.
func withoutBreaks(r rune) rune {
	if r == '\t' || r == '\r' || r == '\n' {
		return -1
	}
	return r
}
