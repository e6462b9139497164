package guard

import (
	"testing"
	"time"

	"torproxy/wire/netdoc"
)

// TestClockJumps sets the client's clock back and forward, by hours and by years, while its guard works and
// while it does not: nobody is replaced, and what is to be tried again is tried again soon.
func TestClockJumps(t *testing.T) {
	year := 365 * day
	for _, jump := range []time.Duration{-20 * year, -30 * day, -time.Hour, -time.Minute, time.Minute, time.Hour, 130 * day, 20 * year} {
		w := newWorld(t, 3, 200)
		first := w.mustDial()
		before := string(w.s.Encode())
		w.now = w.now.Add(jump)
		w.update() // of no use: the clock lies outside the consensus, or it is the same one
		if jump > 3*time.Hour || jump < -time.Hour {
			if string(w.s.Encode()) != before {
				t.Errorf("%v: the state changed by a clock that is wrong", jump)
			}
		}
		if w.mustDial() != first {
			t.Errorf("%v: another guard", jump)
		}
		w.dead[first] = true
		w.mustDial()
		w.dead[first] = false
		w.now = w.now.Add(-jump)
		waited := time.Duration(0)
		for w.mustDial() != first {
			w.sleep(time.Minute)
			if waited += time.Minute; waited > time.Hour {
				t.Fatalf("%v: the guard answers again and is not tried", jump)
			}
		}
	}
}

// TestStateFromTheFuture reads a state of next year, as of a machine whose clock was wrong: all of it is used,
// for no longer than if it were of today.
func TestStateFromTheFuture(t *testing.T) {
	w := newWorld(t, 5, 200)
	first := w.mustDial()
	for range 4 {
		w.sleep(day)
		w.update()
		w.mustDial()
	}
	w.now, w.real = w.now.Add(-365*day), w.real.Add(-365*day)
	w.restart()
	if w.mustDial() != first {
		t.Error("another guard")
	}
	days := 0
	for ; w.mustDial() == first; days++ {
		w.sleep(day)
		w.update()
	}
	if most := int(lifetime/day) + 1; days > most {
		t.Errorf("the guard was used for %d more days", days)
	}
}

// TestNoConsensus checks that there is no guard before the first consensus, and that one that does not suit
// the clock is none.
func TestNoConsensus(t *testing.T) {
	w := newWorld(t, 1, 10)
	s := New("test", w.rnd)
	s.Update(Network{}, w.now)
	s.Update(Network{Consensus: w.consensus()}, w.now.Add(-day))
	s.Update(Network{Consensus: w.consensus()}, w.now.Add(day))
	if a, err := s.Pick(nil, w.now); a != nil || err != nil {
		t.Errorf("%v, %v", a, err)
	}
}

// TestOlderConsensus checks that the guards do not go back to an older consensus, unless the clock has.
func TestOlderConsensus(t *testing.T) {
	w := newWorld(t, 1, 50)
	old := w.consensus()
	w.sleep(time.Hour)
	delete(w.relays, numberOf(w.s.primary[0].id))
	newer := w.consensus()
	update := func(c *netdoc.Consensus, now time.Time) bool { return w.s.Update(Network{Consensus: c}, now) }
	if !update(newer, w.now) {
		t.Fatal("the newer consensus was passed over")
	}
	changes := w.s.Changes()
	if update(old, w.now) || w.s.Changes() != changes || !w.s.from.Equal(time.UnixMilli(newer.ValidAfter)) {
		t.Error("the older consensus was followed")
	}
	if update(newer, w.now.Add(day)) {
		t.Error("a consensus that is over was followed")
	}
	if !update(newer, w.now) {
		t.Error("the same consensus, with another filter perhaps, was passed over")
	}
	if !update(old, time.UnixMilli(newer.ValidAfter).Add(-time.Minute)) {
		t.Error("with the clock set back the older consensus was passed over")
	}
}
