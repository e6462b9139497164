package dirauth

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// Why a voter does not take a word, besides what its round says.
var (
	errEarly  = errors.New("this round has not begun here")
	errOver   = errors.New("this round is over, or began before this authority did")
	errAuthor = errors.New("not the word of the authority that brings it")
)

// transport reaches the other authorities. *directory.Client is one.
type transport interface {
	directory.Fetcher
	Post(ctx context.Context, to directory.Peer, path string, body []byte, limit int64) (answer []byte, err error)
}

// voter runs the rounds against the clock: it opens them, takes in what others say, and does what each
// round wants done. Its methods other than run are safe for concurrent use.
type voter struct {
	network  *netdoc.Network
	key      ed25519.PrivateKey
	self     wire.ID
	store    Store
	roster   *roster
	follower *directory.Follower // holds and serves the newest consensus
	peers    transport
	log      *slog.Logger
	now      func() time.Time

	counts  voterCounts
	kick    chan struct{}  // holds a token when a round may have something to do
	fetches chan struct{}  // a token per document that is being fetched
	jobs    sync.WaitGroup // sending and fetching

	mu     sync.Mutex
	rounds map[int64]*openRound // by valid-after: the last, the current, the next
}

// openRound is a round and the descriptors that it must not lose while relays bring newer ones.
type openRound struct {
	*round
	library map[netdoc.Digest]*netdoc.Descriptor
}

// fetchesAtOnce bounds the documents that are fetched at a time.
const fetchesAtOnce = 8

// newVoter makes a voter, its roster and its follower from what the store holds.
func newVoter(cfg Config, peers transport) (*voter, error) {
	g, err := openGate(cfg.Allow, cfg.Rejections)
	if err != nil {
		return nil, err
	}
	v := &voter{
		network: cfg.Network,
		key:     cfg.Identity,
		self:    wire.PublicID(cfg.Identity),
		store:   cfg.Store,
		roster:  newRoster(cfg.Network, cfg.Store, g, cfg.Log),
		peers:   peers,
		log:     cfg.Log,
		now:     cfg.now,
		kick:    make(chan struct{}, 1),
		fetches: make(chan struct{}, fetchesAtOnce),
		rounds:  map[int64]*openRound{},
	}
	if v.now == nil {
		v.now = time.Now
	}
	v.follower = directory.NewFollower(directory.FollowerConfig{
		Network: cfg.Network,
		Client:  others{peers, v.self},
		Keys:    others{peers, v.self},
		Log:     cfg.Log,
		LocalKey: func(r *netdoc.Relay) []byte {
			if d := v.descriptor(r.Descriptor); d != nil {
				return d.OnionKeys[0].Public
			}
			return nil
		},
		Now: v.now,
	})
	if err := v.roster.restore(v.now()); err != nil {
		return nil, err
	}
	raw, err := v.store.Consensus()
	if err != nil {
		return nil, fmt.Errorf("dirauth: stored consensus: %w", err)
	}
	if raw != nil {
		if err := v.follower.Offer(raw); err != nil {
			v.log.Info("stored consensus not used", "err", err)
		}
	}
	return v, nil
}

// others is how the follower of an authority asks every authority but this one.
type others struct {
	transport
	self wire.ID
}

func (o others) Fetch(ctx context.Context, from directory.Peer, path, etag string, limit int64) ([]byte, string, error) {
	if from.ID == o.self {
		return nil, "", directory.ErrNotModified
	}
	return o.transport.Fetch(ctx, from, path, etag, limit)
}

func (o others) Post(ctx context.Context, to directory.Peer, path string, body []byte, limit int64) ([]byte, error) {
	if to.ID == o.self {
		return nil, errors.New("dirauth: not asked of itself")
	}
	return o.transport.Post(ctx, to, path, body, limit)
}

// run votes until ctx ends, waits for what it started, and returns nil.
func (v *voter) run(ctx context.Context) error {
	defer v.saveRecords() // what was learnt since the last vote
	defer v.jobs.Wait()
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		changed := v.follower.Changed()
		alarm.Reset(v.turn(ctx).Sub(v.now()))
		select {
		case <-ctx.Done():
			return nil
		case <-alarm.C:
		case <-v.kick:
		case <-changed:
			if err := v.store.SaveConsensus(v.follower.Current().Raw()); err != nil {
				v.log.Error("consensus not stored", "err", err)
			}
		}
	}
}

// turn advances every round as far as it goes and returns when the next one is due.
func (v *voter) turn(ctx context.Context) time.Time {
	now := v.now()
	v.mu.Lock()
	maps.DeleteFunc(v.rounds, func(_ int64, r *openRound) bool { return !now.Before(r.times.close) })
	next := v.openLocked(v.present(now)).times.votesBy // then the round after it is opened
	open := slices.Collect(maps.Values(v.rounds))
	v.mu.Unlock()
	for _, r := range open {
		if wake := v.drive(ctx, r); !wake.IsZero() && wake.Before(next) {
			next = wake
		}
	}
	return next
}

// present returns the round that is to be voted on: the first in which a vote would not be late.
func (v *voter) present(now time.Time) time.Time {
	validAfter := v.network.Params.NextRound(now)
	for !now.Before(newSchedule(v.network.Params, validAfter).votesBy) {
		validAfter = v.network.Params.NextRound(validAfter)
	}
	return validAfter
}

// openLocked returns the round of a valid-after.
func (v *voter) openLocked(validAfter time.Time) *openRound {
	r := v.rounds[validAfter.UnixMilli()]
	if r == nil {
		r = &openRound{library: map[netdoc.Digest]*netdoc.Descriptor{}}
		r.round = newRound(v.network, v.self, validAfter, func(digest netdoc.Digest) *netdoc.Descriptor {
			if d := r.library[digest]; d != nil {
				return d
			}
			return v.roster.descriptor(digest)
		})
		v.rounds[validAfter.UnixMilli()] = r
	}
	return r
}

// drive steps a round until it wants nothing done, and returns when it must be stepped again.
func (v *voter) drive(ctx context.Context, r *openRound) time.Time {
	for {
		v.mu.Lock()
		d := r.step(v.now())
		wake := r.wake()
		v.mu.Unlock()
		if d.empty() {
			return wake
		}
		v.do(ctx, r, &d)
	}
}

// do does what a round wants done.
func (v *voter) do(ctx context.Context, r *openRound, d *demand) {
	for _, p := range d.proofs {
		v.keepProof(p)
	}
	if d.vote {
		v.vote(ctx, r)
	}
	if d.echo != nil {
		raw, err := d.echo.Sign(v.key)
		v.say(ctx, r, WordEcho, raw, err, r.times.gatherBy)
	}
	if d.missing.size() > 0 {
		v.jobs.Go(func() { v.gather(ctx, r, d.missing) })
	}
	if d.document != nil {
		v.endorse(ctx, r, d.document)
	}
	if d.consensus != nil {
		v.counts.consensuses.Add(1)
		if err := v.follower.Offer(d.consensus); err != nil {
			v.log.Error("consensus made here is not used", "valid_after", r.validAfter, "err", err)
		}
	}
	if d.failed != nil {
		v.counts.failed.Add(1)
		v.mu.Lock()
		state := r.summary()
		v.mu.Unlock()
		v.log.Warn("no consensus made in this round", "valid_after", r.validAfter.UTC(), "cause", d.failed, "state", state)
	}
}

func (v *voter) saveRecords() {
	if err := v.roster.save(); err != nil {
		v.log.Error("records of relays not stored", "err", err)
	}
}

// reload reads the operator's lists again and removes the relays that they do not admit any more.
func (v *voter) reload() error {
	err := v.roster.gate.reload()
	v.roster.gate.report(err, v.log)
	v.roster.enforce()
	return err
}

// vote makes and says the vote of a round.
func (v *voter) vote(ctx context.Context, r *openRound) {
	v.reload() // its error is in the log
	v.saveRecords()
	now := v.now()
	vote := &netdoc.Vote{
		Network:    v.network.Name,
		Authority:  v.self,
		ValidAfter: r.validAfter.UnixMilli(),
		Published:  now.UnixMilli(),
		Params:     v.network.Params.Consensus(),
		Relays:     v.roster.entries(now),
	}
	v.mu.Lock()
	for _, e := range vote.Relays {
		if d := v.roster.descriptor(e.Descriptor); d != nil {
			r.library[e.Descriptor] = d
		}
	}
	v.mu.Unlock()
	raw, err := vote.Sign(v.key)
	v.say(ctx, r, WordVote, raw, err, r.times.gatherBy)
}

// endorse signs a consensus document and says so.
func (v *voter) endorse(ctx context.Context, r *openRound, document []byte) {
	e := &netdoc.Endorsement{
		Network:    v.network.Name,
		Authority:  v.self,
		ValidAfter: r.validAfter.UnixMilli(),
		Consensus:  netdoc.DigestOf(document),
		Value:      netdoc.SignConsensus(document, v.key).Value,
	}
	raw, err := e.Sign(v.key)
	v.say(ctx, r, WordSignature, raw, err, r.times.close)
}

// say records a word, takes it like the words of others, and sends it to all of them until a time. What
// was recorded before, for this round, is said in its place. err is that of making the word. An authority
// that cannot record its word is silent.
func (v *voter) say(ctx context.Context, r *openRound, w Word, raw []byte, err error, until time.Time) {
	if err == nil {
		raw, err = v.store.Say(w, r.validAfter, raw)
	}
	if err == nil {
		err = v.take(w, raw, v.self)
	}
	if err != nil {
		v.log.Warn("silent in this round", "word", w, "valid_after", r.validAfter.UTC(), "err", err)
		return
	}
	v.counts.said[w].Add(1)
	for _, a := range v.network.Authorities {
		if a.ID != v.self {
			v.jobs.Go(func() { v.send(ctx, a, w, raw, until) })
		}
	}
}

// take takes in a word that the authority from brings: its own, or it is refused.
func (v *voter) take(w Word, raw []byte, from wire.ID) error {
	said, err := parseWord(w, raw, v.network)
	if err != nil {
		return err
	}
	if said.authority != from {
		return errAuthor
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	r, err := v.roundLocked(now, time.UnixMilli(said.validAfter))
	if err != nil {
		return err
	}
	defer v.wakeUp() // also when it is refused: it may be proof
	return said.add(r.round, now)
}

// roundLocked returns the round for which a word came: an open one, or the one after the present.
func (v *voter) roundLocked(now, validAfter time.Time) (*openRound, error) {
	if r := v.rounds[validAfter.UnixMilli()]; r != nil {
		return r, nil
	}
	present := v.present(now)
	switch {
	case validAfter.Before(present):
		return nil, errOver
	case validAfter.Equal(present), validAfter.Equal(v.network.Params.NextRound(present)):
		return v.openLocked(validAfter), nil
	default:
		return nil, errEarly
	}
}

func (v *voter) wakeUp() {
	select {
	case v.kick <- struct{}{}:
	default:
	}
}

// spoken is a parsed word of any kind.
type spoken struct {
	authority  wire.ID
	validAfter int64
	add        func(r *round, now time.Time) error
}

// parseWord reads a word and verifies that an authority signed it.
func parseWord(w Word, raw []byte, n *netdoc.Network) (spoken, error) {
	switch w {
	case WordVote:
		d, err := netdoc.ParseVote(raw, n)
		if err != nil {
			return spoken{}, err
		}
		return spoken{d.Authority, d.ValidAfter, func(r *round, now time.Time) error { return r.addVote(now, d) }}, nil
	case WordEcho:
		d, err := netdoc.ParseEcho(raw, n)
		if err != nil {
			return spoken{}, err
		}
		return spoken{d.Authority, d.ValidAfter, func(r *round, now time.Time) error { return r.addEcho(now, d) }}, nil
	case WordSignature:
		d, err := netdoc.ParseEndorsement(raw, n)
		if err != nil {
			return spoken{}, err
		}
		return spoken{d.Authority, d.ValidAfter, func(r *round, now time.Time) error { return r.addEndorsement(now, d) }}, nil
	default:
		return spoken{}, fmt.Errorf("dirauth: %v is not a word", w)
	}
}

// keepProof stores and reports a proof of misconduct.
func (v *voter) keepProof(p Proof) {
	v.counts.proofs.Add(1)
	name := p.Authority.Short()
	if a, ok := v.network.Authority(p.Authority); ok {
		name = a.Nickname
	}
	v.log.Error("an authority said two different words in one round; the proof is kept",
		"authority", name, "word", p.Word, "valid_after", time.UnixMilli(p.ValidAfter).UTC())
	if err := v.store.SaveProof(p); err != nil {
		v.log.Error("proof not stored", "err", err)
	}
}

// descriptor returns a descriptor that is held, for a round or in the roster; nil if it is not.
func (v *voter) descriptor(digest netdoc.Digest) *netdoc.Descriptor {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.rounds {
		if d := r.library[digest]; d != nil {
			return d
		}
	}
	return v.roster.descriptor(digest)
}

// heldVote returns a vote of an open round by its digest, nil if it is not held.
func (v *voter) heldVote(digest netdoc.Digest) *netdoc.Vote {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.rounds {
		for _, vote := range r.votes {
			if vote.Digest() == digest {
				return vote
			}
		}
	}
	return nil
}
