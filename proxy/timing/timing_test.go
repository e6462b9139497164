package timing

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func learned(times ...time.Duration) *Times {
	var t Times
	for _, d := range times {
		t.Built(d)
	}
	return &t
}

// upTo returns n times that rise evenly to most.
func upTo(most time.Duration, n int) []time.Duration {
	var all []time.Duration
	for i := range n {
		all = append(all, most*time.Duration(i+1)/time.Duration(n))
	}
	return all
}

// TestLimits checks both limits after histories of every kind.
func TestLimits(t *testing.T) {
	for name, test := range map[string]struct {
		times        *Times
		late, giveUp time.Duration
	}{
		"nothing known":   {learned(), initialLate, initialGiveUp},
		"too little":      {learned(upTo(time.Second, minKnown-1)...), initialLate, initialGiveUp},
		"enough":          {learned(upTo(time.Second, minKnown)...), time.Second, minGiveUp},
		"all alike":       {learned(slices.Repeat([]time.Duration{time.Second}, 50)...), 1250 * time.Millisecond, minGiveUp},
		"loopback":        {learned(upTo(10*time.Millisecond, 100)...), minLate, minGiveUp},
		"slow":            {learned(upTo(10*time.Second, 100)...), 10 * time.Second, 20 * time.Second},
		"as slow as is":   {learned(upTo(50*time.Second, 100)...), maxLate, maxGiveUp},
		"only the newest": {learned(append(upTo(9*time.Second, 200), upTo(time.Second, 100)...)...), time.Second, minGiveUp},
	} {
		if got := test.times.Late(); got != test.late {
			t.Errorf("%s: late after %v, want %v", name, got, test.late)
		}
		if got := test.times.GiveUp(); got != test.giveUp {
			t.Errorf("%s: given up after %v, want %v", name, got, test.giveUp)
		}
		if n := len(test.times.history); n > historySize {
			t.Errorf("%s: %d times are kept", name, n)
		}
	}
}

func TestQuantile(t *testing.T) {
	times := learned(upTo(100*time.Millisecond, 10)...)
	for part, want := range map[float64]time.Duration{0: 10, 0.1: 10, 0.11: 20, 0.5: 50, 0.8: 80, 0.95: 100, 1: 100} {
		if got := times.Quantile(part); got != want*time.Millisecond {
			t.Errorf("%v: %v, want %v ms", part, got, int(want))
		}
	}
	if got := learned().Quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// TestGivenUp checks that circuits which are given up lengthen the patience, to its bound, also when
// nothing else ever happens, and that what one teaches who comes at last counts.
func TestGivenUp(t *testing.T) {
	times := learned(upTo(time.Second, 100)...)
	for range maxRow - 1 {
		times.GivenUp()
	}
	if times.GiveUp() != minGiveUp {
		t.Errorf("after %d given up: %v", maxRow-1, times.GiveUp())
	}
	times.Built(time.Second)
	for range maxRow - 1 {
		times.GivenUp()
	}
	if times.GiveUp() != minGiveUp {
		t.Error("a row goes on although a circuit stood")
	}
	times.GivenUp()
	if got := times.GiveUp(); got != 2*initialGiveUp || times.Late() != 2*initialLate || times.Known() != 0 {
		t.Errorf("after a row: given up after %v, late after %v, %d known", got, times.Late(), times.Known())
	}
	for range 1000 {
		times.GivenUp()
	}
	if got := times.GiveUp(); got != maxGiveUp {
		t.Errorf("after a thousand: %v, want %v", got, maxGiveUp)
	}
	if got := times.Late(); got > maxLate {
		t.Errorf("after a thousand: late after %v", got)
	}
	for range minKnown {
		times.Built(time.Second)
	}
	if got := times.GiveUp(); got != minGiveUp {
		t.Errorf("when the network is back: %v", got)
	}
}

// weather gives the build times of a simulated network: around a median, with a long tail.
type weather struct {
	rnd    *rand.Rand
	median time.Duration
}

func (w *weather) draw() time.Duration {
	return time.Duration(float64(w.median) * math.Exp(0.5*w.rnd.NormFloat64()))
}

// request plays one request for a circuit: a second attempt when the first is late, two more when both
// are given up. It returns how long the request waited and how many attempts it took.
func (w *weather) request(times *Times) (waited time.Duration, attempts int) {
	type end struct {
		at    time.Duration
		took  time.Duration
		stood bool
	}
	for {
		var ends []end
		late, giveUp := times.Late(), times.GiveUp()
		play := func(began time.Duration) {
			attempts++
			if took := w.draw(); took <= giveUp {
				ends = append(ends, end{began + took, took, true})
			} else {
				ends = append(ends, end{began + giveUp, giveUp, false})
			}
		}
		play(0)
		if ends[0].at > late {
			play(late)
		}
		slices.SortFunc(ends, func(a, b end) int { return cmp.Compare(a.at, b.at) })
		stood := slices.IndexFunc(ends, func(e end) bool { return e.stood })
		for _, e := range ends { // the late one teaches, too
			if e.stood {
				times.Built(e.took)
			} else {
				times.GivenUp()
			}
		}
		if stood >= 0 {
			return waited + ends[stood].at, attempts
		}
		waited += ends[len(ends)-1].at
	}
}

// play plays requests; rate is how many of them, in percent, took a second attempt.
func (w *weather) play(times *Times, requests int) (longest time.Duration, rate int) {
	second := 0
	for range requests {
		waited, attempts := w.request(times)
		longest = max(longest, waited)
		if attempts > 1 {
			second++
		}
	}
	return longest, second * 100 / requests
}

// TestNoLockUp lets networks change under a client that knows them well: whatever they become, every request
// gets its circuit in a time that the network itself explains, and soon only few take a second attempt.
func TestNoLockUp(t *testing.T) {
	for name, test := range map[string]struct {
		before, after time.Duration // medians
		longest       time.Duration // for a request after the change
	}{
		"tenfold slower":                  {300 * time.Millisecond, 3 * time.Second, 20 * time.Second},
		"tenfold slower, beyond patience": {2500 * time.Millisecond, 25 * time.Second, 4 * time.Minute},
		"hundredfold slower":              {100 * time.Millisecond, 10 * time.Second, time.Minute},
		"slower from loopback":            {3 * time.Millisecond, 2 * time.Second, 15 * time.Second},
		"tenfold faster":                  {3 * time.Second, 300 * time.Millisecond, 4 * time.Second},
		"the same":                        {300 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				w := &weather{rand.New(rand.NewPCG(seed, 1)), test.before}
				var times Times
				w.play(&times, 300)
				w.median = test.after
				if longest, _ := w.play(&times, 150); longest > test.longest {
					t.Errorf("seed %d: a request waited for %v after the change", seed, longest)
				}
				if _, rate := w.play(&times, 200); rate > 40 && test.after < maxLate/2 {
					t.Errorf("seed %d: %d %% of the requests take a second attempt", seed, rate)
				}
				if test.after < 10*time.Second && (times.Late() < test.after || times.Late() > 5*max(test.after, minLate/4)) {
					t.Errorf("seed %d: late after %v, while the median is %v", seed, times.Late(), test.after)
				}
			}
		})
	}
}

// TestOutage takes the network away for a long time: when it is back, so is the client, and it has learned
// anew after a few requests.
func TestOutage(t *testing.T) {
	w := &weather{rand.New(rand.NewPCG(1, 1)), 300 * time.Millisecond}
	var times Times
	w.play(&times, 100)
	for range 5000 {
		times.GivenUp()
	}
	if longest, _ := w.play(&times, minKnown); longest > 5*time.Second {
		t.Errorf("a request waited for %v", longest)
	}
	if late := times.Late(); late > time.Second {
		t.Errorf("late after %v", late)
	}
}

// TestFlapping changes between two networks for ever, as a train does: requests are served.
func TestFlapping(t *testing.T) {
	for _, every := range []int{1, 5, 17, 30, 100} {
		w := &weather{}
		w.rnd = rand.New(rand.NewPCG(uint64(every), 1))
		var times Times
		for i := range 100 {
			w.median = []time.Duration{200 * time.Millisecond, 4 * time.Second}[i%2]
			if longest, _ := w.play(&times, every); longest > 30*time.Second {
				t.Errorf("every %d: a request waited for %v", every, longest)
			}
		}
	}
}
