package frontdoor

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/net/idna"
)

// maxLink is the longest URL that is opened, in bytes; longer ones no person reads, nor does every browser
// take them.
const maxLink = 2048

// parseLink judges a URL that a reply asks to open, and returns it as it is shown and opened: printable
// ASCII, an absolute http or https URL without user name, its host in lower case and as xn-- where it is not
// ASCII, all that a person could misread escaped; and its authority alone.
func parseLink(raw string) (link, host string, err error) {
	if len(raw) > maxLink {
		return "", "", fmt.Errorf("the link is longer than %d bytes", maxLink)
	}
	for _, c := range []byte(raw) {
		if c <= ' ' || c == 0x7f || c == '\\' { // which browsers take for a slash
			return "", "", errors.New("the link has a character that no URL has")
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", "", errors.New("the link is not a URL")
	}
	defaultPort := uint16(80)
	switch {
	case u.Scheme == "https":
		defaultPort = 443
	case u.Scheme != "http":
		return "", "", errors.New("the link is not http:// or https://")
	}
	if u.Opaque != "" || u.User != nil {
		return "", "", errors.New("the link names a user, or no host")
	}
	authority, err := asciiHost(u.Host)
	if err != nil {
		return "", "", err
	}
	t, err := parseTarget(authority, defaultPort)
	if err != nil {
		return "", "", err
	}
	host = t.String()
	if t.port == defaultPort {
		host = strings.TrimSuffix(host, fmt.Sprintf(":%d", t.port))
	}
	_, rest, _ := strings.Cut(raw, "://")
	if rest = rest[authorityLen(rest):]; !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	link = u.Scheme + "://" + host + escapeOdd(rest)
	if len(link) > maxLink {
		return "", "", fmt.Errorf("the link is longer than %d bytes", maxLink)
	}
	return link, host, nil
}

// asciiHost puts a name that is not ASCII in its xn-- form; the port, if there is one, stays.
func asciiHost(authority string) (string, error) {
	if strings.IndexFunc(authority, func(r rune) bool { return r > '~' }) < 0 {
		return authority, nil
	}
	name, port, _ := strings.Cut(authority, ":")
	ascii, err := idna.Lookup.ToASCII(name)
	if err != nil {
		return "", fmt.Errorf("%.60q is not a host name", name)
	}
	return ascii + ":" + port, nil
}

// authorityLen is how far the authority at the beginning of s reaches (RFC 3986 section 3.2).
func authorityLen(s string) int {
	if end := strings.IndexAny(s, "/?#"); end >= 0 {
		return end
	}
	return len(s)
}

// escapeOdd percent-encodes what may not stand in a URL: all but ASCII, and delimiters that terminals, shells
// and pages take for the URL's end.
func escapeOdd(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 0x7f || strings.IndexByte("\"'<>^`{|}", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
