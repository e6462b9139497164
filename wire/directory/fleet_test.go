package directory

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// fleet is authorities and mirrors that answer a follower in virtual time, without a wire. Each is a
// Follower that holds the consensus of the round that the clock is in.
type fleet struct {
	t       *testing.T
	network *netdoc.Network
	relays  func(round int) []int // in the consensus of that round, counted from the bubble's start

	mu      sync.Mutex
	servers map[wire.ID]*ship
	calls   []call
}

// ship is a server of the fleet. Its fields are under fleet.mu.
type ship struct {
	follower *Follower
	handler  http.Handler // the follower's
	mirror   bool
	down     bool
	lacks    map[int]bool               // relays whose keys it does not give out
	spoils   func(answer []byte) []byte // what it makes of an answer to a request for a difference; nil: nothing
}

// call is a request that was made.
type call struct {
	to      wire.ID
	mirror  bool
	path    string
	digests int  // asked for
	patch   bool // the answer was a difference
	failed  bool
	at      time.Duration
}

// newFleet returns a network of four authorities, and every relay up to most as a mirror.
func newFleet(t *testing.T, round time.Duration, most int, relays func(round int) []int) *fleet {
	f := &fleet{t: t, network: testNetwork(4, round), relays: relays, servers: map[wire.ID]*ship{}}
	for _, a := range f.network.Authorities {
		f.launch(a.ID, false)
	}
	for r := range most {
		f.launch(relayID(r), true)
	}
	return f
}

func (f *fleet) launch(id wire.ID, mirror bool) {
	s := &ship{mirror: mirror, lacks: map[int]bool{}}
	s.follower = NewFollower(FollowerConfig{Network: f.network, LocalKey: func(r *netdoc.Relay) []byte {
		for i := range 256 {
			if key := onionKey(i); r.Key.Digest == netdoc.DigestOf(key) {
				return key
			}
		}
		return nil
	}})
	s.handler = s.follower.Mirror()
	f.servers[id] = s
}

func (f *fleet) ask(to Peer, r *http.Request, digests int) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.servers[to.ID]
	c := call{to: to.ID, mirror: s.mirror, path: r.URL.Path, digests: digests, failed: s.down, at: time.Since(bubbleStart)}
	defer func() { f.calls = append(f.calls, c) }()
	if s.down {
		return nil, errors.New("no route")
	}
	f.update(s)
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	answer := w.Body.Bytes()
	if c.patch = netdoc.IsDifference(answer); c.patch && s.spoils != nil {
		answer = s.spoils(answer)
	}
	switch w.Code {
	case http.StatusOK:
		return answer, nil
	case http.StatusNotModified:
		return nil, ErrNotModified
	default:
		return nil, &StatusError{Code: w.Code, Message: w.Body.String()}
	}
}

// update gives a server the consensuses of the present round and of those that it slept through.
func (f *fleet) update(s *ship) {
	length := time.Duration(f.network.Params.Round)
	from := bubbleStart
	if held := s.follower.Current(); held != nil {
		from = time.UnixMilli(held.FreshUntil)
	}
	for ; !from.After(time.Now()); from = from.Add(length) {
		raw := consensusOf(f.t, f.network, from, f.relays(int(from.Sub(bubbleStart)/length))...)
		var clock *netdoc.ClockError
		if err := s.follower.Offer(raw); err != nil && !errors.As(err, &clock) {
			f.t.Error(err)
		}
	}
}

func (f *fleet) Fetch(_ context.Context, from Peer, path, etag string, _ int64) ([]byte, string, error) {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("If-None-Match", etag)
	answer, err := f.ask(from, r, 0)
	return answer, "", err
}

func (f *fleet) Post(_ context.Context, to Peer, path string, body []byte, limit int64) ([]byte, error) {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Body = http.MaxBytesReader(nil, io.NopCloser(bytes.NewReader(body)), bodyLimit(path))
	answer, err := f.ask(to, r, len(body)/digestSize)
	if err == nil && path == KeysPath {
		answer = f.without(to, answer)
	}
	if int64(len(answer)) > limit {
		return nil, ErrTooLarge
	}
	return answer, err
}

// without takes the keys that a server keeps back out of its answer.
func (f *fleet) without(to Peer, answer []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	var kept []byte
	for key := range slices.Chunk(answer, netdoc.OnionKeySize) {
		if !f.servers[to.ID].lacks[int(key[netdoc.OnionKeySize-1])] {
			kept = append(kept, key...)
		}
	}
	return kept
}

// each changes every server of one sort.
func (f *fleet) each(mirror bool, change func(*ship)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.servers {
		if s.mirror == mirror {
			change(s)
		}
	}
}

func (f *fleet) take() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// sail runs a follower that chooses routes in a bubble.
func (f *fleet) sail(test func(*Follower)) {
	c := NewFollower(FollowerConfig{Network: f.network, Client: f, Keys: f, Routes: true})
	ctx, cancel := context.WithCancel(f.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	synctest.Wait()
	test(c)
	cancel()
	if err := <-ended; err != nil {
		f.t.Errorf("Run: %v", err)
	}
}

// upTo returns the numbers below n.
func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}
