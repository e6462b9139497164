package frontdoor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// An exit that makes the request for a page opens the links that a browser would open for it, and pushes what
// they lead to, each reply on a stream of its own. What is pushed stays here for seconds, for the browser's
// next requests. It is no cache: a reply serves one request, the one that it was fetched for.
//
//  1. newPage   a browser asks for a page: the front door tells the exit so
//  2. take      the exit has opened a link: its request comes first, which gives the push its name (push.go);
//     one that the browser has already is turned away (delivered.go)
//  3. readHeads, then the reply's head: may it be kept for somebody (fresh.go), and for how long
//  4. fill      then its body, which waits in a reservoir.go
//  5. reply     the browser asks: it gets the push with that name, if the push is for such a request, and
//     waits for one that is on its way; else its request goes the way of all others
//
// Who may get a push: only a request of the same isolation and identity, that the page's own exit has served
// the page to. So that no exit can answer for other exits' sites, the request must come from the page: by its
// Referer, or, without one, by being for the page's own origin.
const (
	maxPushes     = 256              // held at once, all told: four busy pages. More are refused: the exit stops sending them
	maxPagePushes = 64               // of one page, as many as an exit may have open
	maxPushBytes  = 16 << 20         // of bodies held at once, all told; a push that goes beyond is dropped
	maxReservoir  = 1 << 20          // of one body; the rest stays in the stream's window until it is asked for
	maxPushHead   = 64 << 10         // bytes of a pushed request's and reply's heads together
	pushLifetime  = 10 * time.Second // until a browser has asked for it: it needs a moment to read the page, not longer
	pushWait      = 5 * time.Second  // how long a request waits for a push that is on its way before it goes out itself
)

// pushes holds what was pushed and not been asked for yet.
type pushes struct {
	counts    *counts
	delivered *delivered
	bytes     atomic.Int64 // in all reservoirs

	mu       sync.Mutex
	door     *door  // nil: nothing is taken in
	identity uint64 // counts new identities: a page of an earlier one takes nothing any more
	held     map[*push]struct{}
	named    map[pushName]*push
	changed  chan struct{} // closed at the next change
}

// pushName is what a push is asked for by.
type pushName struct {
	identity  uint64
	isolation string
	target    string // HOST:PORT
	path      string // with the query
}

// page is one request of a browser that the exit opens links for.
type page struct {
	pushes *pushes
	name   pushName // of the page itself

	// Under pushes.mu.
	taken int
	links map[string]bool // URLs of style sheets that were pushed and used: they refer to their fonts
}

func newPushes(c *counts) *pushes {
	return &pushes{counts: c, delivered: newDelivered(), held: map[*push]struct{}{}, named: map[pushName]*push{}, changed: make(chan struct{})}
}

// now is the identity of requests that begin at this moment.
func (s *pushes) now() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity
}

// newPage makes the page of a request.
func (s *pushes) newPage(name pushName) *page {
	return &page{pushes: s, name: name, links: map[string]bool{}}
}

// take takes in a stream that an exit has pushed for the page; it is Request.Pushed, and returns at once.
func (g *page) take(conn net.Conn) {
	s := g.pushes
	p := &push{page: g, conn: conn}
	if d := s.admit(p); d != nil {
		go p.run(d)
		return
	}
	s.counts.pushesRefused.Add(1)
	conn.Close()
}

// admit holds p if there is room for it, and returns the door, which counts run as running; else nil.
func (s *pushes) admit(p *push) *door {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := p.page
	if s.door == nil || g.name.identity != s.identity || g.taken >= maxPagePushes || len(s.held) >= maxPushes || !s.door.begin() {
		return nil
	}
	g.taken++
	s.held[p] = struct{}{}
	p.expiry = time.AfterFunc(pushLifetime, func() { s.drop(p, &s.counts.pushesUnused) })
	return s.door
}

// ready lets a push be used.
func (s *pushes) ready(p *push, reply *http.Response, lifetime time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.gone {
		return errors.New("nobody waits for it any more")
	}
	p.reply = reply
	p.body = newReservoir(&s.bytes, p.ended)
	p.expiry.Reset(lifetime)
	s.changedLocked()
	return nil
}

// drop forgets a push that is not in use, if it is held still, and ends its stream, which tells the exit. why
// counts it.
func (s *pushes) drop(p *push, why *atomic.Int64) {
	s.mu.Lock()
	if p.gone {
		s.mu.Unlock()
		return
	}
	s.forgetLocked(p)
	s.changedLocked()
	body := p.body
	s.mu.Unlock()
	p.conn.Close()
	if body != nil {
		body.abandon()
	}
	why.Add(1)
	s.counts.pushBytesWasted.Add(p.read.Load())
}

// forgetLocked takes a push out; it is dropped, or somebody's.
func (s *pushes) forgetLocked(p *push) {
	p.gone = true
	p.expiry.Stop()
	delete(s.held, p)
	if s.named[p.name] == p {
		delete(s.named, p.name)
	}
}

func (s *pushes) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// renew drops everything: nothing that was pushed to an identity serves another.
func (s *pushes) renew() {
	s.mu.Lock()
	s.identity++
	s.mu.Unlock()
	s.dropAll()
	s.delivered.renew()
}

// serve lets d's requests push, until close, which drops everything.
func (s *pushes) serve(d *door) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.door = d
}

func (s *pushes) close() {
	s.mu.Lock()
	s.door = nil
	s.mu.Unlock()
	s.dropAll()
}

// count is how many pushes are held, and how many bytes of all that were not read yet.
func (s *pushes) count() (held int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held), s.bytes.Load()
}

func (s *pushes) dropAll() {
	s.mu.Lock()
	all := make([]*push, 0, len(s.held))
	for p := range s.held {
		all = append(all, p)
	}
	s.mu.Unlock()
	for _, p := range all {
		s.drop(p, &s.counts.pushesUnused)
	}
}

// reply returns what was pushed for a request, with its body, which must be closed; nil: nothing was, or it
// does not come in time, and the request goes out itself.
func (s *pushes) reply(ctx context.Context, j *journey, out *http.Request) *http.Response {
	name := j.name()
	var late <-chan time.Time
	for {
		p, wait := s.find(name, out)
		if p != nil {
			s.counts.pushesUsed.Add(1)
			return p.take(ctx, out)
		}
		if wait == nil {
			return nil
		}
		if late == nil {
			timer := time.NewTimer(pushWait)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-wait:
		case <-late:
			s.giveUp(name)
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// find returns the push for a request, which is then the caller's; or, if one may be on its way, what to
// wait for; or neither. A push that the request asks for but may not have is dropped: no other request will
// ask for it.
func (s *pushes) find(name pushName, out *http.Request) (found *push, wait <-chan struct{}) {
	s.mu.Lock()
	p := s.named[name]
	defer func() {
		s.mu.Unlock()
		if p != nil && found == nil && wait == nil {
			s.drop(p, &s.counts.pushesMissed)
		}
	}()
	switch {
	case p != nil && !p.page.ledTo(name, out):
		p = nil // another page's
		return nil, nil
	case !servable(out), isPage(out): // exits push what pages are made of, never a page
		return nil, nil
	case p == nil && s.unnamedLocked(name, out), p != nil && p.reply == nil:
		return nil, s.changed
	case p == nil || !matches(p.request, p.reply, out):
		return nil, nil
	}
	s.forgetLocked(p)
	if isStyle(p.reply) {
		p.page.links[linkOf(name)] = true
	}
	return p, nil
}

// unnamedLocked reports whether the page that a request comes from has pushes of which it is not known yet
// what they are.
func (s *pushes) unnamedLocked(name pushName, out *http.Request) bool {
	for p := range s.held {
		if p.request == nil && p.page.name.isolation == name.isolation && p.page.ledTo(name, out) {
			return true
		}
	}
	return false
}

// giveUp drops a push that does not come in time for the request that waits for it.
func (s *pushes) giveUp(name pushName) {
	s.mu.Lock()
	p := s.named[name]
	s.mu.Unlock()
	if p != nil {
		s.drop(p, &s.counts.pushesMissed)
	}
}

// ledTo reports whether a request comes from the page: its Referer is of the page's origin or one of the
// page's links, or it has none and is for the page's own origin.
func (g *page) ledTo(name pushName, out *http.Request) bool {
	referers := out.Header["Referer"]
	if len(referers) == 0 {
		return name.target == g.name.target
	}
	t, path, ok := parseReferer(referers[0])
	return ok && len(referers) == 1 && (t.String() == g.name.target || g.links[linkOf(pushName{target: t.String(), path: path})])
}

// linkOf is a push's URL in one spelling.
func linkOf(n pushName) string { return fmt.Sprintf("http://%s%s", n.target, n.path) }
