package main

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"torproxy/cmd/torproxy/internal/browser"
)

const (
	uriList    = "text/uri-list"
	maxURIList = 64 << 10 // bytes of a list that are read
)

// asked is what a reply asks to open.
type asked struct {
	links []browser.Link
	list  []byte // of the body, read for it and still to be printed
}

// asked finds what a reply asks to open: by a Refresh header, or by a body that is a list of links. What may
// not be opened is left out.
func (g *getting) asked(answer *http.Response, body io.Reader) (a asked, err error) {
	var found []string
	for _, value := range answer.Header.Values("Refresh") {
		if link := refreshLink(value); link != "" {
			found = append(found, link)
		}
	}
	if contentType(answer) == uriList {
		a.list, err = io.ReadAll(io.LimitReader(body, maxURIList))
		found = append(found, listedLinks(string(a.list))...)
	}
	for _, text := range found {
		u, err := g.url.Parse(text)
		if err != nil {
			continue
		}
		if link, err := browser.ParseLink(u.String()); err == nil {
			a.links = append(a.links, link)
		}
	}
	return a, err
}

// refreshLink is the link of a Refresh header, as browsers read it: SECONDS [; or ,] [url =] LINK, with or
// without quotes. "" is none: the page itself again.
func refreshLink(value string) string {
	value = strings.TrimLeft(value, " \t")
	rest := strings.TrimLeft(value, "0123456789.")
	if len(rest) == len(value) {
		return ""
	}
	rest = strings.TrimLeft(rest, " \t")
	if rest == "" || rest[0] != ';' && rest[0] != ',' {
		return ""
	}
	rest = strings.TrimLeft(rest[1:], " \t")
	if len(rest) >= 3 && strings.EqualFold(rest[:3], "url") {
		if link, ok := strings.CutPrefix(strings.TrimLeft(rest[3:], " \t"), "="); ok {
			rest = strings.TrimLeft(link, " \t")
		}
	}
	if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
		rest, _, _ = strings.Cut(rest[1:], rest[:1])
	}
	return strings.TrimSpace(rest)
}

// listedLinks are the links of a text/uri-list (RFC 2483 section 5).
func listedLinks(list string) []string {
	var all []string
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if u, err := url.Parse(line); err == nil && u.IsAbs() {
			all = append(all, line)
		}
	}
	return all
}

// open opens the first link that the reply asks for, if that was wanted, and else says so.
func (g *getting) open(ctx context.Context, a asked) error {
	if len(a.links) == 0 {
		return nil
	}
	link := a.links[0]
	if more := len(a.links) - 1; more > 0 {
		g.say("the reply asks to open %d pages more", more)
	}
	if !g.options.open {
		g.say("the reply asks to open %s: torproxy open does it, or --open here", link)
		return nil
	}
	return runOpen(ctx, g.options.openOptions, link, g.output)
}
