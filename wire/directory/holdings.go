package directory

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// ErrOlder says that a consensus is of an earlier round than the one held.
var ErrOlder = errors.New("directory: consensus of an earlier round than the one held")

// Conflict is the proof that authorities signed two consensuses for one round: both are valid, and each
// authority that signed both has broken the protocol.
type Conflict struct {
	Held, Other *netdoc.Consensus
}

func (c *Conflict) Error() string {
	round := time.UnixMilli(c.Held.ValidAfter).UTC().Format(time.RFC3339Nano)
	return fmt.Sprintf("directory: two valid consensuses for the round of %s: %s is kept, %s is not used",
		round, c.Held.Digest(), c.Other.Digest())
}

// maxConflicts bounds the proofs kept; a few prove as much as many.
const maxConflicts = 4

// holdings is the newest verified consensus, the one before, and what was found wrong with others. It is
// safe for concurrent use.
//
// Where the consensus is to choose routes by, what is verified is not yet what is used: it waits in newest
// until enough onion keys are at hand, and then becomes current with the keys attached.
type holdings struct {
	network *netdoc.Network
	keyed   bool // current has onion keys

	mu        sync.RWMutex
	newest    *netdoc.Consensus // verified
	before    *netdoc.Consensus // newest before newest
	arrived   chan struct{}     // closed and replaced when newest changes
	current   *netdoc.Consensus
	previous  *netdoc.Consensus
	changed   chan struct{} // closed and replaced when current changes
	conflicts []Conflict
}

// offer takes a verified document from anywhere. It becomes the newest if it is newer and the clock agrees
// with it. The error is nil if the document is the newest one now. news says whether it was not before, or,
// with a *Conflict, whether that proof is new.
func (h *holdings) offer(c *netdoc.Consensus, now time.Time) (news bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, held := range []*netdoc.Consensus{h.newest, h.before} {
		if held != nil && held.ValidAfter == c.ValidAfter && held.Digest() != c.Digest() {
			conflict := Conflict{Held: held, Other: c}
			return h.proveLocked(conflict), &conflict
		}
	}
	switch {
	case h.newest != nil && c.ValidAfter < h.newest.ValidAfter:
		return false, ErrOlder
	case h.newest != nil && c.ValidAfter == h.newest.ValidAfter:
		return false, nil
	}
	if err := c.Check(now); err != nil {
		return false, err
	}
	h.before, h.newest = h.newest, c
	close(h.arrived)
	h.arrived = make(chan struct{})
	if !h.keyed {
		h.useLocked(c)
	}
	return true, nil
}

// use makes c, the newest with keys attached, the current one. It reports false if c is the newest no more,
// or tells nothing new.
func (h *holdings) use(c *netdoc.Consensus) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.Digest() != h.newest.Digest() {
		return false
	}
	if h.current != nil && h.current.Digest() == c.Digest() && h.current.Keyless() <= c.Keyless() {
		return false
	}
	h.useLocked(c)
	return true
}

func (h *holdings) useLocked(c *netdoc.Consensus) {
	if h.current == nil || h.current.Digest() != c.Digest() {
		h.previous = h.current
	}
	h.current = c
	close(h.changed)
	h.changed = make(chan struct{})
}

// latest returns the newest verified consensus, with or without keys, the one before, and a channel that is
// closed when there is a newer one.
func (h *holdings) latest() (newest, before *netdoc.Consensus, arrived <-chan struct{}) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.newest, h.before, h.arrived
}

// proveLocked keeps a proof and reports whether it is new; one too many is not.
func (h *holdings) proveLocked(found Conflict) bool {
	for _, known := range h.conflicts {
		if known.Held.Digest() == found.Held.Digest() && known.Other.Digest() == found.Other.Digest() {
			return false
		}
	}
	if len(h.conflicts) == maxConflicts {
		return false
	}
	h.conflicts = append(h.conflicts, found)
	return true
}

// Current returns the newest verified consensus, nil before the first; one to choose routes by has the onion
// keys attached, but for at most a tenth of the relays. It may have expired since: see
// netdoc.Consensus.Check. It is immutable.
func (h *holdings) Current() *netdoc.Consensus {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.current
}

// Previous returns the consensus that was current before Current, nil if there was none.
func (h *holdings) Previous() *netdoc.Consensus {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.previous
}

// Changed returns a channel that is closed when Current next changes. Take it before looking at Current.
func (h *holdings) Changed() <-chan struct{} {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.changed
}

// Lookup returns a relay of the current consensus, or else of the previous one.
func (h *holdings) Lookup(id wire.ID) (*netdoc.Relay, bool) {
	h.mu.RLock()
	current, previous := h.current, h.previous
	h.mu.RUnlock()
	for _, c := range []*netdoc.Consensus{current, previous} {
		if c == nil {
			continue
		}
		if r, ok := c.Relay(id); ok {
			return r, true
		}
	}
	return nil, false
}

// Known reports whether the ID is a relay of the current or the previous consensus.
func (h *holdings) Known(id wire.ID) bool {
	_, ok := h.Lookup(id)
	return ok
}

// Conflicts returns the proofs found so far, at most four.
func (h *holdings) Conflicts() []Conflict {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return append([]Conflict(nil), h.conflicts...)
}
