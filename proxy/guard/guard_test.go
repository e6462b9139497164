package guard

import (
	"slices"
	"testing"
	"time"

	"torproxy/wire/netdoc"
)

func TestFirstPrimaryIsUsed(t *testing.T) {
	w := newWorld(t, 1, 200)
	if n := len(w.s.sample); n != minListed {
		t.Fatalf("%d guards sampled, want %d", n, minListed)
	}
	first := w.mustDial()
	for range 100 {
		w.sleep(time.Hour)
		w.update()
		if n := w.mustDial(); n != first {
			t.Fatalf("guard %d after %d", n, first)
		}
	}
	if len(w.contacted) != 1 {
		t.Errorf("%d guards contacted, want one", len(w.contacted))
	}
}

func TestSecondPrimaryBesideAnExitThatTheFirstDoesNotFit(t *testing.T) {
	w := newWorld(t, 1, 50)
	first := w.mustDial()
	second := w.dial(func(r *netdoc.Relay) bool { return numberOf(r.ID) != first })
	if want := w.s.primary[1].relay; second != want {
		t.Errorf("%v, want the second primary, %v", second, want)
	}
	if w.mustDial() != first {
		t.Error("the first primary is not used any more")
	}
}

func TestNoneFits(t *testing.T) {
	w := newWorld(t, 1, 50)
	if a, err := w.s.Pick(func(*netdoc.Relay) bool { return false }, w.now); a != nil || err != nil {
		t.Errorf("%v, %v", a, err)
	}
}

// TestPrimariesDown checks that a guard that is no primary is used when all primaries fail, that its circuit
// waits until they have been tried while the network was there, and that they are used again once they answer.
func TestPrimariesDown(t *testing.T) {
	w := newWorld(t, 3, 200)
	first := w.mustDial()
	down := numbers(w.s.primary)
	for _, n := range down {
		w.dead[n] = true
	}
	w.tries = 0
	fourth := w.mustDial()
	if slices.Contains(down, fourth) {
		t.Fatalf("guard %d does not answer", fourth)
	}
	if w.tries != 10 { // three primaries, twice: is it the network? The fourth: no. Three primaries, now for good
		t.Errorf("%d attempts, want 10", w.tries)
	}
	for range 20 {
		if w.mustDial() != fourth {
			t.Fatal("another guard")
		}
	}
	for _, n := range down {
		w.dead[n] = false
	}
	w.sleep(primaryRetryMax)
	w.update()
	for range 2 {
		if w.mustDial() != first {
			t.Error("the first primary answers again and is not used")
		}
	}
	if len(w.used) != 2 {
		t.Errorf("%d guards used, want 2", len(w.used))
	}
}

// TestBesideALateGuard checks that the second guard's circuit, built beside a first guard that is late, is used
// only if that fails.
func TestBesideALateGuard(t *testing.T) {
	for _, fails := range []bool{true, false} {
		w := newWorld(t, 4, 100)
		first := w.mustDial()
		late, _ := w.s.Pick(nil, w.now)
		w.sleep(2 * time.Second)
		beside, err := w.s.PickBeside(late, nil, w.now)
		if err != nil || beside.Relay != w.s.primary[1].relay {
			t.Fatalf("%v, %v: want the second primary", beside, err)
		}
		w.sleep(time.Second)
		if v := w.s.Built(beside, w.now); v != Wait {
			t.Fatalf("verdict %d while the first guard may still answer", v)
		}
		w.sleep(time.Second)
		if fails {
			w.s.Failed(late, w.now)
			if v := w.s.Check(beside, w.now); v != Use {
				t.Errorf("verdict %d after the first guard has failed", v)
			}
			continue
		}
		if v := w.s.Built(late, w.now); v != Use || numberOf(late.id) != first {
			t.Errorf("verdict %d on the first guard's circuit", v)
		}
		if v := w.s.Check(beside, w.now); v != Wait {
			t.Errorf("verdict %d on the second's", v)
		}
		w.sleep(waitLifetime + time.Second)
		if v := w.s.Check(beside, w.now); v != Discard || !w.s.primary[1].confirmed.IsZero() {
			t.Errorf("verdict %d on it after a long time", v)
		}
	}
	// No guard that is no primary is explored because others are late.
	w := newWorld(t, 4, 100)
	third := w.s.primary[2].relay
	others := func(r *netdoc.Relay) bool {
		return r == third || !slices.Contains(numbers(w.s.primary), numberOf(r.ID))
	}
	late, err := w.s.Pick(others, w.now)
	if err != nil || late.Relay != third {
		t.Fatalf("%v, %v: want the third primary", late, err)
	}
	if a, err := w.s.PickBeside(late, others, w.now); a != nil || err == nil {
		t.Errorf("%v, %v: want to wait", a, err)
	}
}
