package browser

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// MaxLink is the length of the longest link that is opened, in bytes. Nobody reads a longer one before
// saying yes to it.
const MaxLink = 2048

// Link is an address that may be opened: http or https, without a user name, in ASCII, with its host in
// lower case and punycode. A person is shown the very string that the browser is given.
type Link struct {
	text string
	host string
}

// String returns the whole address.
func (l Link) String() string { return l.text }

// Host returns the host as it stands in the address, with its port if it has one: the part to look at.
func (l Link) Host() string { return l.host }

// names maps host names as browsers do (UTS #46, not transitional), and refuses what has no valid form.
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(false), idna.CheckHyphens(false))

// ParseLink reads a link. It refuses what a browser could take for another address than the one a person
// reads: control and formatting characters, spaces, backslashes, user names, and addresses in other forms
// than the usual one (127.1, 0x7f000001).
func ParseLink(s string) (Link, error) {
	if err := checkText(s); err != nil {
		return Link{}, err
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return Link{}, errors.New("the link is no URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return Link{}, errors.New("only http:// and https:// links are opened")
	case u.Opaque != "" || u.Host == "":
		return Link{}, errors.New("the link has no host")
	case u.User != nil:
		return Link{}, errors.New("the link has a user name before the host, which is how one site is made to look like another")
	}
	host, err := hostOf(u)
	if err != nil {
		return Link{}, err
	}
	text := u.Scheme + "://" + host + pathOf(u)
	if u.RawQuery != "" || u.ForceQuery {
		text += "?" + escapeRest(u.RawQuery)
	}
	if u.Fragment != "" {
		text += "#" + u.EscapedFragment()
	}
	if len(text) > MaxLink {
		return Link{}, errTooLong
	}
	return Link{text: text, host: host}, nil
}

var errTooLong = fmt.Errorf("the link is longer than %d bytes", MaxLink)

// checkText looks at the characters of a link.
func checkText(s string) error {
	switch {
	case s == "":
		return errors.New("the link is empty")
	case len(s) > MaxLink:
		return errTooLong
	case !utf8.ValidString(s):
		return errors.New("the link is not in UTF-8")
	}
	for _, r := range s {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return fmt.Errorf("the link has a character that cannot be seen (%U)", r)
		}
		if r == '\\' {
			return errors.New(`the link has a backslash, which browsers take for a slash`)
		}
	}
	return nil
}

// pathOf is the path as it goes into a request, "/" if there is none.
func pathOf(u *url.URL) string {
	if path := u.EscapedPath(); path != "" {
		return path
	}
	return "/"
}

// escapeRest escapes what a query may not have, and leaves everything else as it stands.
func escapeRest(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 0x80 || strings.IndexByte("\"'<>`", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// hostOf is a URL's host in its one form, with the port unless that is the scheme's own.
func hostOf(u *url.URL) (string, error) {
	host, err := canonicalHost(u.Hostname())
	if err != nil {
		return "", err
	}
	port := u.Port()
	if port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return "", errors.New("the link's port is missing")
		}
		return host, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", errors.New("the link's port is not 1 to 65535")
	}
	if n == 80 && u.Scheme == "http" || n == 443 && u.Scheme == "https" {
		return host, nil
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.FormatUint(n, 10)), nil
}

// canonicalHost is a name in punycode, or an address; IPv6 in brackets.
func canonicalHost(host string) (string, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return "", errors.New("the link's address has a zone, which only this machine knows")
		}
		if addr.Is6() {
			return "[" + addr.String() + "]", nil
		}
		return addr.String(), nil
	}
	name, dot := strings.CutSuffix(host, ".")
	ascii, err := names.ToASCII(name)
	if err == nil { // what has been mapped must be a name by itself, too
		_, err = names.ToASCII(ascii)
	}
	if err != nil || !isName(ascii) || checkText(name) != nil { // the host may have been percent-encoded
		return "", fmt.Errorf("%.100q is no host name", host)
	}
	if endsInNumber(ascii) {
		return "", fmt.Errorf("%.100q is an address in a form that hides it", host)
	}
	if dot {
		ascii += "."
	}
	return ascii, nil
}

// isName reports whether s is a host name as the DNS has them, with the underscores that some do have.
func isName(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return len(s) <= 253
}

// endsInNumber reports whether browsers read a name as an IPv4 address (WHATWG URL, "ends in a number").
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}
