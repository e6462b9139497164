package guard

import (
	"slices"
	"testing"
)

// TestBias has a guard end four circuits of five, after it has behaved for long, and checks that this is said
// of it, and of nobody else.
func TestBias(t *testing.T) {
	w := newWorld(t, 2, 100)
	first := w.mustDial()
	build := func(n int, built bool) {
		for range n {
			a, err := w.s.Pick(nil, w.now)
			if err != nil || numberOf(a.id) != first {
				t.Fatalf("%v, %v", a, err)
			}
			if built {
				w.s.Built(a, w.now)
			} else {
				w.s.Answered(a, w.now)
			}
		}
	}
	biased := func() bool {
		infos := w.s.Guards()
		if slices.ContainsFunc(infos[1:], func(i Info) bool { return i.Biased }) {
			t.Error("a guard that was never used is called biased")
		}
		return infos[0].Biased
	}
	build(biasEnough-2, false) // and one was built
	if biased() {
		t.Error("said after too few")
	}
	build(1, false)
	if !biased() {
		t.Error("not said of a guard that ends all circuits")
	}
	build(1000, true)
	if biased() {
		t.Error("said of a guard that has built a thousand")
	}
	for range 200 {
		build(4, false)
		build(1, true)
	}
	if !biased() {
		t.Error("not said of a guard that ends four of five")
	}
}

func TestGuards(t *testing.T) {
	w := newWorld(t, 2, 100)
	first := w.mustDial()
	gone := numberOf(w.s.sample[10].id)
	delete(w.relays, gone)
	w.dead[first] = true
	w.mustDial()
	w.update()
	infos := w.s.Guards()
	if len(infos) != len(w.s.sample) {
		t.Fatalf("%d guards", len(infos))
	}
	if i := infos[0]; numberOf(i.ID) != first || !i.Primary || !i.Confirmed || !i.Listed || i.Reachable || !i.Failed || i.Nickname == "" {
		t.Errorf("first %+v", i)
	}
	if i := infos[1]; !i.Primary || !i.Confirmed || !i.Reachable || i.Failed {
		t.Errorf("second %+v", i)
	}
	if i := infos[5]; i.Primary || i.Confirmed || !i.Listed || i.Reachable || i.Failed {
		t.Errorf("sixth %+v", i)
	}
	if i := infos[len(infos)-1]; numberOf(i.ID) != gone || i.Listed || i.Nickname != "" {
		t.Errorf("last %+v", i)
	}
}
