package dirauth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// parliament is authorities whose requests go from handler to handler, in virtual time. It is used inside
// a synctest bubble.
type parliament struct {
	*town
	t      *testing.T
	voters []*voter
	stores []Store
	skew   []time.Duration // by how much each one's clock is fast, from when it is made
	logs   []*slog.Logger  // of each; nil: none

	// Set before start, or with the lock.
	delay  func(from, to int) time.Duration                         // of a request; nil: 5 ms
	cut    func(from, to int) bool                                  // nothing gets through; nil: all does
	tamper func(from, to int, path string, body []byte) []byte      // what is posted in place of body
	forge  func(from, of int, path string) (answer []byte, ok bool) // what of answers to a fetch by from

	mu    sync.Mutex
	stops []context.CancelFunc
	runs  []sync.WaitGroup
	seen  []map[int64]*sighting // by authority and valid-after
}

// sighting is when an authority first served a consensus.
type sighting struct {
	at        time.Time
	consensus *netdoc.Consensus
}

func newParliament(t *testing.T, n int, change func(*netdoc.Params)) *parliament {
	p := &parliament{town: newTown(n), t: t, stops: make([]context.CancelFunc, n), runs: make([]sync.WaitGroup, n),
		skew: make([]time.Duration, n), logs: make([]*slog.Logger, n)}
	if change != nil {
		change(&p.Params)
	}
	for range n {
		p.stores = append(p.stores, NewMemoryStore())
		p.voters = append(p.voters, nil)
		p.seen = append(p.seen, map[int64]*sighting{})
	}
	for i := range n {
		p.make(i)
	}
	return p
}

// make makes authority i from its store.
func (p *parliament) make(i int) {
	cfg := Config{Network: p.Network, Identity: p.keys[i], Store: p.stores[i], Log: p.logs[i]}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	skew := p.skew[i]
	cfg.now = func() time.Time { return time.Now().Add(skew) }
	v, err := newVoter(cfg, endpoint{p, i})
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.voters[i] = v
}

// start starts authorities, and stop ends them.
func (p *parliament) start(which ...int) {
	for _, i := range which {
		ctx, cancel := context.WithCancel(p.t.Context())
		p.stops[i] = cancel
		v := p.voters[i]
		p.runs[i].Go(func() { v.run(ctx) })
		p.runs[i].Go(func() { v.follower.Run(ctx) })
		p.runs[i].Go(func() { p.watch(ctx, i, v) })
	}
}

func (p *parliament) stop(which ...int) {
	for _, i := range which {
		p.stops[i]()
		p.runs[i].Wait()
	}
}

func (p *parliament) watch(ctx context.Context, i int, v *voter) {
	for {
		changed := v.follower.Changed()
		if c := v.follower.Current(); c != nil {
			p.mu.Lock()
			if p.seen[i][c.ValidAfter] == nil {
				p.seen[i][c.ValidAfter] = &sighting{time.Now(), c}
			}
			p.mu.Unlock()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// setCut changes who reaches whom.
func (p *parliament) setCut(cut func(from, to int) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
}

// relays makes authorities know running relays, numbered from first.
func (p *parliament) relays(which []int, first, n int) {
	for i := first; i < first+n; i++ {
		d := describeNow(p.t, i)
		for _, a := range which {
			p.voters[a].roster.admit(d, time.Now())
			p.voters[a].roster.tested(d, true, time.Now())
		}
	}
}

// describeNow is describe for the bubble's time.
func describeNow(t *testing.T, i int, changes ...func(*netdoc.Descriptor)) *netdoc.Descriptor {
	return describe(t, i, append([]func(*netdoc.Descriptor){func(d *netdoc.Descriptor) {
		d.Published = time.Now().UnixMilli()
		d.OnionKeys[0].From, d.OnionKeys[0].Until = d.Published, d.Published+24*time.Hour.Milliseconds()
	}}, changes...)...)
}

// agreed returns the consensus of a round that all of the authorities served at that very moment.
func (p *parliament) agreed(validAfter time.Time, which ...int) *netdoc.Consensus {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var c *netdoc.Consensus
	for _, i := range which {
		s := p.seen[i][validAfter.UnixMilli()]
		if s == nil {
			p.t.Fatalf("authority %d has no consensus of the round of %v", i, validAfter)
		}
		if !s.at.Equal(validAfter) {
			p.t.Errorf("authority %d served the consensus of %v at %v", i, validAfter, s.at)
		}
		if c != nil && c.Digest() != s.consensus.Digest() {
			p.t.Fatalf("authorities %d and %d have different documents of the round of %v", which[0], i, validAfter)
		}
		c = s.consensus
	}
	return c
}

// proofs returns whom authority i has proof against.
func (p *parliament) proofs(i int) map[culprit]bool {
	kept, err := p.stores[i].Proofs()
	if err != nil {
		p.t.Fatal(err)
	}
	against := map[culprit]bool{}
	for _, k := range kept {
		if err := k.Verify(p.Network); err != nil {
			p.t.Errorf("%v: proves nothing: %v", k, err)
		}
		against[culprit{k.Authority, k.Word}] = true
	}
	return against
}

// endpoint is one authority's end of the wires.
type endpoint struct {
	*parliament
	self int
}

var errCut = errors.New("nothing gets through")

func (e endpoint) Fetch(ctx context.Context, from directory.Peer, path, etag string, limit int64) ([]byte, string, error) {
	to := e.index(from.ID)
	if e.forge != nil {
		if answer, ok := e.forge(e.self, to, path); ok {
			return answer, "", nil
		}
	}
	req := httptest.NewRequest(http.MethodGet, path, nil)
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	w, err := e.request(ctx, to, req)
	if err != nil {
		return nil, "", err
	}
	if w.Code == http.StatusNotModified {
		return nil, etag, directory.ErrNotModified
	}
	return w.Body.Bytes(), w.Header().Get("ETag"), nil
}

func (e endpoint) Post(ctx context.Context, peer directory.Peer, path string, body []byte, limit int64) ([]byte, error) {
	to := e.index(peer.ID)
	if e.tamper != nil {
		body = e.tamper(e.self, to, path, body)
	}
	w, err := e.request(ctx, to, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
	if err != nil {
		return nil, err
	}
	return w.Body.Bytes(), nil
}

// request brings a request to an authority's handler, after a while.
func (e endpoint) request(ctx context.Context, to int, req *http.Request) (*httptest.ResponseRecorder, error) {
	delay := 5 * time.Millisecond
	if e.delay != nil {
		delay = e.delay(e.self, to)
	}
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	e.mu.Lock()
	v, isCut := e.voters[to], e.cut != nil && e.cut(e.self, to)
	e.mu.Unlock()
	if isCut {
		return nil, errCut
	}
	req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{PublicKey: e.keys[e.self].Public().(ed25519.PublicKey)}}}
	w := httptest.NewRecorder()
	v.handler().ServeHTTP(w, req)
	if w.Code != http.StatusOK && w.Code != http.StatusNotModified {
		return nil, &directory.StatusError{Code: w.Code, Message: w.Body.String()}
	}
	return w, nil
}

func (p *parliament) index(id wire.ID) int {
	for i, a := range p.Authorities {
		if a.ID == id {
			return i
		}
	}
	p.t.Errorf("a request to a stranger, %s", id)
	return 0
}

// await lets virtual time pass until an instant.
func await(at time.Time) {
	<-time.After(time.Until(at))
	synctest.Wait()
}

// initial gives a network short rounds at first.
func initial(p *netdoc.Params) {
	p.Start = time.Now().UnixMilli()
	p.InitialRound = netdoc.Duration(250 * time.Millisecond)
	p.InitialRounds = 5
}
