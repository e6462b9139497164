package echo

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWindow(t *testing.T) {
	w := &window{}
	for i, c := range []struct {
		count uint32
		ok    bool
	}{
		{1, true}, {1, false}, {3, true}, {2, true}, {2, false}, {3, false}, {66, true}, {3, false}, {2, false}, {4, true}, {1000, true}, {936, false}, {937, true}, {937, false},
		{1<<32 - 1, true}, {1000, false}, {1<<32 - 1, false}, {1<<32 - 2, true},
	} {
		if ok := w.use(c.count); ok != c.ok {
			t.Errorf("step %d: count %d: %v", i, c.count, ok)
		}
	}
}

// The table of answered challenges is bounded. What it forgets is not accepted again.
func TestNoncesAreBounded(t *testing.T) {
	n := newNonces([32]byte{1})
	now := time.Unix(1_000_000, 0)
	var all []string
	for range maxNonces + 10 {
		nonce := n.issue(now)
		if !n.use(nonce, 1, now) {
			t.Fatal("a fresh nonce is refused")
		}
		all = append(all, nonce)
		now = now.Add(time.Millisecond)
	}
	if len(n.used) != maxNonces {
		t.Errorf("%d are remembered", len(n.used))
	}
	for i, nonce := range all {
		if n.use(nonce, 1, now) {
			t.Errorf("nonce %d was used twice", i)
		}
		if ok := n.use(nonce, 2, now); ok != (i >= 10) {
			t.Errorf("nonce %d, a second time: %v", i, ok)
		}
	}
	now = now.Add(nonceLife)
	if n.use(n.issue(now), 1, now); len(n.used) != 1 {
		t.Errorf("%d are remembered after their time", len(n.used))
	}
}

func TestNonceOfOthers(t *testing.T) {
	n, other := newNonces([32]byte{1}), newNonces([32]byte{2})
	now := time.Unix(1_000_000, 0)
	own := n.issue(now)
	for _, nonce := range []string{"", "x", other.issue(now), own + "A", own[1:], strings.ToLower(own), n.issue(now.Add(1))} {
		if n.use(nonce, 1, now) {
			t.Errorf("%q was taken", nonce)
		}
	}
}

// The table of user names is bounded. Those that find no room in it are counted together, and none of those
// in it is forgotten for them.
func TestBrakeIsBounded(t *testing.T) {
	b := newBrake()
	now := time.Unix(1_000_000, 0)
	for range wrongFree {
		b.enter("ann", now)
	}
	for i := range maxNames + 50 {
		b.enter(fmt.Sprint("flood ", i), now)
	}
	if len(b.names) != maxNames {
		t.Errorf("%d names are remembered", len(b.names))
	}
	if pause, ok := b.enter("ann", now); !ok || pause != wrongEvery {
		t.Errorf("ann waits %v, %v", pause, ok)
	}
	if pause, ok := b.enter("one more", now); ok || pause <= maxPatience {
		t.Errorf("one more name waits %v, %v", pause, ok)
	}
	later := now.Add(time.Hour)
	if pause, ok := b.enter("one more", later); !ok || pause > 0 || len(b.names) != 1 {
		t.Errorf("an hour later it waits %v, %v; %d names", pause, ok, len(b.names))
	}
}

// pass lets virtual time pass.
func pass(d time.Duration) { <-time.After(d) }

// Who hangs up while waiting waits no longer, and there is a bound to those who wait.
func TestBrakeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrake()
		for i := range maxWaiting {
			name := fmt.Sprint(i)
			for range wrongFree {
				b.enter(name, time.Now())
			}
			go b.wait(t.Context(), name, time.Now())
		}
		synctest.Wait()
		for range wrongFree {
			b.enter("late", time.Now())
		}
		if _, ok := b.wait(t.Context(), "late", time.Now()); ok {
			t.Error("there is no bound")
		}
		pass(wrongEvery)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		for range wrongFree + 1 {
			b.enter("gone", time.Now())
		}
		if after, ok := b.wait(ctx, "gone", time.Now()); ok || after != 0 || time.Since(began) != time.Second {
			t.Errorf("%v, %v after %v", after, ok, time.Since(began))
		}
	})
}
