package relay

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// A reply may ask for a page to be opened, by a Refresh field or as a list of URLs (text/uri-list, RFC 2483).
// A browser that navigates sees to the first by itself. For all others the exit puts the links into the
// reply's head as Torproxy-Open, whole and resolved, for the front door to ask its user about.

// openField is the field with a link to open, once for each link.
const openField = "Torproxy-Open"

// markOpen adds the links that a reply asks to open to its header. A list of URLs counts when its length is
// known and small: the reply's head waits for it.
func markOpen(resp *http.Response, authority string, q *request) {
	base := &url.URL{Scheme: "http", Host: strings.TrimSuffix(authority, ":80"), Path: "/"}
	if u, err := url.ParseRequestURI(q.target); err == nil {
		base = base.ResolveReference(u)
	}
	var links []string
	mark := func(ref string) {
		if link, ok := openable(base, ref); ok && len(links) < maxOpenLinks {
			links = append(links, link)
		}
	}
	for _, value := range resp.Header["Refresh"] {
		mark(refreshURL(value))
	}
	if isURIList(resp) && q.method != http.MethodHead {
		for line := range bytes.Lines(readAhead(resp)) {
			mark(strings.TrimSpace(string(line)))
		}
	}
	if links != nil {
		resp.Header[openField] = links
	}
}

// readAhead reads a reply's whole body and puts it back, with the error that ended it.
func readAhead(resp *http.Response) []byte {
	body, err := io.ReadAll(resp.Body)
	resp.Body = &readBody{Closer: resp.Body, left: bytes.NewReader(body), err: err}
	return body
}

// readBody is a body that has been read.
type readBody struct {
	io.Closer
	left *bytes.Reader
	err  error // after it; nil is the end
}

func (b *readBody) Read(p []byte) (int, error) {
	n, err := b.left.Read(p)
	if err == io.EOF && b.err != nil {
		err = b.err
	}
	return n, err
}

func isURIList(resp *http.Response) bool {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && kind == "text/uri-list" && resp.StatusCode < 300 && resp.Header.Get("Content-Encoding") == "" &&
		0 < resp.ContentLength && resp.ContentLength <= maxURIList
}

// refreshURL returns the URL of a Refresh field, empty if there is none, as browsers read it
// (https://html.spec.whatwg.org/multipage/semantics.html#shared-declarative-refresh-steps).
func refreshURL(value string) string {
	rest := strings.TrimLeft(value, htmlSpace)
	delay := strings.TrimLeft(rest, "0123456789.")
	if len(delay) == len(rest) || delay == "" || !strings.ContainsRune(htmlSpace+";,", rune(delay[0])) {
		return ""
	}
	rest = strings.TrimLeft(delay, htmlSpace)
	if rest != "" && (rest[0] == ';' || rest[0] == ',') {
		rest = strings.TrimLeft(rest[1:], htmlSpace)
	}
	if len(rest) >= 3 && strings.EqualFold(rest[:3], "url") {
		if after, ok := strings.CutPrefix(strings.TrimLeft(rest[3:], htmlSpace), "="); ok {
			rest = strings.TrimLeft(after, htmlSpace)
		}
	}
	if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
		rest, _, _ = strings.Cut(rest[1:], rest[:1])
	}
	return strings.TrimRight(rest, htmlSpace)
}

const htmlSpace = " \t\n\f\r"

// openable resolves a reference and reports whether it is one to show to a person: http or https, a host
// that is written in ASCII, no user name (what stands before an @ is easily taken for the host), and of
// bounded length.
func openable(base *url.URL, ref string) (link string, ok bool) {
	if ref == "" || ref[0] == '#' || len(ref) > maxOpenLink {
		return "", false
	}
	u, err := base.Parse(ref)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || !isAuthority(u.Host) {
		return "", false
	}
	if last := u.Hostname(); isNumber(last[strings.LastIndexByte(last, '.')+1:]) {
		if _, err := netip.ParseAddr(last); err != nil {
			return "", false // a number in which a browser sees another address than a person
		}
	}
	u.Fragment, u.RawFragment = "", ""
	link = u.String()
	unprintable := func(c rune) bool { return c <= ' ' || c >= 0x7f }
	return link, len(link) <= maxOpenLink && !strings.ContainsFunc(link, unprintable)
}
