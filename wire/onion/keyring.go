package onion

import (
	"sync"
	"time"

	"torproxy/wire"
)

// Keyring is a relay's current onion key and, for the overlap after a rotation, its old one. CREATE does not say
// which of the two it was made for, so Peel tries the current, then the old, each with its own digest and its own
// replay cache. Safe for concurrent use.
type Keyring struct {
	redacted
	id    wire.ID
	limit int

	mu   sync.RWMutex
	keys []*onionKey // current first, then old; replaced, never changed
}

// NewKeyring returns the keyring of relay id with one onion key. Each key's replay cache holds limit entries, of
// about 30 bytes; ErrFull says what happens when it is full. After a restart with two keys, give the old
// one here and the current one to Rotate.
func NewKeyring(id wire.ID, current *PrivateKey, limit int) *Keyring {
	k := &Keyring{id: id, limit: limit}
	k.keys = []*onionKey{k.newOnionKey(current)}
	return k
}

func (k *Keyring) newOnionKey(private *PrivateKey) *onionKey {
	return &onionKey{private: private, info: hpkeInfo(k.id, private.digest), seen: newReplayCache(k.limit)}
}

// Rotate makes next the current key and the current key the old one. A key that was old is erased.
func (k *Keyring) Rotate(next *PrivateKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = []*onionKey{k.newOnionKey(next), k.keys[0]}
}

// EraseOld drops the old key, if there is one, and its replay cache. The caller does so one hour after the last
// consensus that lists the key is past valid-until (SPEC.md section 3.1), and removes the key's file: the path of
// every circuit that it built is forward secret from then on. Go can drop a key but not wipe it: its bytes are gone
// when the collector reuses them.
func (k *Keyring) EraseOld() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = []*onionKey{k.keys[0]} // a shorter slice of the same array would keep the old key alive
}

// snapshot returns the keys as they are now; the slice is never changed.
func (k *Keyring) snapshot() []*onionKey {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.keys
}

// Peel takes this relay's layer off a CREATE packet. It does not change packet, nor keep it. An error means that
// the packet gets no answer: reset the stream with wire.ResetOverloaded for ErrFull and else with wire.ResetCreate,
// whatever the error is; it wraps ErrCreate
// unless randomness failed. Without an error the packet must be answered: see Peeled.
//
// Peel takes 0.1 to 0.2 ms of processor time for every onion key tried. Whoever calls it bounds how often.
func (k *Keyring) Peel(packet []byte, now time.Time) (*Peeled, error) {
	return k.peel(packet, now, newShare)
}

func (k *Keyring) peel(packet []byte, now time.Time, share shareSource) (*Peeled, error) {
	if len(packet) != wire.CreateSize {
		return nil, errSize
	}
	for _, key := range k.snapshot() {
		first, err := key.open(packet)
		if err != nil {
			continue
		}
		return key.peel(k.id, packet, first, hours(now), share)
	}
	return nil, errTag
}

// ReplayEntry is one packet in a replay cache, as a relay writes it to a file so that a restart does not forget it
// (SPEC.md section 3.4).
type ReplayEntry struct {
	Key    [32]byte // digest of the onion key
	Hour   uint32   // the packet's hour, Unix seconds / 3600
	Digest [16]byte // of enc
}

// Restore remembers a packet that was peeled before a restart. False means that its key is not on the ring, so
// that the entry is of no use, or that the cache is full, in which case the key must not be used.
func (k *Keyring) Restore(e ReplayEntry) bool {
	for _, key := range k.snapshot() {
		if key.private.digest == e.Key {
			return key.seen.restore(e.Digest, int64(e.Hour))
		}
	}
	return false
}
