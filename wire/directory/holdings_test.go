package directory

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire/netdoc"
)

// bubbleStart is what a synctest bubble's clock says at first.
var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestOfferAdoptsOnlyForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testNetwork(4, time.Hour)
		f := NewFollower(FollowerConfig{Network: n})
		if f.Current() != nil || f.Known(relayID(1)) {
			t.Error("a new follower holds something")
		}
		first := consensusOf(t, n, bubbleStart.Add(-time.Hour), 1, 2)
		second := consensusOf(t, n, bubbleStart, 2, 3)
		changed := f.Changed()
		if err := f.Offer(first); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		default:
			t.Error("the change was not told")
		}
		if err := f.Offer(second); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Current().Raw(), second) || !bytes.Equal(f.Previous().Raw(), first) {
			t.Error("current and previous are not what was offered")
		}
		changed = f.Changed()
		if err := f.Offer(first); !errors.Is(err, ErrOlder) {
			t.Errorf("an older round: %v", err)
		}
		if err := f.Offer(second); err != nil {
			t.Errorf("the same again: %v", err)
		}
		if !bytes.Equal(f.Current().Raw(), second) {
			t.Error("current changed")
		}
		select {
		case <-changed:
			t.Error("a change was told where none was")
		default:
		}
		for id, want := range map[int]bool{1: true, 2: true, 3: true, 4: false} {
			if f.Known(relayID(id)) != want {
				t.Errorf("relay %d known: %v", id, !want)
			}
		}
		if r, _ := f.Lookup(relayID(2)); r == nil || !inConsensus(f.Current(), r) {
			t.Error("a relay of both is not looked up in the newer one")
		}
	})
}

func inConsensus(c *netdoc.Consensus, r *netdoc.Relay) bool {
	mine, ok := c.Relay(r.ID)
	return ok && mine == r
}

func TestOfferRefusesWhatIsNotSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testNetwork(4, time.Hour)
		f := NewFollower(FollowerConfig{Network: n})
		raw := consensusOf(t, n, bubbleStart, 1)
		raw[len(raw)-1] ^= 1
		if err := f.Offer(raw); !errors.Is(err, netdoc.ErrSignature) {
			t.Errorf("a broken signature: %v", err)
		}
		if f.Current() != nil {
			t.Error("adopted")
		}
	})
}

func TestSecondDocumentOfARoundIsKeptAsProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testNetwork(4, time.Hour)
		var log journal
		f := NewFollower(FollowerConfig{Network: n, Log: log.logger()})
		older := consensusOf(t, n, bubbleStart.Add(-time.Hour), 1)
		held := consensusOf(t, n, bubbleStart, 1, 2)
		if err := errors.Join(f.Offer(older), f.Offer(held)); err != nil {
			t.Fatal(err)
		}
		log.take()
		for _, other := range [][]byte{
			consensusOf(t, n, bubbleStart, 1, 2, 3),           // beside the current
			consensusOf(t, n, bubbleStart.Add(-time.Hour), 9), // beside the previous
		} {
			for range 2 {
				conflict, ok := errors.AsType[*Conflict](f.Offer(other))
				if !ok || !bytes.Equal(conflict.Other.Raw(), other) || conflict.Held.ValidAfter != conflict.Other.ValidAfter {
					t.Fatalf("no proof: %+v", conflict)
				}
			}
		}
		if !bytes.Equal(f.Current().Raw(), held) || f.Known(relayID(3)) || f.Known(relayID(9)) {
			t.Error("a conflicting document is used")
		}
		if proofs := f.Conflicts(); len(proofs) != 2 {
			t.Errorf("%d proofs kept of two conflicts", len(proofs))
		}
		if lines := log.take(); len(lines) != 2 {
			t.Errorf("two conflicts, each seen twice, logged as %q", lines)
		}
		for i := range 10 {
			f.Offer(consensusOf(t, n, bubbleStart, 20+i))
		}
		if proofs := f.Conflicts(); len(proofs) != maxConflicts {
			t.Errorf("%d proofs kept, want %d at most", len(proofs), maxConflicts)
		}
	})
}

func TestOfferWantsTheClockToAgree(t *testing.T) {
	for _, off := range []time.Duration{-48 * time.Hour, 48 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			n := testNetwork(1, time.Hour)
			f := NewFollower(FollowerConfig{Network: n})
			err := f.Offer(consensusOf(t, n, bubbleStart.Add(-off), 1))
			if clock, ok := errors.AsType[*netdoc.ClockError](err); !ok || clock.Off().Abs() < 44*time.Hour {
				t.Errorf("clock off by %v: %v", off, err)
			}
			if f.Current() != nil {
				t.Error("adopted")
			}
		})
	}
}
