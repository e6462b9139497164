package frontdoor

import (
	"bufio"
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

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

// run reads a push until its end.
func (p *push) run(d *door) {
	s := p.page.pushes
	defer d.running.Done()
	defer p.conn.Close()
	head := &counted{r: p, left: maxPushHead}
	in := bufio.NewReader(head)
	p.conn.SetReadDeadline(time.Now().Add(pushLifetime))
	if err := p.readHeads(d, in); err != nil {
		d.Log.Debug("a pushed reply is not used", "err", head.explain(err))
		why := &s.counts.pushesRefused
		if errors.Is(err, errDelivered) {
			why = &s.counts.pushesKnown
		}
		s.drop(p, why)
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

// errDelivered is why a push is not taken that the browser needs no more: the exit hears of it before it has
// sent much.
var errDelivered = errors.New("the browser has got it before, and may keep it")

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
	name := p.page.name
	name.target, name.path = t.String(), exactPath(request)
	if s.named[name] != nil || p.gone {
		return errors.New("there is one for that URL already")
	}
	if name.target == p.page.name.target && s.delivered.has(name) {
		// Of another site the exit would learn whether it was visited, by pushing what no page has asked
		// for. Of the page's own it sees as much by what the browser does not ask for.
		return errDelivered
	}
	p.name, p.request = name, request
	s.named[name] = p
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

// ended is called once when a push that was used has been read, or given up.
func (p *push) ended() {
	p.conn.Close()
	p.page.pushes.counts.pushBytesUsed.Add(p.read.Load())
}

func isStyle(reply *http.Response) bool {
	kind, _, err := mime.ParseMediaType(reply.Header.Get("Content-Type"))
	return err == nil && kind == "text/css"
}
