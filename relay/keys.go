package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// keyCheck is how often a relay looks whether a key is due.
const keyCheck = time.Minute

// afterExpiry is how long a replaced key outlives the last consensus that lists it: a client's clock may
// be that much behind.
const afterExpiry = time.Hour

// keys holds the relay's onion keys and rotates them. The ring is safe for concurrent use; the rest is
// under mu.
type keys struct {
	id       wire.ID
	ring     *onion.Keyring
	store    Store
	log      *slog.Logger
	lifetime time.Duration
	valid    time.Duration // a consensus lives so long
	changed  chan struct{} // of size 1: the descriptor is out of date

	mu      sync.Mutex
	current OnionKey
	old     *OnionKey
}

// newKeys takes up the keys that the store has kept, or makes a new one (key, if it is not nil).
func newKeys(id wire.ID, key *onion.PrivateKey, store Store, p netdoc.Params, now time.Time) (*keys, error) {
	k := &keys{id: id, store: store, lifetime: time.Duration(p.OnionKeyLifetime), changed: make(chan struct{}, 1)}
	if k.lifetime <= 0 {
		k.lifetime = 24 * time.Hour
	}
	_, until := p.Times(now)
	k.valid = until.Sub(now)
	kept := store.Keys()
	if key != nil || len(kept) == 0 {
		return k, k.begin(id, key, now)
	}
	k.resume(id, kept)
	if err := k.restore(); err != nil {
		return k, k.begin(id, nil, now)
	}
	if now.UnixMilli() >= k.current.Until {
		return k, k.rotateLocked(now)
	}
	return k, nil
}

// begin starts with one key; nil makes it.
func (k *keys) begin(id wire.ID, key *onion.PrivateKey, now time.Time) error {
	if key == nil {
		var err error
		if key, err = onion.GenerateKey(); err != nil {
			return err
		}
	}
	k.current, k.old = k.period(key, now), nil
	if err := k.store.Save([]OnionKey{k.current}); err != nil {
		return fmt.Errorf("relay: keep the onion key: %w", err)
	}
	k.ring = onion.NewKeyring(id, key, replayEntries)
	return nil
}

// resume goes on with keys of an earlier process.
func (k *keys) resume(id wire.ID, kept []OnionKey) {
	k.current = kept[0]
	if len(kept) == 1 {
		k.ring = onion.NewKeyring(id, k.current.Private, replayEntries)
		return
	}
	k.old = &kept[1]
	k.ring = onion.NewKeyring(id, k.old.Private, replayEntries)
	k.ring.Rotate(k.current.Private)
}

// restore remembers what the keys have peeled. After an error they must not be used.
func (k *keys) restore() error {
	full := false
	err := k.store.Peeled(func(e onion.ReplayEntry) { full = !k.ring.Restore(e) || full })
	if full {
		err = errors.Join(err, onion.ErrFull)
	}
	return err
}

func (k *keys) period(key *onion.PrivateKey, now time.Time) OnionKey {
	return OnionKey{Private: key, From: now.UnixMilli(), Until: now.Add(k.lifetime).UnixMilli()}
}

// published returns the keys for the descriptor: only the current one. The old one is for packets on the
// way and for clients with an older consensus.
func (k *keys) published() []netdoc.OnionKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return []netdoc.OnionKey{k.current.document()}
}

// announce has the descriptor made anew.
func (k *keys) announce() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// run rotates the keys until ctx ends. What cannot be stored is tried again.
func (k *keys) run(ctx context.Context, f *directory.Follower) error {
	tick := time.NewTicker(keyCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := k.tend(now, f.Current()); err != nil {
				k.log.Error("the relay's state cannot be written; it is tried again in a minute", "err", err)
			}
		}
	}
}

// tend makes a new key when the current one's time is over, and erases the old one when no consensus that
// lists it can be in use any more.
func (k *keys) tend(now time.Time, c *netdoc.Consensus) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	// The packet's hour may be one behind the clock's.
	expired := k.store.Expire(uint32(now.Unix()/3600 - 1))
	if k.old != nil {
		k.old.Last = max(k.old.Last, k.lastListed(c, k.old))
		if now.After(time.UnixMilli(k.old.Last).Add(afterExpiry)) {
			if err := k.store.Save([]OnionKey{k.current}); err != nil {
				return err
			}
			k.ring.EraseOld()
			k.old = nil
		}
	}
	if now.UnixMilli() < k.current.Until || k.old != nil {
		return expired
	}
	return errors.Join(expired, k.rotateLocked(now))
}

// rotateLocked makes a new key the current one. It is kept before anybody hears of it.
func (k *keys) rotateLocked(now time.Time) error {
	key, err := onion.GenerateKey()
	if err != nil {
		return err
	}
	next, replaced := k.period(key, now), k.current
	replaced.Last = now.Add(k.valid).UnixMilli()
	if err := k.store.Save([]OnionKey{next, replaced}); err != nil {
		return err
	}
	k.ring.Rotate(key)
	k.current, k.old = next, &replaced
	k.announce()
	return nil
}

// lastListed returns until when a consensus that lists the key as this relay's may be used, in Unix
// milliseconds; zero if it does not. That others list it counts for nothing: it is public, and whoever
// copies it must not keep it alive.
func (k *keys) lastListed(c *netdoc.Consensus, key *OnionKey) int64 {
	if c == nil {
		return 0
	}
	self, ok := c.Relay(k.id)
	if !ok {
		return 0
	}
	public := key.Private.Public()
	for _, listed := range self.OnionKeys {
		if bytes.Equal(listed.Public, public) {
			return c.ValidUntil
		}
	}
	return 0
}
