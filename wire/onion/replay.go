package onion

import (
	"crypto/sha256"
	"sync"
)

// encDigest names a CREATE packet in the replay cache: the first 16 bytes of SHA-256(enc).
type encDigest [16]byte

func digestEnc(enc []byte) encDigest {
	sum := sha256.Sum256(enc)
	return encDigest(sum[:16])
}

// freshness is what the replay cache says of a packet.
type freshness int

const (
	unseen   freshness = iota // new, and now remembered
	replayed                  // seen before
	stale                     // of an hour whose entries are gone
	full                      // perhaps new, but there is no room to remember it
)

// replayCache remembers the packets that one onion key has peeled, as long as their hour is accepted (SPEC.md
// section 3.4). It holds at most limit entries of about 30 bytes each. When it is full nothing is evicted, for
// that would let an attacker who fills it replay what he has pushed out: new packets are turned away until hours
// have passed. Safe for concurrent use.
type replayCache struct {
	limit int

	mu    sync.Mutex
	hours map[int64]map[encDigest]struct{}
	count int
	floor int64 // the oldest hour still remembered; it never falls, even if the clock does
}

func newReplayCache(limit int) *replayCache {
	return &replayCache{limit: limit, hours: make(map[int64]map[encDigest]struct{})}
}

// add looks the packet up and remembers it in one step. hour is the packet's, now the clock's, both in hours since
// 1970; the caller has checked that they are at most one apart.
func (c *replayCache) add(d encDigest, hour, now int64) freshness {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetLocked(now - 1)
	if hour < c.floor {
		return stale
	}
	return c.insertLocked(d, hour)
}

// restore remembers a packet that was peeled before a restart. It reports whether there was room.
func (c *replayCache) restore(d encDigest, hour int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.insertLocked(d, hour) != full
}

func (c *replayCache) insertLocked(d encDigest, hour int64) freshness {
	seen := c.hours[hour]
	if _, ok := seen[d]; ok {
		return replayed
	}
	if c.count >= c.limit {
		return full
	}
	if seen == nil {
		seen = make(map[encDigest]struct{})
		c.hours[hour] = seen
	}
	seen[d] = struct{}{}
	c.count++
	return unseen
}

// forgetLocked drops all hours before floor.
func (c *replayCache) forgetLocked(floor int64) {
	if floor <= c.floor {
		return
	}
	c.floor = floor
	for hour, seen := range c.hours {
		if hour < floor {
			c.count -= len(seen)
			delete(c.hours, hour)
		}
	}
}
