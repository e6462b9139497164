package directory

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"torproxy/wire/netdoc"
)

// The follower's round:
//
//  1. wait until a little after the current consensus stops being fresh; at the start, not at all
//  2. ask the authorities in random order, the next one when one fails, has nothing newer, or is slow
//  3. verify what comes; adopt what is newer and suits the clock
//  4. nothing newer: ask again, soon at first and then ever more slowly

const (
	hedge = 500 * time.Millisecond // an authority that takes longer is not waited for alone
	// Clients do not all come at the moment when a consensus stops being fresh, but within this part of
	// its round after it.
	spread = 10
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

	// Now tells the time; nil is time.Now. Timers run by the other clock whatever it says.
	Now func() time.Time
}

// Follower holds the newest consensus that a quorum of authorities signed, and keeps asking for the next.
// It never goes back to an earlier round; a second, different document for a round is kept as proof and
// not used; a document that the clock does not agree with is not used either. All methods are safe for
// concurrent use, before, during and after Run.
type Follower struct {
	holdings
	client Fetcher
	log    *slog.Logger
	now    func() time.Time

	statusMu sync.Mutex
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
	f := &Follower{client: cfg.Client, log: cfg.Log, now: cfg.Now}
	if f.now == nil {
		f.now = time.Now
	}
	f.network, f.changed = cfg.Network, make(chan struct{})
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	return f
}

// Run follows until ctx ends. It returns nil then, and nothing else ends it: what goes wrong is in Problem.
func (f *Follower) Run(ctx context.Context) error {
	started := f.now().Round(0)
	changed, due := f.Changed(), started
	if f.Current() != nil {
		due = f.next(started, started)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(min(due.Sub(f.now()), nap))
		select {
		case <-ctx.Done():
			return nil
		case <-changed: // by somebody's Offer, or by the poll below
			changed = f.Changed()
			due = f.next(started, f.now())
			continue
		case <-timer.C:
		}
		if f.now().Before(due) {
			continue
		}
		asked := f.poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		f.note(asked)
		due = f.next(started, f.now())
	}
}

// next returns when to ask next: a little after the current consensus stops being fresh, or, if that is
// past or there is none, after a pause that grows.
func (f *Follower) next(started, now time.Time) time.Time {
	now = now.Round(0) // the wall clock: the other one stands still while a laptop sleeps
	least, most := retryBounds(f.network.Params)
	since := started
	if c := f.Current(); c != nil {
		until := time.UnixMilli(c.FreshUntil)
		round := until.Sub(time.UnixMilli(c.ValidAfter))
		if now.Before(until) {
			return until.Add(rand.N(max(round/spread, 1)))
		}
		if until.After(since) {
			since = until
		}
		least = min(max(round/patience, least), most)
	}
	return now.Add(backoff(now.Sub(since), least, most))
}

// Offer hands the follower a consensus from elsewhere, such as a file. It is treated like one that an
// authority sent. The error is nil if it is now the current one; else ErrOlder, a *Conflict, a
// *netdoc.ClockError, or why the document is not valid. raw must not be changed afterwards.
func (f *Follower) Offer(raw []byte) error {
	c, news, err := f.offer(raw, f.now())
	conflict, proof := errors.AsType[*Conflict](err)
	switch {
	case !news:
	case proof:
		f.log.Error("authorities signed two consensuses for one round; the second is kept as proof",
			"valid_after", time.UnixMilli(conflict.Held.ValidAfter).UTC(),
			"kept", conflict.Held.Digest().String(), "other", conflict.Other.Digest().String())
	default:
		f.adopted(c)
	}
	return err
}

func (f *Follower) adopted(c *netdoc.Consensus) {
	level := slog.LevelDebug
	f.statusMu.Lock()
	if f.Previous() == nil || f.reported.kind != noTrouble {
		level = slog.LevelInfo // the first, or the end of a problem
	}
	f.reported, f.last = problem{}, tally{}
	f.statusMu.Unlock()
	f.log.Log(context.Background(), level, "new consensus",
		"valid_after", time.UnixMilli(c.ValidAfter).UTC(), "relays", len(c.Relays))
}

// reply is one authority's answer to a poll.
type reply struct {
	body []byte
	err  error
}

// poll asks authorities until one has a newer consensus, and returns what the others said. It asks the
// next one when an answer is no help or does not come soon, and has nothing running when it returns.
func (f *Follower) poll(ctx context.Context) tally {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	authorities := f.network.Authorities
	replies := make(chan reply, len(authorities))
	var t tally
	order := rand.Perm(len(authorities))
	slow := time.NewTimer(0)
	defer slow.Stop()
	for t.asked < len(authorities) || t.running > 0 {
		next := slow.C
		if t.asked == len(authorities) {
			next = nil
		}
		select {
		case <-next:
			peer := PeerOf(authorities[order[t.asked]])
			asking.Go(func() { replies <- f.ask(ctx, peer) })
			t.asked++
			t.running++
			slow.Reset(hedge)
		case r := <-replies:
			t.running--
			if f.take(r, &t) {
				return t
			}
			slow.Reset(0)
		}
	}
	return t
}

func (f *Follower) ask(ctx context.Context, from Peer) reply {
	tag := ""
	if c := f.Current(); c != nil {
		tag = etag(c)
	}
	body, _, err := f.client.Fetch(ctx, from, ConsensusPath, tag, netdoc.MaxConsensus)
	return reply{body: body, err: err}
}

// take judges a reply; true means that a newer consensus has come.
func (f *Follower) take(r reply, t *tally) bool {
	if r.err != nil {
		t.failed(r.err)
		return false
	}
	before := f.Current()
	err := f.Offer(r.body)
	t.judged(err)
	return err == nil && f.Current() != before
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

// Problem says why there is no consensus to use at this moment: nil if there is one. Else it is an
// *UnavailableError, in which errors.As finds the *netdoc.ClockError of a clock that is off.
func (f *Follower) Problem() error {
	c := f.Current()
	var expired error
	if c != nil {
		if expired = c.Check(f.now()); expired == nil {
			return nil
		}
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
