package guard

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"torproxy/wire"
)

// TestNetworkDown takes the client's connection away, for times from seconds to a day, at a client that
// wants circuits all the while. Afterwards it goes on with the guard that it had: none is burnt, hardly one
// other relay has seen it, and the sample is as it was.
func TestNetworkDown(t *testing.T) {
	for _, outage := range []time.Duration{
		time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, time.Hour, 24 * time.Hour,
	} {
		t.Run(outage.String(), func(t *testing.T) {
			explored := 0
			for seed := range uint64(20) {
				w := newWorld(t, seed, 300)
				first := w.mustDial()
				sample, primary := numbers(w.s.sample), numbers(w.s.primary)
				w.off = true
				for end := w.now.Add(outage); w.now.Before(end); {
					w.dial(nil)
				}
				w.off = false
				if outage > time.Minute && !w.s.Down() {
					t.Error("that the network is down is not seen")
				}
				came := w.now
				if n := w.mustDial(); n != first {
					t.Errorf("seed %d: guard %d after the outage, %d before", seed, n, first)
				}
				if took := w.now.Sub(came); took > roundMax+5*time.Second {
					t.Errorf("seed %d: %v until the first circuit", seed, took)
				}
				if w.s.Down() || len(w.used) != 1 || !slices.Equal(primary, numbers(w.s.primary)) || !slices.Equal(sample, numbers(w.s.sample)) {
					t.Errorf("seed %d: used %d; primaries %v, before %v", seed, len(w.used), numbers(w.s.primary), primary)
				}
				explored += len(w.explored)
			}
			if explored > 2 {
				t.Errorf("%d guards that are no primaries were contacted in 20 outages", explored)
			}
		})
	}
}

// TestNetworkDownIsQuiet counts the attempts during a day without a connection.
func TestNetworkDownIsQuiet(t *testing.T) {
	w := newWorld(t, 4, 300)
	w.mustDial()
	w.off, w.tries = true, 0
	others := map[wire.ID]bool{}
	for end := w.now.Add(day); w.now.Before(end); {
		a, err := w.s.Pick(nil, w.now)
		if err != nil {
			w.sleep(err.(*WaitError).Until.Sub(w.now))
			continue
		}
		if !w.s.isPrimary(w.s.find(a.id)) {
			others[a.id] = true
		}
		w.try(a)
	}
	if perHour := w.tries / 24; perHour > 400 {
		t.Errorf("%d attempts an hour", perHour)
	}
	if len(others) > len(w.s.sample)-primaries {
		t.Errorf("%d guards", len(others))
	}
}

// TestComesBackInTheMiddle has the connection come back at every possible moment of the first minutes: what
// is under way then may reach a guard that is no primary, but no stream goes through it.
func TestComesBackInTheMiddle(t *testing.T) {
	explored := 0
	const moments = 600
	for ms := range moments {
		w := newWorld(t, 9, 300)
		first := w.mustDial()
		back := w.now.Add(time.Duration(ms) * 500 * time.Millisecond)
		w.off = true
		for w.off {
			a, err := w.s.Pick(nil, w.now)
			until := w.now.Add(5 * time.Second)
			if err != nil {
				until = err.(*WaitError).Until
			}
			if until.After(back) {
				w.off = false
				w.sleep(max(back.Sub(w.now), 0))
			}
			switch {
			case a != nil && w.off:
				w.try(a)
			case a != nil:
				w.try(a) // what was lost on the way is sent again
			case w.off:
				w.sleep(until.Sub(w.now))
			}
		}
		if n := w.mustDial(); n != first || len(w.used) != 1 {
			t.Fatalf("back after %v: guard %d in place of %d, used %d", w.now.Sub(start), n, first, len(w.used))
		}
		explored += len(w.explored)
	}
	t.Logf("%d guards that are no primaries were contacted in %d outages", explored, moments)
	if explored > moments/10 {
		t.Error("that is more than one in ten")
	}
}

// TestAllGuardsDown has all guards of the network fail for a while, though they stay listed.
func TestAllGuardsDown(t *testing.T) {
	for _, size := range []int{1, 2, 3, 5, 12, 300} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t, 6, size)
			first := w.mustDial()
			for n := range size {
				w.dead[n] = true
			}
			for range 30 {
				w.sleep(10 * time.Minute)
				w.update()
				if r := w.dial(nil); r != nil {
					t.Fatalf("%s does not answer", r.Nickname)
				}
			}
			clear(w.dead)
			if n := w.mustDial(); n != first {
				t.Errorf("guard %d, before %d", n, first)
			}
			if len(w.used) != 1 {
				t.Errorf("%d guards used", len(w.used))
			}
		})
	}
}

// TestDirectoryAnswersButNoGuard checks that where directory servers answer, the sample is walked without
// delay: it is the guards that are blocked.
func TestDirectoryAnswersButNoGuard(t *testing.T) {
	w := newWorld(t, 8, 300)
	w.s.Online(w.now)
	last := w.s.sample[len(w.s.sample)/2]
	for _, g := range w.s.sample {
		w.dead[numberOf(g.id)] = g != last
	}
	if w.dial(nil); w.dial(nil) != last.relay {
		t.Errorf("not the only guard that answers in two minutes")
	}
}
