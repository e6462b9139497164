package onion

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestReplayCache(t *testing.T) {
	d := func(i byte) encDigest { return encDigest{i} }
	c := newReplayCache(3)
	for i, step := range []struct {
		d         encDigest
		hour, now int64
		want      freshness
	}{
		{d(1), 100, 100, unseen},
		{d(1), 100, 100, replayed},
		{d(1), 100, 101, replayed},
		{d(2), 99, 100, stale}, // 101 has passed, so 99 is forgotten, and stays so
		{d(2), 101, 100, unseen},
		{d(3), 101, 102, unseen}, // 100 is forgotten: d(1) makes room
		{d(1), 100, 101, stale},
		{d(4), 103, 102, unseen},
		{d(5), 103, 102, full},
		{d(2), 101, 102, replayed},
		{d(4), 103, 102, replayed},
		{d(5), 103, 103, unseen}, // 101 is forgotten
		{d(2), 101, 102, stale},
		{d(6), 500, 500, unseen},
		{d(5), 103, 103, stale}, // the clock was set back: better no circuit than the same one twice
	} {
		if got := c.add(step.d, step.hour, step.now); got != step.want {
			t.Errorf("step %d: got %d, want %d", i+1, got, step.want)
		}
	}
	if c.count != 1 || len(c.hours) != 1 {
		t.Errorf("%d entries in %d hours are left", c.count, len(c.hours))
	}
}

// TestReplayCacheLimit: the bound is on all hours together, and nothing is evicted for it.
func TestReplayCacheLimit(t *testing.T) {
	const limit = 100
	c := newReplayCache(limit)
	for i := range byte(200) {
		want := unseen
		if i >= limit {
			want = full
		}
		if got := c.add(encDigest{i}, 50+int64(i%3), 51); got != want {
			t.Fatalf("entry %d: got %d, want %d", i, got, want)
		}
	}
	for i := range byte(limit) {
		if got := c.add(encDigest{i}, 50+int64(i%3), 51); got != replayed {
			t.Fatalf("entry %d is forgotten", i)
		}
	}
}

func TestReplayCacheConcurrency(t *testing.T) {
	c := newReplayCache(1 << 20)
	var wins [200]atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range wins {
				if c.add(encDigest{byte(i)}, 7, 7) == unseen {
					wins[i].Add(1)
				}
			}
		})
	}
	wg.Wait()
	for i := range wins {
		if n := wins[i].Load(); n != 1 {
			t.Errorf("digest %d was new %d times", i, n)
		}
	}
}
