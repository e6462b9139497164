package relay

import (
	"context"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"torproxy/relay/pagelinks"
)

// A browser that has a page asks for what the page links to, then for what its stylesheets link to: a round
// trip of the circuit for each level. When the client says that a request is for a page to be shown, the exit
// asks first, and pushes the replies (HTTP.md, "The links of a page").
//
//	1  watch   the reply is a page: what passes of it is looked at         here
//	2  look    a piece is read for links before it goes on                 prefetch_look.go
//	3  open    each link once, the most urgent first                       here
//	4  promise PUSH and the request, so before the bytes that name it      prefetch_push.go
//	5  fetch   all at once; the client learns which may not be kept        prefetch_push.go, prefetch_keep.go
//	   send    a few at a time, the most urgent first                      prefetch_push.go, prefetch_turns.go
//	6  and the links of a stylesheet: from 2 again
//
// What the promises are good for: a browser that has read a link never asks for what is on its way already.

// prefetch opens the links of one page. Its methods may be called from any goroutine.
type prefetch struct {
	hop             *lastHop
	parent          uint16 // the page's stream
	asker           asker
	fetches, bodies turns
	ctx             context.Context // ends with the circuit, when the page has failed, and after the last push
	cancel          context.CancelFunc
	look            *look // at the page

	mu      sync.Mutex
	working int             // the page, and pushes
	seen    map[string]bool // URLs, the page's among them
	cookies []*http.Cookie  // that the page sets
	left    int64           // bytes that may yet be pushed
}

// pageLink is a link to open, and on which level below the page it was found.
type pageLink struct {
	pagelinks.Link
	level int
}

// watch begins to open the links of an exchange's reply, whose body it replaces; nil: none will be. The
// caller calls pageOver when the reply has passed, or has not.
func (x *exchange) watch(resp *http.Response) *prefetch {
	base, err := url.Parse("http://" + x.req.host + x.req.target)
	if err != nil || !x.req.showsPage() || !isPage(resp) || !canDecode(resp) {
		return nil
	}
	p := &prefetch{
		hop: x.hop, parent: x.stream.ID(), asker: newAsker(x.req.header, base), fetches: turns{free: maxFetches}, bodies: turns{free: maxBodies},
		working: 1, seen: map[string]bool{spell(base): true}, cookies: resp.Cookies(), left: maxPushedBytes,
	}
	p.ctx, p.cancel = context.WithCancel(x.hop.ctx)
	p.look = p.watchBody(resp, 1, func(r io.Reader, found func(pagelinks.Link)) { pagelinks.HTML(r, base, found) })
	return p
}

// showsPage reports whether the request is one for a page whose links may be opened. One with credentials is
// followed by others with credentials, for which no reply may be used that was fetched without.
func (q *request) showsPage() bool {
	return q.prefetch && q.method == http.MethodGet && q.header["Cookie"] == nil && q.header["Authorization"] == nil
}

func isPage(resp *http.Response) bool {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	shown, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Disposition"))
	return err == nil && kind == "text/html" && resp.StatusCode == http.StatusOK && shown != "attachment"
}

// pageOver says that the page's reply has passed, whole or not. Of a page that did not come nothing is wanted.
func (p *prefetch) pageOver(whole bool) {
	if p == nil {
		return
	}
	p.look.stop()
	if !whole {
		p.cancel()
	}
	p.leave()
}

// leave is called by whoever is counted in working, at its end.
func (p *prefetch) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.working--; p.working == 0 {
		p.cancel()
	}
}

// watchBody lets read look at a reply's body as it passes, and opens what it has found, level below the page,
// before the bytes that name it go on.
func (p *prefetch) watchBody(resp *http.Response, level int, read func(r io.Reader, found func(pagelinks.Link))) *look {
	var batch []pageLink
	found := func(l pagelinks.Link) {
		if len(batch) < maxPageLinks {
			batch = append(batch, pageLink{l, level})
		}
	}
	l := newLook(resp, func(r io.Reader) { read(r, found) })
	l.after = func() {
		p.open(batch)
		batch = batch[:0]
	}
	resp.Body = l
	return l
}

// open opens links, the most urgent first: when there is no room for all, it is for those.
func (p *prefetch) open(batch []pageLink) {
	slices.SortStableFunc(batch, func(a, b pageLink) int { return urgency(a.Kind) - urgency(b.Kind) })
	for _, l := range batch {
		if !p.worth(l.URL) {
			continue
		}
		st, err := p.hop.session.Push(p.parent)
		if err != nil {
			continue // as many are open as may be, or the circuit is over
		}
		p.mu.Lock()
		p.working++
		p.mu.Unlock()
		push := &push{page: p, link: l, stream: st, request: p.asker.request(l.Link)}
		p.hop.streams.Go(push.run)
	}
}

// worth reports whether a link is to be opened, which it is once. The browser will send the page's cookies
// with some requests, for which no reply may be used that was fetched without.
func (p *prefetch) worth(u *url.URL) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := spell(u)
	if p.seen[name] || len(p.seen) > maxPageLinks || p.left <= 0 || !isAuthority(u.Host) {
		return false
	}
	for _, c := range p.cookies {
		if u.Hostname() == p.asker.page.Hostname() || c.Domain != "" && strings.HasSuffix("."+u.Hostname(), "."+strings.TrimPrefix(c.Domain, ".")) {
			return false
		}
	}
	p.seen[name] = true
	return true
}

// admit reports whether a reply fits into what the page may have pushed. Once it has begun it is not cut
// short: what the client does not want it ends, and it never gets more than it takes.
func (p *prefetch) admit(resp *http.Response) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left <= 0 || resp.ContentLength > min(p.left, maxPushedReply) {
		return false
	}
	if resp.ContentLength >= 0 {
		p.left -= resp.ContentLength
	} else {
		resp.Body = &charged{resp.Body, p}
	}
	return true
}

// charged is a body of unknown length.
type charged struct {
	io.ReadCloser
	page *prefetch
}

func (c *charged) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.page.mu.Lock()
	c.page.left -= int64(n)
	c.page.mu.Unlock()
	return n, err
}

// spell is a URL as it stands in a request's line in absolute form (RFC 9112, section 3.2.2).
func spell(u *url.URL) string { return "http://" + u.Host + u.RequestURI() }
