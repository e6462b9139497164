package relay

import (
	"bytes"
	"context"
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
	return netdoc.OnionKey{Public: key.Public(), From: now.UnixMilli(), Until: now.Add(k.lifetime).UnixMilli()}
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
	tick := time.NewTicker(keyCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := k.tend(now, f.Current()); err != nil {
				return err
			}
		}
	}
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
	if !ok {
		return time.Time{}
	}
	for _, listed := range self.OnionKeys {
		if bytes.Equal(listed.Public, key.Public) {
			return time.UnixMilli(c.ValidUntil)
		}
	}
	return time.Time{}
}
