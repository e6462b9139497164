package relay

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
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
	lifetime time.Duration
	valid    time.Duration // a consensus lives so long
	changed  chan struct{} // of size 1: the descriptor is out of date

	mu      sync.Mutex
	current netdoc.OnionKey
	old     *netdoc.OnionKey
	oldLast time.Time // until then the replaced key may be in a client's consensus
}

func newKeys(id wire.ID, key *onion.PrivateKey, p netdoc.Params, now time.Time) (*keys, error) {
	if key == nil {
		var err error
		if key, err = onion.GenerateKey(); err != nil {
			return nil, err
		}
	}
	k := &keys{id: id, lifetime: time.Duration(p.OnionKeyLifetime), changed: make(chan struct{}, 1)}
	if k.lifetime <= 0 {
		k.lifetime = 24 * time.Hour
	}
	_, until := p.Times(now)
	k.valid = until.Sub(now)
	k.ring = onion.NewKeyring(id, key, replayEntries)
	k.current = k.document(key, now)
	return k, nil
}

func (k *keys) document(key *onion.PrivateKey, now time.Time) netdoc.OnionKey {
	return netdoc.OnionKey{Public: key.Public(), From: now.UnixMilli(), Until: k.end(now).UnixMilli()}
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
	return []netdoc.OnionKey{k.current}
}

// run rotates the keys until ctx ends.
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
				return err
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
	if k.old != nil {
		if last := k.lastListed(c, k.old); last.After(k.oldLast) {
			k.oldLast = last
		}
		if now.After(k.oldLast.Add(afterExpiry)) {
			k.ring.EraseOld()
			k.old = nil
		}
	}
	if now.UnixMilli() < k.current.Until || k.old != nil {
		return nil
	}
	next, err := onion.GenerateKey()
	if err != nil {
		return err
	}
	k.ring.Rotate(next)
	replaced := k.current
	k.old, k.oldLast = &replaced, now.Add(k.valid)
	k.current = k.document(next, now)
	select {
	case k.changed <- struct{}{}:
	default:
	}
	return nil
}

// lastListed returns until when a consensus that lists the key as this relay's may be used; zero if it does
// not. That others list it counts for nothing: it is public, and whoever copies it must not keep it alive.
func (k *keys) lastListed(c *netdoc.Consensus, key *netdoc.OnionKey) time.Time {
	if c == nil {
		return time.Time{}
	}
	self, ok := c.Relay(k.id)
	if !ok || self.Key.Digest != netdoc.DigestOf(key.Public) {
		return time.Time{}
	}
	return time.UnixMilli(c.ValidUntil)
}
