package directory

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"torproxy/wire/netdoc"
)

// The way of onion keys:
//
//  1. a new consensus: which of the keys that it names are not at hand?
//  2. ask for all of them, in batches, in the order of the list; what one server lacks, the next is asked for
//  3. routes: go over to the consensus when the keys suffice, and again when more have come
//  4. some are missing still: ask again, soon at first and then ever more slowly
//
// Never is the key of one relay asked for because it is to be used.

// batchesAtOnce hides some of the round trips. A request has 30 seconds: these need 40 kB/s together.
const batchesAtOnce = 4

// followKeys fetches keys until ctx ends.
func (f *Follower) followKeys(ctx context.Context) {
	least, most := retryBounds(f.network.Params)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		newest, _, arrived := f.latest()
		since := time.Now()
		for again := true; again; {
			timer.Stop()
			if newest != nil && f.fetchKeys(ctx, newest) > 0 {
				timer.Reset(backoff(time.Since(since), least, most))
			}
			select {
			case <-ctx.Done():
				return
			case <-arrived:
				again = false
			case <-timer.C:
			}
		}
	}
}

// fetchKeys asks for the keys that a consensus names and that are not held, and returns how many it still
// lacks.
func (f *Follower) fetchKeys(ctx context.Context, c *netdoc.Consensus) int {
	missing := f.keys.missing(c)
	if len(missing) == 0 {
		return 0
	}
	for _, from := range f.keySources(c, len(missing)) {
		err := f.askKeys(ctx, from, missing)
		if missing = f.keys.missing(c); len(missing) == 0 || ctx.Err() != nil {
			break
		}
		if err != nil {
			f.log.Debug("onion keys not fetched", "from", from.ID.Short(), "cause", err)
		}
	}
	f.useKeys()
	return len(missing)
}

// keysPatience is after what time no further batch is asked of one server.
const keysPatience = 10 * time.Second

// askKeys asks one server for keys, batch by batch, until one fails or it has nothing of a batch.
func (f *Follower) askKeys(ctx context.Context, from source, missing []netdoc.Digest) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(batchesAtOnce)
	started := time.Now()
	for batch := range slices.Chunk(missing, keysPerRequest) {
		if time.Since(started) > keysPatience {
			break // the next server may be faster; what has come stays
		}
		group.Go(func() error { return f.askBatch(ctx, from, batch) })
	}
	return group.Wait()
}

func (f *Follower) askBatch(ctx context.Context, from source, batch []netdoc.Digest) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	answer, err := f.poster.Post(ctx, from.Peer, KeysPath, appendKeyRequest(nil, batch), int64(len(batch)*netdoc.OnionKeySize))
	if err == nil && f.keys.takeAnswer(batch, answer) == 0 {
		err = fmt.Errorf("directory: it has none of %d onion keys", len(batch))
	}
	return err
}

// OfferKeys hands the follower onion keys from elsewhere, such as a file, for the consensus that was offered
// before, and returns how many of them it had not. What that consensus does not name is not kept.
func (f *Follower) OfferKeys(public ...[]byte) int {
	newest, _, _ := f.latest()
	if newest == nil {
		return 0
	}
	taken := f.keys.takeAnswer(f.keys.missing(newest), slices.Concat(public...))
	f.useKeys()
	return taken
}

// takeLocalKeys keeps what LocalKey knows of a consensus.
func (f *Follower) takeLocalKeys(c *netdoc.Consensus) {
	if f.localKey == nil {
		return
	}
	for i := range c.Relays {
		r := &c.Relays[i]
		if f.keys.key(r.Key.Digest) == nil {
			f.keys.put(r.Key.Digest, f.localKey(r))
		}
	}
}

// useKeys goes over to the newest consensus if the keys at hand suffice for choosing routes.
func (f *Follower) useKeys() {
	newest, _, _ := f.latest()
	if !f.keyed || newest == nil {
		return
	}
	with := newest.WithKeys(f.keys.key)
	if !suffices(with) || !f.use(with) {
		return
	}
	if n := with.Keyless(); n > 0 {
		f.log.Debug("relays are left out of routes: nobody has their onion keys", "relays", n, "of", len(with.Relays))
	}
}

// suffices reports whether the relays with keys are nine tenths of all, by number and by weight: servers that
// keep keys back shall not choose anybody's routes. (A consensus without relays suffices: it is no better
// with keys.)
func suffices(c *netdoc.Consensus) bool {
	var weight, all uint64 // of at most MaxRelays times MaxBandwidth
	for i := range c.Relays {
		r := &c.Relays[i]
		all += r.Weight
		if r.OnionKey() != nil {
			weight += r.Weight
		}
	}
	return 10*c.Keyless() <= len(c.Relays) && 10*(all-weight) <= all
}

// Mirror serves what the follower holds at ConsensusPath and KeysPath: it is worth as much as an authority's
// copy, signatures and digests and all. From the first call on the follower keeps the last consensuses to make
// differences to.
func (f *Follower) Mirror() http.Handler {
	f.serves.Store(true)
	mux := http.NewServeMux()
	mux.Handle(ConsensusPath, serveConsensus(&f.archive, func() *netdoc.Consensus {
		newest, _, _ := f.latest()
		return newest
	}))
	mux.Handle(KeysPath, KeysHandler(f.keys.key))
	return mux
}
