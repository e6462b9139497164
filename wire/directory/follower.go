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
//     nothing newer, or is slow                                                           sources.go
//  3. take what comes, whole or as a difference, and verify it; adopt what is newer and suits the clock
//  4. nothing newer: ask again, soon at first and then ever more slowly
//  5. beside that, fetch the onion keys that the newest consensus names                   keys.go

const (
	hedge = 500 * time.Millisecond // an authority that takes longer is not waited for alone
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

// Fetcher gets a document from a server, as Client.Fetch does.
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
	keys      keyStore
	accepting sync.Mutex
	archive   archive
	serves    atomic.Bool // Mirror was called: the archive is kept

	statusMu sync.Mutex
	giver    source // whom the newest consensus came from; zero if from nobody
	last     tally  // of the last poll
	reported tally  // behind the problem that the log has; zero if it has none
}

// NewFollower returns a Follower that holds nothing; Run makes it follow.
func NewFollower(cfg FollowerConfig) *Follower {
	f := &Follower{client: cfg.Client, poster: cfg.Keys, localKey: cfg.LocalKey, log: cfg.Log}
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
	started := time.Now().Round(0)
	held, _, arrived := f.latest()
	due := started
	if held != nil {
		due = f.next(started, started)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(min(time.Until(due), nap))
		select {
		case <-ctx.Done():
			return nil
		case <-arrived: // by somebody's Offer, or by the poll below
			_, _, arrived = f.latest()
			due = f.next(started, time.Now())
			continue
		case <-timer.C:
		}
		if time.Now().Before(due) {
			continue
		}
		asked := f.poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		f.note(asked)
		due = f.next(started, time.Now())
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
	news, err = f.offer(c, time.Now())
	newest, before, _ := f.latest()
	f.keys.retain(newest, before)
	return news, err
}

func (f *Follower) adopted(c *netdoc.Consensus) {
	level := slog.LevelDebug
	f.statusMu.Lock()
	if _, before, _ := f.latest(); before == nil || f.reported.rank != 0 {
		level = slog.LevelInfo // the first, or the end of a problem
	}
	f.reported = tally{}
	f.statusMu.Unlock()
	f.log.Log(context.Background(), level, "new consensus",
		"valid_after", time.UnixMilli(c.ValidAfter).UTC(), "relays", len(c.Relays))
}

// reply is one server's answer to a poll: a document, why what it sent is none, or why it sent none.
type reply struct {
	from    source
	doc     *netdoc.Consensus
	invalid error
	err     error
}

// poll asks servers until one has a newer consensus, and returns what the authorities among the others said.
// It asks the next one when an answer is no help or does not come soon, and has nothing running when it
// returns.
func (f *Follower) poll(ctx context.Context) tally {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	sources := f.sources()
	replies := make(chan reply, len(sources))
	var t tally
	asked, running := 0, 0
	slow := time.NewTimer(0)
	defer slow.Stop()
	for asked < len(sources) || running > 0 {
		next := slow.C
		if asked == len(sources) {
			next = nil
		}
		select {
		case <-next:
			from := sources[asked]
			asking.Go(func() { replies <- f.ask(ctx, from) })
			asked++
			running++
			if !from.mirror {
				t.asked++
			}
			slow.Reset(hedge)
		case r := <-replies:
			running--
			if f.take(r, &t) {
				return t
			}
			slow.Reset(0)
		}
	}
	return t
}

// ask gets the newest consensus that a server has. A difference that is of no use is followed by a request
// for the whole document.
func (f *Follower) ask(ctx context.Context, from source) reply {
	r := reply{from: from}
	path, tag := ConsensusPath, ""
	held, _, _ := f.latest()
	if held != nil {
		path, tag = consensusFrom(held), etag(held)
	}
	body, _, err := f.client.Fetch(ctx, from.Peer, path, tag, netdoc.MaxConsensus)
	if err == nil && netdoc.IsDifference(body) && held != nil {
		if r.doc, err = f.patched(body, held); err == nil {
			return r
		}
		f.log.Debug("a difference is of no use", "from", from.ID.Short(), "cause", err)
		body, _, err = f.client.Fetch(ctx, from.Peer, ConsensusPath, "", netdoc.MaxConsensus)
	}
	if r.err = err; err == nil {
		r.doc, r.invalid = netdoc.ParseConsensus(body, f.network)
	}
	return r
}

// patched returns what a difference makes of a consensus, verified.
func (f *Follower) patched(difference []byte, held *netdoc.Consensus) (*netdoc.Consensus, error) {
	raw, err := netdoc.ApplyDifference(difference, held)
	if err != nil {
		return nil, err
	}
	return netdoc.ParseConsensus(raw, f.network)
}

// take judges a reply; true means that a newer consensus has come. What a mirror fails to do is no news of
// the authorities.
func (f *Follower) take(r reply, t *tally) bool {
	if r.from.mirror && r.doc == nil {
		return false
	}
	if r.err != nil {
		t.failed(r.err)
		return false
	}
	before, _, _ := f.latest()
	err := r.invalid
	if err == nil {
		if before == nil || r.doc.ValidAfter > before.ValidAfter {
			f.gave(r.from)
		}
		err = f.accept(r.doc)
	}
	if !r.from.mirror {
		t.judged(err)
	}
	now, _, _ := f.latest()
	return err == nil && now != before
}

// note keeps the outcome of a poll that brought nothing newer, and logs what it means for whoever needs a
// consensus: once, and again when it becomes something else.
func (f *Follower) note(t tally) {
	f.statusMu.Lock()
	f.last = t
	news := t.rank != f.reported.rank || t.answered != f.reported.answered
	f.statusMu.Unlock()
	problem := f.Problem()
	if problem == nil || !news {
		return
	}
	f.statusMu.Lock()
	f.reported = t
	f.statusMu.Unlock()
	f.log.Warn("no usable consensus", "problem", problem)
}

// Problem says why there is no consensus to use at this moment: nil if there is one. Else it is a *KeysError,
// or an *UnavailableError, in which errors.As finds the *netdoc.ClockError of a clock that is off.
func (f *Follower) Problem() error {
	now := time.Now()
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
	return &UnavailableError{
		Authorities: len(f.network.Authorities), Quorum: netdoc.Quorum(len(f.network.Authorities)),
		Asked: f.last.asked, Answered: f.last.answered,
		Expired: expired, Cause: f.last.err,
	}
}
