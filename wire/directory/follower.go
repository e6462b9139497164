package directory

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"torproxy/wire/netdoc"
)

// The follower's round:
//
//  1. wait until a little after the newest consensus stops being fresh; at the start, not at all
//  2. ask mirrors (who chooses routes) and the authorities in random order, the next one when one fails, has
//     nothing newer, or sends nothing for a while                               poll.go, sources.go
//  3. take what comes, whole or as a difference, and verify it; adopt what is newer and suits the clock
//  4. nothing newer: ask again, soon at first and then ever more slowly
//  5. beside that, fetch the onion keys that the newest consensus names                   keys.go

const (
	hedge = 500 * time.Millisecond // a server of which nothing comes for so long is not waited for alone
	// Nobody comes at the very moment when a consensus stops being fresh. Mirrors come within the first of
	// these parts of the round after it, clients within the second to the fifth: mirrors have it then.
	parts       = 10
	clientsFrom = 1
	clientsTill = 5
	// Nothing newer after the fresh time: ask again at first after this part of the round. With rounds of
	// seconds that is soon, with rounds of an hour it spares the authorities.
	patience = 100
	// The due time is looked at again so often: the wall clock may be set, or the machine may have slept.
	nap = time.Minute
)

// Fetcher gets a document from a server, as Client.Fetch does. A server that takes longer than half a second
// is left alone by a Follower only if the Fetcher is a *Client, which knows whether it is delivering.
type Fetcher interface {
	Fetch(ctx context.Context, from Peer, path, etag string, limit int64) (body []byte, newETag string, err error)
}

// FollowerConfig is what a Follower needs.
type FollowerConfig struct {
	Network *netdoc.Network
	Client  Fetcher      // a *Client
	Log     *slog.Logger // changes and problems, each once; nil discards

	// Keys fetches onion keys; most often it is Client again. Nil: the follower has none.
	Keys Poster

	// Routes says that routes are chosen by the consensus: Current then waits for onion keys, and mirrors
	// are asked before authorities, later in the round. It needs Keys.
	Routes bool

	// LocalKey returns the onion key of a relay if it is known without asking anybody, else nil: an authority
	// has it from the descriptor. Nil: never.
	LocalKey func(*netdoc.Relay) []byte

	// Now tells the time; nil is time.Now. Timers run by the other clock whatever it says.
	Now func() time.Time
}

// Follower holds the newest consensus that a quorum of authorities signed, and keeps asking for the next. With
// Keys it holds the onion keys that this one and the one before name as well.
// It never goes back to an earlier round; a second, different document for a round is kept as proof and
// not used; a document that the clock does not agree with is not used either. All methods are safe for
// concurrent use, before, during and after Run.
type Follower struct {
	holdings
	client    Fetcher
	poster    Poster
	localKey  func(*netdoc.Relay) []byte
	log       *slog.Logger
	now       func() time.Time
	keys      keyStore
	accepting sync.Mutex
	archive   archive
	serves    atomic.Bool // Mirror was called: the archive is kept

	statusMu sync.Mutex
	giver    source  // whom the newest consensus came from; zero if from nobody
	last     tally   // of the last poll
	reported problem // the one that the log has; zero if it has none
}

// problem tells apart what is worth saying anew.
type problem struct {
	kind     trouble
	rank     telling
	answered int
}

// trouble is what a lack of a newer consensus means for whoever needs one.
type trouble int

const (
	noTrouble trouble = iota
	stale             // the one that is held is used on
	missing           // none can be used
)

// NewFollower returns a Follower that holds nothing; Run makes it follow.
func NewFollower(cfg FollowerConfig) *Follower {
	f := &Follower{client: cfg.Client, poster: cfg.Keys, localKey: cfg.LocalKey, log: cfg.Log, now: cfg.Now}
	if f.now == nil {
		f.now = time.Now
	}
	f.network, f.keyed = cfg.Network, cfg.Routes
	f.changed, f.arrived = make(chan struct{}), make(chan struct{})
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	return f
}

// Run follows until ctx ends. It returns nil then, and nothing else ends it: what goes wrong is in Problem.
func (f *Follower) Run(ctx context.Context) error {
	var keys sync.WaitGroup
	defer keys.Wait()
	if f.poster != nil {
		keys.Go(func() { f.followKeys(ctx) })
	}
	started := f.now().Round(0)
	held, _, arrived := f.latest()
	due := started
	if held != nil {
		due = f.next(started, started)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(min(due.Sub(f.now()), nap))
		select {
		case <-ctx.Done():
			return nil
		case <-arrived: // by somebody's Offer, or by the poll below
			_, _, arrived = f.latest()
			due = f.next(started, f.now())
			continue
		case <-timer.C:
		}
		if f.now().Before(due) {
			continue
		}
		asked, news := f.poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !news { // else it ended before all had been asked, and says nothing of the authorities
			f.note(asked)
		}
		due = f.next(started, f.now())
	}
}

// next returns when to ask next: a little after the current consensus stops being fresh, or, if that is
// past or there is none, after a pause that grows.
func (f *Follower) next(started, now time.Time) time.Time {
	now = now.Round(0) // the wall clock: the other one stands still while a laptop sleeps
	least, most := retryBounds(f.network.Params)
	since := started
	if c, _, _ := f.latest(); c != nil {
		until := time.UnixMilli(c.FreshUntil)
		round := until.Sub(time.UnixMilli(c.ValidAfter))
		if now.Before(until) {
			return until.Add(f.turn(round))
		}
		if until.After(since) {
			since = until
		}
		least = min(max(round/patience, least), most)
	}
	return now.Add(backoff(now.Sub(since), least, most))
}

// turn returns when in a round to ask for it, at random.
func (f *Follower) turn(round time.Duration) time.Duration {
	part := max(round/parts, 1)
	if f.keyed {
		return clientsFrom*part + rand.N((clientsTill-clientsFrom)*part)
	}
	return rand.N(part)
}

// Offer hands the follower a consensus from elsewhere, such as a file. It is treated like one that an
// authority sent. The error is nil if it is now the newest one; else ErrOlder, a *Conflict, a
// *netdoc.ClockError, or why the document is not valid. raw must not be changed afterwards.
func (f *Follower) Offer(raw []byte) error {
	c, err := netdoc.ParseConsensus(raw, f.network)
	if err != nil {
		return err
	}
	return f.accept(c)
}

// accept is Offer for a document that was parsed.
func (f *Follower) accept(c *netdoc.Consensus) error {
	news, err := f.acceptWithKeys(c)
	conflict, proof := errors.AsType[*Conflict](err)
	switch {
	case !news:
	case proof:
		f.log.Error("authorities signed two consensuses for one round; the second is kept as proof",
			"valid_after", time.UnixMilli(conflict.Held.ValidAfter).UTC(),
			"kept", conflict.Held.Digest().String(), "other", conflict.Other.Digest().String())
	default:
		if f.serves.Load() {
			f.archive.add(c)
		}
		f.adopted(c)
		f.useKeys()
	}
	return err
}

// acceptWithKeys takes a consensus, and of the keys those that are known without asking and those that are
// still named. One at a time: keys that are put for one consensus must not be dropped for another.
func (f *Follower) acceptWithKeys(c *netdoc.Consensus) (news bool, err error) {
	f.accepting.Lock()
	defer f.accepting.Unlock()
	f.takeLocalKeys(c)
	news, err = f.offer(c, f.now())
	newest, before, _ := f.latest()
	f.keys.retain(newest, before)
	return news, err
}

func (f *Follower) adopted(c *netdoc.Consensus) {
	level := slog.LevelDebug
	f.statusMu.Lock()
	if _, before, _ := f.latest(); before == nil || f.reported.kind != noTrouble {
		level = slog.LevelInfo // the first, or the end of a problem
	}
	f.reported, f.last = problem{}, tally{}
	f.statusMu.Unlock()
	f.log.Log(context.Background(), level, "new consensus",
		"valid_after", time.UnixMilli(c.ValidAfter).UTC(), "relays", len(c.Relays))
}

// note keeps the outcome of a poll that brought nothing newer, and logs what it means for whoever needs a
// consensus: once, and again when it becomes something else.
func (f *Follower) note(t tally) {
	f.statusMu.Lock()
	f.last = t
	f.statusMu.Unlock()
	now, message, err := problem{missing, t.rank, t.answered}, "no usable consensus", f.Problem()
	if err == nil {
		now.kind, message, err = stale, "no new consensus; the last one is used on", f.Stale()
	}
	if err == nil {
		return
	}
	f.statusMu.Lock()
	news := f.reported != now
	f.reported = now
	f.statusMu.Unlock()
	if news {
		f.log.Warn(message, "problem", err)
	}
}

// Stale says that the consensus in use should have been followed by another, and that the last attempt to
// get it failed: nil if that is not so, or there is none to use (see Problem). Half a round's delay is
// nothing to speak of. The error is an *UnavailableError.
func (f *Follower) Stale() error {
	c, now := f.Current(), f.now()
	if c == nil || c.Check(now) != nil {
		return nil
	}
	fresh := time.UnixMilli(c.FreshUntil)
	if !now.After(fresh.Add(fresh.Sub(time.UnixMilli(c.ValidAfter)) / 2)) {
		return nil
	}
	f.statusMu.Lock()
	defer f.statusMu.Unlock()
	if f.last.asked == 0 {
		return nil
	}
	e := f.unavailableLocked()
	e.Until = time.UnixMilli(c.ValidUntil)
	return e
}

// Problem says why there is no consensus to use at this moment: nil if there is one. Else it is a *KeysError,
// or an *UnavailableError, in which errors.As finds the *netdoc.ClockError of a clock that is off.
func (f *Follower) Problem() error {
	now := f.now()
	var expired error
	if c := f.Current(); c != nil {
		if expired = c.Check(now); expired == nil {
			return nil
		}
	}
	if c, _, _ := f.latest(); f.keyed && c != nil && c.Check(now) == nil {
		return &KeysError{Relays: len(c.Relays), Missing: len(f.keys.missing(c))}
	}
	f.statusMu.Lock()
	defer f.statusMu.Unlock()
	e := f.unavailableLocked()
	e.Expired = expired
	return e
}

func (f *Follower) unavailableLocked() *UnavailableError {
	return &UnavailableError{
		Authorities: len(f.network.Authorities), Quorum: netdoc.Quorum(len(f.network.Authorities)),
		Asked: f.last.asked, Answered: f.last.answered, Cause: f.last.err,
	}
}
