package frontdoor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
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
//  2. take      the exit has opened a link: its request comes first, which gives the push its name
//  3. judge     then the reply's head: may it be kept for somebody (fresh.go), and for how long
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
	counts *counts
	bytes  atomic.Int64 // in all reservoirs

	mu       sync.Mutex
	door     *door  // nil: nothing is taken in
	identity uint64 // counts new identities: a page of an earlier one takes nothing any more
	held     map[*push]struct{}
	named    map[pushName]*push
	changed  chan struct{} // closed at the next change
}

// pushName is what a push is asked for by.
type pushName struct {
	isolation string
	target    string // HOST:PORT
	path      string // with the query
}

// page is one request of a browser that the exit opens links for.
type page struct {
	pushes    *pushes
	identity  uint64
	isolation string
	origin    string // HOST:PORT

	// Under pushes.mu.
	taken int
	links map[string]bool // URLs of style sheets that were pushed and used: they refer to their fonts
}

// push is one reply that was pushed, or is on its way.
type push struct {
	page *page
	conn net.Conn
	read atomic.Int64 // bytes of the stream

	// Under pushes.mu.
	name    pushName
	request *http.Request // nil: not named yet
	reply   *http.Response
	gone    bool // asked for, or dropped
	expiry  *time.Timer
	body    *reservoir // when reply is there
}

func newPushes(c *counts) *pushes {
	return &pushes{counts: c, held: map[*push]struct{}{}, named: map[pushName]*push{}, changed: make(chan struct{})}
}

// newPage makes the page of a request.
func (s *pushes) newPage(j *journey) *page {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &page{pushes: s, identity: s.identity, isolation: j.wanted.Isolation, origin: j.target.String(), links: map[string]bool{}}
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
	if s.door == nil || g.identity != s.identity || g.taken >= maxPagePushes || len(s.held) >= maxPushes || !s.door.begin() {
		return nil
	}
	g.taken++
	s.held[p] = struct{}{}
	p.expiry = time.AfterFunc(pushLifetime, func() { s.drop(p, &s.counts.pushesUnused) })
	return s.door
}

// run reads a push until its end.
func (p *push) run(d *door) {
	s := p.page.pushes
	defer d.running.Done()
	defer p.conn.Close()
	head := &counted{r: p, left: maxPushHead}
	in := bufio.NewReader(head)
	p.conn.SetReadDeadline(time.Now().Add(pushLifetime))
	err := p.readHeads(d, in)
	if err != nil {
		d.Log.Debug("a pushed reply is not used", "err", head.explain(err))
		s.drop(p, &s.counts.pushesRefused)
		return
	}
	p.conn.SetReadDeadline(time.Time{})
	head.left = -1
	p.fill()
}

// Read reads from the stream, and counts.
func (p *push) Read(b []byte) (int, error) {
	n, err := p.conn.Read(b)
	p.read.Add(int64(n))
	return n, err
}

// readHeads reads the request that the exit has made, by which p is named, and the head of the reply.
func (p *push) readHeads(d *door, in *bufio.Reader) error {
	s := p.page.pushes
	request, err := http.ReadRequest(in)
	if err != nil {
		return err
	}
	if err := p.setName(d, request); err != nil {
		return err
	}
	reply, err := http.ReadResponse(in, request)
	if err != nil {
		return err
	}
	lifetime, err := keepable(request, reply)
	if err != nil {
		return err
	}
	return s.ready(p, reply, min(lifetime, pushLifetime))
}

// setName checks the request of a push, and lets it be asked for.
func (p *push) setName(d *door, request *http.Request) error {
	s := p.page.pushes
	if request.Method != http.MethodGet || request.ContentLength != 0 || !request.URL.IsAbs() || hasCredentials(request.Header) {
		return errors.New("it answers no GET without body and credentials, in absolute form")
	}
	t, fail := d.forwardTarget(request.URL)
	if fail != nil {
		return errors.New(fail.cause)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := pushName{p.page.isolation, t.String(), exactPath(request)}
	if s.named[name] != nil || p.gone {
		return errors.New("there is one for that URL already")
	}
	p.name, p.request = name, request
	s.named[name] = p
	s.changedLocked()
	return nil
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

// fill reads the body into the reservoir, for as long as somebody may want it.
func (p *push) fill() {
	buf := buffers.Get()
	defer buffers.Put(buf)
	for {
		n, err := p.reply.Body.Read(buf)
		if !p.body.put(buf[:n], err) || err != nil && err != io.EOF {
			// If it is not in use, there is no room for it, or a request of its own may have better luck.
			s := p.page.pushes
			s.drop(p, &s.counts.pushesRefused)
			return
		}
		if err != nil {
			return
		}
	}
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

// ended is called once when a push that was used has been read, or given up.
func (p *push) ended() {
	p.conn.Close()
	p.page.pushes.counts.pushBytesUsed.Add(p.read.Load())
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
	name := pushName{j.wanted.Isolation, j.target.String(), j.path}
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

func isStyle(reply *http.Response) bool {
	kind, _, err := mime.ParseMediaType(reply.Header.Get("Content-Type"))
	return err == nil && kind == "text/css"
}

// unnamedLocked reports whether the page that a request comes from has pushes of which it is not known yet
// what they are.
func (s *pushes) unnamedLocked(name pushName, out *http.Request) bool {
	for p := range s.held {
		if p.request == nil && p.page.isolation == name.isolation && p.page.ledTo(name, out) {
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

// take makes a push the reply to a request.
func (p *push) take(ctx context.Context, out *http.Request) *http.Response {
	p.body.take()
	release := context.AfterFunc(ctx, p.body.abandon)
	reply := *p.reply
	reply.Request = out
	reply.Body = &replyBody{Reader: p.body, end: func() error {
		release()
		p.body.abandon()
		return nil
	}}
	return &reply
}

// ledTo reports whether a request comes from the page: its Referer is of the page's origin or one of the
// page's links, or it has none and is for the page's own origin.
func (g *page) ledTo(name pushName, out *http.Request) bool {
	referers := out.Header["Referer"]
	if len(referers) == 0 {
		return name.target == g.origin
	}
	t, path, ok := parseReferer(referers[0])
	return ok && len(referers) == 1 && (t.String() == g.origin || g.links[linkOf(pushName{target: t.String(), path: path})])
}

// linkOf is a push's URL in one spelling.
func linkOf(n pushName) string { return fmt.Sprintf("http://%s%s", n.target, n.path) }
