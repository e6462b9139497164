package guard

import (
	"math"
	"slices"
	"testing"
	"time"

	"torproxy/wire/netdoc"
)

// TestSampleSize follows the sample's bounds in networks of every size.
func TestSampleSize(t *testing.T) {
	for _, test := range []struct{ relays, want int }{
		{0, 0}, {1, 1}, {5, 5}, {20, 20}, {21, 20}, {100, 20}, {300, 20}, {2000, 20},
	} {
		w := newWorld(t, 1, test.relays)
		if n := len(w.s.sample); n != test.want {
			t.Errorf("%d relays: %d sampled, want %d", test.relays, n, test.want)
		}
		for range 50 {
			w.sleep(time.Hour)
			w.update()
		}
		if n := len(w.s.sample); n != test.want {
			t.Errorf("%d relays: %d sampled after two days in which nothing happened, want %d", test.relays, n, test.want)
		}
	}
}

// TestSampleFollowsWeights draws the first guard of many clients.
func TestSampleFollowsWeights(t *testing.T) {
	const clients = 20000
	expect := []float64{1, 2, 4, 8, 16, 0}
	w := newWorld(t, 5, len(expect))
	seen := make([]float64, len(expect))
	c := w.consensus()
	for range clients {
		s := New("test", w.rnd)
		s.Update(Network{Consensus: c, Weight: func(r *netdoc.Relay) uint64 { return uint64(expect[numberOf(r.ID)]) }}, w.now)
		seen[numberOf(s.sample[0].id)]++
		if len(s.sample) != len(expect) {
			t.Fatal("who has no weight is left out where all are needed")
		}
	}
	chi := 0.0
	for i, e := range expect {
		if e == 0 {
			if seen[i] != 0 {
				t.Errorf("relay %d without weight drawn first", i)
			}
			continue
		}
		want := e / 31 * clients
		chi += (seen[i] - want) * (seen[i] - want) / want
	}
	if limit := 4 + 5*math.Sqrt(8); chi > limit {
		t.Errorf("chi squared %.1f above %.1f: %v", chi, limit, seen)
	}
}

func TestOnlyRelaysWithTheFlag(t *testing.T) {
	w := newWorld(t, 2, 60)
	for n, r := range w.relays {
		if n%2 == 0 {
			r.Flags = netdoc.Running
		}
	}
	w.s = New("test", w.rnd)
	w.update()
	for _, g := range w.s.sample {
		if numberOf(g.id)%2 == 0 {
			t.Errorf("%s is no guard", g.relay.Nickname)
		}
	}
	for _, r := range w.relays {
		r.Flags = netdoc.Running
	}
	w.s = New("test", w.rnd)
	w.update()
	if len(w.s.sample) != minListed {
		t.Errorf("%d sampled where no relay has the flag", len(w.s.sample))
	}
}

// TestVanishesAndReturns takes the guard in use out of the consensus for ever longer times: it is not used
// meanwhile, and again as soon as it is back, unless it was away for twenty days.
func TestVanishesAndReturns(t *testing.T) {
	for _, test := range []struct {
		hours int
		back  bool
	}{{1, true}, {24, true}, {15 * 24, true}, {21 * 24, false}} {
		w := newWorld(t, 7, 200)
		first := w.mustDial()
		r := w.relays[first]
		delete(w.relays, first)
		for range test.hours {
			w.sleep(time.Hour)
			w.update()
			if n := w.mustDial(); n == first {
				t.Fatalf("a guard that is not listed is used")
			}
		}
		w.relays[first] = r
		w.sleep(time.Hour)
		w.update()
		if n := w.mustDial(); (n == first) != test.back {
			t.Errorf("after %d hours: guard %d; before it was %d", test.hours, n, first)
		}
		if len(w.used) > 3 {
			t.Errorf("after %d hours: %d guards used", test.hours, len(w.used))
		}
	}
}

// TestLifetimes waits until guards are replaced, and checks that this happens at times that do not tell when
// they were chosen.
func TestLifetimes(t *testing.T) {
	lives := map[int]bool{}
	for seed := range uint64(20) {
		w := newWorld(t, seed, 200)
		first := w.mustDial()
		days := 0
		for ; w.mustDial() == first; days++ {
			w.sleep(day)
			w.update()
		}
		if least, most := int((lifetime-blurAdded)/day), int(lifetime/day)+1; days < least || days > most {
			t.Errorf("a guard is used for %d days, want %d to %d", days, least, most)
		}
		lives[days] = true
	}
	if len(lives) < 5 {
		t.Errorf("all guards are used for the same time: %v", lives)
	}
}

// TestLateConfirmation checks that a guard confirmed late in its life stays for two months, less the blur.
func TestLateConfirmation(t *testing.T) {
	w := newWorld(t, 11, 200)
	for range 100 {
		w.sleep(day)
		w.update()
	}
	first, days := w.mustDial(), 0
	for ; w.mustDial() == first; days++ {
		w.sleep(day)
		w.update()
	}
	if days < 48 || days > 61 {
		t.Errorf("%d days", days)
	}
}

// TestBlocked plays an observer beside the client who lets it reach no guard but his own, one relay in
// fifty, and the directory: he gains nothing unless he is in the sample, which grows by one an hour at most.
func TestBlocked(t *testing.T) {
	const hours = 10
	met := 0
	for seed := range uint64(20) {
		w := newWorld(t, seed, 1000)
		w.mustDial()
		for n := range 1000 {
			w.dead[n] = n%50 != 0
		}
		sample := len(w.s.sample)
		for range hours {
			w.sleep(time.Hour)
			w.update()
			for range 10 {
				w.dial(nil)
			}
		}
		if grown := len(w.s.sample) - sample; grown > hours {
			t.Errorf("%d more guards sampled in %d hours", grown, hours)
		}
		for id := range w.used {
			if numberOf(id)%50 == 0 {
				met++
			}
		}
	}
	if met > 16 {
		t.Errorf("%d of 20 clients driven to his guards", met)
	}
}

// TestSampleGrowsOnlyWhenBlocked has all guards of the sample fail: where the directory answers, one more is
// sampled with each consensus, until one works; without a connection none is.
func TestSampleGrowsOnlyWhenBlocked(t *testing.T) {
	w := newWorld(t, 29, 1000)
	for _, g := range w.s.sample {
		w.dead[numberOf(g.id)] = true
	}
	for hour := 1; ; hour++ {
		w.sleep(time.Hour)
		w.update()
		if w.dial(nil) != nil {
			break
		}
		w.dial(nil) // in the second minute all have been tried
		if n := len(w.s.sample); n > minListed+hour {
			t.Fatalf("%d sampled after %d hours", n, hour)
		}
		if hour == 5 {
			t.Fatal("no guard works, and no other is sampled")
		}
	}
	w = newWorld(t, 29, 1000)
	w.off = true
	for range 100 {
		w.sleep(10 * time.Minute)
		w.dial(nil)
	}
	w.off = false
	w.update()
	w.mustDial()
	if n := len(w.s.sample); n != minListed {
		t.Errorf("%d sampled after a time without a connection", n)
	}
}

// TestSampleIsBounded lets the network change wholly again and again.
func TestSampleIsBounded(t *testing.T) {
	w := newWorld(t, 13, 400)
	for round := range 60 {
		clear(w.relays)
		for n := range 400 {
			w.add(1000*(round+1) + n)
		}
		w.sleep(time.Hour)
		w.update()
		w.check()
		w.mustDial()
	}
	if n := len(w.s.sample); n > maxSample {
		t.Errorf("%d in the sample", n)
	}
}

// TestFilter checks that what the user excludes is not used, that three others are primaries then, and that
// the guard is used again when it may be.
func TestFilter(t *testing.T) {
	w := newWorld(t, 17, 100)
	first := w.mustDial()
	sample := numbers(w.s.sample)
	w.s.Update(Network{Consensus: w.consensus(), Filter: func(r *netdoc.Relay) bool { return numberOf(r.ID) != first }}, w.now)
	if w.mustDial() == first || len(w.s.primary) != primaries {
		t.Error("an excluded guard is used")
	}
	w.s.Update(Network{Consensus: w.consensus()}, w.now)
	if w.mustDial() != first || !slices.Equal(sample, numbers(w.s.sample)[:minListed]) {
		t.Error("the first guard is not used again")
	}
	few := func(r *netdoc.Relay) bool { return numberOf(r.ID) < 30 }
	w.s.Update(Network{Consensus: w.consensus(), Filter: few}, w.now)
	if n := len(w.s.sample); n > minListed+1 {
		t.Errorf("%d in the sample: beyond its bound", n)
	}
	if r := w.dial(nil); r == nil || !few(r) {
		t.Errorf("%v used under a filter", r)
	}
}

// TestKeyOnItsWay checks that the guard is waited for when its onion key is not there yet, and not for long.
func TestKeyOnItsWay(t *testing.T) {
	w := newWorld(t, 19, 100)
	first := w.mustDial()
	with := w.consensus()
	without := with.WithKeys(func(netdoc.Digest) []byte { return nil })
	for i := range without.Relays {
		if numberOf(without.Relays[i].ID) != first {
			without.Relays[i].Attach(anyKey[:])
		}
	}
	w.s.Update(Network{Consensus: without}, w.now)
	if a, err := w.s.Pick(nil, w.now); a != nil || err == nil || !err.(*WaitError).Until.Equal(w.now.Add(keyPatience)) {
		t.Errorf("%v, %v: want to wait for the key", a, err)
	}
	w.sleep(time.Second)
	w.s.Update(Network{Consensus: with}, w.now)
	if w.mustDial() != first {
		t.Error("the guard is not used though its key has come")
	}
	w.s.Update(Network{Consensus: without}, w.now)
	w.sleep(keyPatience)
	if n := w.mustDial(); n == first {
		t.Error("a guard without a key is used")
	}
}
