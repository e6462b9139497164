package frontdoor

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"
)

// OpenLinks says what becomes of links that replies ask to open.
type OpenLinks string

// What may become of them; "" is Ask.
const (
	Ask    OpenLinks = "ask"    // they wait until their user says so
	Always OpenLinks = "always" // they are opened
	Never  OpenLinks = "never"  // they are not even shown
)

// Limits of links. A reply that asks for more, or faster, gains nothing: what is in excess is dropped, and
// never pushes out what waits already.
const (
	maxWaiting  = 16               // links that wait for an answer; a person reads no more
	maxAnswered = 16               // answered ones that are still shown, newest ones
	waitingTime = 10 * time.Minute // nobody remembers after that what a link was about
	maxOpenings = 4                // links that Always opens in openingSpan; the others are asked for
	openingSpan = 10 * time.Second

	maxLinkError = 1000 // bytes of why one could not be opened, which a browser may have had a say in
)

// Link is a link that a reply asks to open: an element of the answer to GET /api/links.
type Link struct {
	ID    string    `json:"id"`
	URL   string    `json:"url"`   // whole, in printable ASCII; names of other letters as xn--
	Host  string    `json:"host"`  // as it stands in the URL, with the port if it names one
	From  string    `json:"from"`  // HOST:PORT of the reply
	Asked Time      `json:"asked"` // when
	State LinkState `json:"state"`
	Error string    `json:"error"` // a sentence if State is failed
}

// LinkState is what has become of a link.
type LinkState string

// The states of a link.
const (
	LinkWaiting LinkState = "waiting" // for its user's answer
	LinkOpening LinkState = "opening"
	LinkOpened  LinkState = "opened" // a browser was started
	LinkRefused LinkState = "refused"
	LinkFailed  LinkState = "failed"
	LinkGone    LinkState = "gone" // only in events: no longer listed
)

// ErrNoLink says that no link of that ID waits for an answer.
var ErrNoLink = errors.New("no such link waits for an answer (any more)")

// links holds what replies have asked to open. Links ask and answer from any goroutine; those that are
// opened are so between serve and its end.
type links struct {
	cfg *Config

	mu       sync.Mutex
	list     []Link // oldest first
	next     int    // ID
	opened   []time.Time
	changed  chan struct{}   // closed at the next change
	alive    context.Context // nil: nothing is opened
	openings sync.WaitGroup
}

func newLinks(cfg *Config) *links { return &links{cfg: cfg, changed: make(chan struct{})} }

// serve lets links be opened until the returned function is called, which waits for those that are being
// opened.
func (l *links) serve(ctx context.Context) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	l.alive = ctx
	return func() {
		l.mu.Lock()
		l.alive = nil
		l.mu.Unlock()
		cancel()
		l.openings.Wait()
	}
}

// ask takes in a link that a reply of from has asked to open, if it is one that may be opened.
func (l *links) ask(raw, from string) error {
	if l.cfg.OpenLinks == Never || l.cfg.ParseLink == nil {
		return nil
	}
	url, host, err := l.cfg.ParseLink(raw)
	if err != nil {
		return err
	}
	l.mu.Lock()
	now := time.Now()
	l.tidyLocked(now)
	if l.countLocked(LinkWaiting) >= maxWaiting || l.askedLocked(url) {
		l.mu.Unlock()
		return nil
	}
	l.next++
	link := Link{ID: strconv.Itoa(l.next), URL: url, Host: host, From: from, Asked: Time{now}, State: LinkWaiting}
	l.list = append(l.list, link)
	always := l.cfg.OpenLinks == Always && l.mayOpenLocked(now)
	if always {
		l.openLocked(link.ID)
	}
	l.changedLocked()
	l.mu.Unlock()
	if !always && l.cfg.LinkAsked != nil {
		l.cfg.LinkAsked(link)
	}
	return nil
}

// askedLocked reports whether a link to url is waited for or being opened: asking again says nothing new.
func (l *links) askedLocked(url string) bool {
	return slices.ContainsFunc(l.list, func(k Link) bool {
		return k.URL == url && (k.State == LinkWaiting || k.State == LinkOpening)
	})
}

// mayOpenLocked reports whether Always may open one more now, and counts it.
func (l *links) mayOpenLocked(now time.Time) bool {
	l.opened = slices.DeleteFunc(l.opened, func(t time.Time) bool { return now.Sub(t) >= openingSpan })
	if len(l.opened) >= maxOpenings {
		return false
	}
	l.opened = append(l.opened, now)
	return true
}

// tidyLocked forgets links that have waited too long, and all but the newest of the others.
func (l *links) tidyLocked(now time.Time) {
	answered := len(l.list) - l.countLocked(LinkWaiting) - l.countLocked(LinkOpening) - maxAnswered
	l.list = slices.DeleteFunc(l.list, func(k Link) bool {
		switch k.State {
		case LinkWaiting:
			return now.Sub(k.Asked.Time) >= waitingTime
		case LinkOpening:
			return false
		}
		answered--
		return answered >= 0
	})
}

func (l *links) countLocked(state LinkState) (n int) {
	for _, k := range l.list {
		if k.State == state {
			n++
		}
	}
	return n
}

// all returns a copy of the list.
func (l *links) all() []Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tidyLocked(time.Now())
	return slices.Clone(l.list)
}

// watch returns a channel that is closed at the next change.
func (l *links) watch() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *links) changedLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// answer opens a waiting link, or refuses it.
func (l *links) answer(id string, open bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tidyLocked(time.Now())
	k := l.findLocked(id)
	if k == nil || k.State != LinkWaiting {
		return ErrNoLink
	}
	if open {
		l.openLocked(id)
	} else {
		k.State = LinkRefused
	}
	l.changedLocked()
	return nil
}

func (l *links) findLocked(id string) *Link {
	for i := range l.list {
		if l.list[i].ID == id {
			return &l.list[i]
		}
	}
	return nil
}

// openLocked opens a link that waits.
func (l *links) openLocked(id string) {
	k := l.findLocked(id)
	if l.alive == nil || l.cfg.Open == nil {
		k.State, k.Error = LinkFailed, "there is no browser to open it with"
		return
	}
	k.State = LinkOpening
	ctx, url := l.alive, k.URL
	l.openings.Go(func() {
		err := l.cfg.Open(ctx, url)
		l.mu.Lock()
		defer l.mu.Unlock()
		if k := l.findLocked(id); k != nil { // not forgotten by a new identity
			k.State = LinkOpened
			if err != nil {
				k.State, k.Error = LinkFailed, oneLine(err.Error(), maxLinkError)
			}
		}
		l.changedLocked()
	})
}

// renew forgets every link: a link may name who was asked to open it, and a new identity is somebody else.
func (l *links) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = nil
	l.changedLocked()
}
