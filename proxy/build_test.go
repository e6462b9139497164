package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// TestSuspect checks who is left out after a build that failed.
func TestSuspect(t *testing.T) {
	relays := []*netdoc.Relay{{Nickname: "first"}, {Nickname: "second"}, {Nickname: "third"}}
	says := func(hop int, s wire.Status) error {
		return &circuit.BuildError{Hop: hop + 1, Err: &onion.HopError{Hop: hop, Status: s}}
	}
	for _, test := range []struct {
		err  error
		want string // "": nobody
	}{
		{&circuit.BuildError{Hop: 0, Err: errors.New("no link")}, "first"},
		{&circuit.BuildError{Hop: 0, Err: context.DeadlineExceeded}, "first"},
		{&circuit.BuildError{Hop: 0, Err: fmt.Errorf("%w: %w", link.ErrFull, context.DeadlineExceeded)}, ""},
		{&circuit.BuildError{Hop: 1, Err: errors.New("reset")}, "first"},
		{&circuit.BuildError{Hop: 1, Err: wire.Violation("garbage")}, "first"},
		// Any hop may be the silent one.
		{&circuit.BuildError{Hop: 1, Err: context.DeadlineExceeded}, ""},
		{says(0, wire.StatusOverloaded), "first"},
		{says(1, wire.StatusRefused), "second"},
		{says(2, wire.StatusOverloaded), "third"},
		{says(0, wire.StatusNextUnreachable), "second"},
		{says(0, wire.StatusNextTimeout), "second"},
		{says(1, wire.StatusNextReset), "third"},
		{says(1, wire.StatusUnknownNext), ""},
		// The last hop has no next one; it cannot have said so.
		{says(2, wire.StatusNextReset), ""},
		{fmt.Errorf("wrapped: %w", says(1, wire.StatusRefused)), "second"},
		{errors.New("something else"), ""},
		{nil, ""},
	} {
		got := ""
		if r := suspect(relays, test.err); r != nil {
			got = r.Nickname
		}
		if got != test.want {
			t.Errorf("%v: %q is left out, want %q", test.err, got, test.want)
		}
	}
}

// TestNoRoute checks which errors of package route are told as an exit's refusal.
func TestNoRoute(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{&route.NoExit{}, true},
		{&route.NoExit{Why: route.LackExit}, true},
		{&route.NoExit{Why: route.LackAllowed}, true},
		{&route.NoExit{Why: route.LackRelay}, false},
		{&route.NoExit{Why: route.LackReliable}, false},
		{&route.TooFewRelays{Have: 1, Need: 5}, false},
		{&route.TooFewDistinct{Hops: 3, Running: 2, Rule: route.RuleDistinct}, false},
	} {
		var end *wire.EndError
		got := noRoute(test.err)
		if !errors.Is(got, test.err) {
			t.Errorf("%v: got %v", test.err, got)
		}
		if policy := errors.As(got, &end) && end.Reason == wire.ReasonPolicy; policy != test.want {
			t.Errorf("%v: told as the exit policy's refusal: %v, want %v", test.err, policy, test.want)
		}
	}
}

// TestProgress follows the bootstrap from a network without relays or circuits to a ready one, and back when
// the consensus runs out: it never says more than is so.
func TestProgress(t *testing.T) {
	t.Run("no relays", func(t *testing.T) {
		onBed(t, 0, Config{}, nil, func(b *bed) {
			if got := b.Progress(); got.Percent != percentRelays {
				t.Errorf("got %+v", got)
			}
			began := time.Now()
			_, err := b.Dial(b.t.Context(), Request{Target: "site.test:80"})
			var few *route.TooFewRelays
			if !errors.Is(err, ErrNotReady) || !errors.As(err, &few) || time.Since(began) != waitReady {
				t.Errorf("a dial failed after %v with %v", time.Since(began), err)
			}
		})
	})
	t.Run("no circuits", func(t *testing.T) {
		onBed(t, 1, Config{}, func(_ int, e *exit) { e.ring = onion.NewKeyring(e.id, newKey(t), 10) }, func(b *bed) {
			<-time.After(time.Minute)
			if got := b.Progress(); got.Percent != percentBuilding {
				t.Errorf("got %+v", got)
			}
		})
	})
	t.Run("ready", func(t *testing.T) {
		var told []int
		cfg := Config{Progress: func(p Progress) {
			if len(told) == 0 || told[len(told)-1] != p.Percent {
				told = append(told, p.Percent)
			}
		}}
		onBed(t, 2, cfg, nil, func(b *bed) {
			<-b.Ready()
			if got := b.Progress(); got.Percent != percentReady {
				t.Errorf("got %+v", got)
			}
			<-time.After(4 * time.Hour) // the consensus has run out
			var clock *netdoc.ClockError
			_, err := b.Dial(b.t.Context(), Request{Target: "site.test:80", Isolation: "late"})
			if !errors.Is(err, ErrNotReady) || !errors.As(err, &clock) {
				t.Errorf("a dial on an old consensus: %v", err)
			}
			off := (time.Hour + waitReady).String() + " after the consensus ended"
			if got := b.Progress().Summary; !strings.Contains(got, off) || !strings.Contains(got, "the clock is fast, or ") {
				t.Errorf("the user is told %q, which lacks %q", got, off)
			}
			b.stop()
			<-b.ended
			if n := len(told); n < 2 || told[n-2] != percentReady || told[n-1] != percentAsking {
				t.Errorf("was told %v percent, want %d and then %d at the end", told, percentReady, percentAsking)
			}
		})
	})
}
