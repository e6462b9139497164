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
type holdings struct {
	network *netdoc.Network

	mu        sync.RWMutex
	current   *netdoc.Consensus
	previous  *netdoc.Consensus
	changed   chan struct{} // closed and replaced when current changes
	conflicts []Conflict
}

// offer takes a document from anywhere. It is verified, and becomes current if it is newer and the clock
// agrees with it. The error is nil if the document is the current one now. news says whether it was not
// before, or, with a *Conflict, whether that proof is new.
func (h *holdings) offer(raw []byte, now time.Time) (c *netdoc.Consensus, news bool, err error) {
	c, err = netdoc.ParseConsensus(raw, h.network)
	if err != nil {
		return nil, false, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, held := range []*netdoc.Consensus{h.current, h.previous} {
		if held != nil && held.ValidAfter == c.ValidAfter && held.Digest() != c.Digest() {
			conflict := Conflict{Held: held, Other: c}
			return nil, h.proveLocked(conflict), &conflict
		}
	}
	switch {
	case h.current != nil && c.ValidAfter < h.current.ValidAfter:
		return nil, false, ErrOlder
	case h.current != nil && c.ValidAfter == h.current.ValidAfter:
		return h.current, false, nil
	}
	if err := c.Check(now); err != nil {
		return nil, false, err
	}
	h.previous, h.current = h.current, c
	close(h.changed)
	h.changed = make(chan struct{})
	return c, true, nil
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

// Current returns the newest verified consensus, nil before the first. It may have expired since: see
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
