package relay

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
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
	lost     error         // why the keys of an earlier process were not used
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
	if k.lost = k.restore(); k.lost != nil {
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
	return OnionKey{Private: key, From: now.UnixMilli(), Until: k.end(now).UnixMilli()}
}

// end returns until when a key that begins now is the current one: the relay's next moment of rotation
// (section 3.1 of SPEC.md), or, if that is too near, the one after it.
func (k *keys) end(now time.Time) time.Time {
	until := rotation(k.id, k.lifetime, now)
	if until.Sub(now) < k.lifetime/leastLife {
		until = until.Add(k.lifetime)
	}
	return until
}

// leastLife is the part of its lifetime that a key lives at least.
const leastLife = 20

// rotation returns the first moment after t at which the relay of that ID rotates: one in each lifetime since
// 1970, at a part of it that only the ID decides, so that a network's rotations spread evenly.
func rotation(id wire.ID, lifetime time.Duration, t time.Time) time.Time {
	h := sha256.Sum256(append([]byte("torproxy/1 rotation"), id[:]...))
	length := max(lifetime.Milliseconds(), 1)
	part, _ := bits.Mul64(binary.BigEndian.Uint64(h[:8]), uint64(length))
	moment := int64(part)
	if now := t.UnixMilli(); now >= moment {
		moment += ((now-moment)/length + 1) * length
	}
	return time.UnixMilli(moment)
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
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(k.pause(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case now := <-timer.C:
			if err := k.tend(now, f.Current()); err != nil {
				k.log.Error("the relay's state cannot be written; it is tried again in a minute", "err", err)
			}
		}
	}
}

// pause returns after what time to look again: when the current key's time is over, or a minute.
func (k *keys) pause(now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if left := time.UnixMilli(k.current.Until).Sub(now); left > 0 && left < keyCheck {
		return left
	}
	return keyCheck
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
	if !ok || self.Key.Digest != netdoc.Digest(key.Private.Digest()) {
		return 0
	}
	return c.ValidUntil
}
