package echo

import (
	"context"
	"sync"
	"time"
)

// Wrong answers are counted for each user name. Nine in a minute are answered at once; from the tenth on
// every answer for that name waits until its turn, ten a minute, and when too many wait it is turned away.
//
// The wait comes before the answer is looked at, for right ones too: else whoever guesses would not wait for
// a slow answer, knowing that it is wrong. The name's owner waits as well, but is never locked out for longer
// than maxPatience after the guessing has ended.
const (
	wrongEvery  = 6 * time.Second
	wrongFree   = 9 // wrong answers that cost no time
	maxPatience = 30 * time.Second
	maxWaiting  = 64   // answers that wait at a time, of all names
	maxNames    = 1024 // user names with wrong answers; further ones are counted together
)

// brake slows guessing. Its methods may be called concurrently.
type brake struct {
	mu      sync.Mutex
	names   map[string]time.Time // when the last wrong answer of a name is forgotten
	others  time.Time            // the same for all names that have found no room
	waiting int
}

func newBrake() *brake { return &brake{names: map[string]time.Time{}} }

// wait lets one answer for a name pass, at its turn. If it may not pass, after is when to come again; it is
// 0 if ctx ended. Unless the answer is right, which forgive is told, it counts as wrong.
func (b *brake) wait(ctx context.Context, name string, now time.Time) (after time.Duration, ok bool) {
	pause, ok := b.enter(name, now)
	if !ok || pause <= 0 {
		return pause, ok
	}
	defer b.leave()
	turn := time.NewTimer(pause)
	defer turn.Stop()
	select {
	case <-turn.C:
		return 0, true
	case <-ctx.Done():
		return 0, false
	}
}

// enter takes the next turn of a name; false: it is too far away.
func (b *brake) enter(name string, now time.Time) (pause time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	forgotten := b.of(name, now)
	if forgotten.Before(now) {
		forgotten = now
	}
	forgotten = forgotten.Add(wrongEvery)
	pause = forgotten.Sub(now) - wrongFree*wrongEvery
	if pause > maxPatience || pause > 0 && b.waiting == maxWaiting {
		return pause, false
	}
	if pause > 0 {
		b.waiting++
	}
	b.set(name, forgotten)
	return pause, true
}

func (b *brake) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting--
}

// forgive takes back what enter has counted: the answer was right.
func (b *brake) forgive(name string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if forgotten := b.of(name, now).Add(-wrongEvery); forgotten.After(now) {
		b.set(name, forgotten)
	} else {
		delete(b.names, name)
	}
}

func (b *brake) of(name string, now time.Time) time.Time {
	if at, known := b.names[name]; known {
		return at
	}
	if b.full(now) {
		return b.others
	}
	return time.Time{}
}

func (b *brake) set(name string, forgotten time.Time) {
	if _, known := b.names[name]; !known && len(b.names) >= maxNames {
		b.others = forgotten
		return
	}
	b.names[name] = forgotten
}

// full reports whether no name can be added, and makes room if there are names with nothing to remember.
func (b *brake) full(now time.Time) bool {
	if len(b.names) < maxNames {
		return false
	}
	for name, at := range b.names {
		if !at.After(now) {
			delete(b.names, name)
		}
	}
	return len(b.names) >= maxNames
}
