package guard

import (
	"bytes"
	"slices"
	"testing"
	"time"
)

// TestRestartAtAnyMoment ends the client after every single call in turn, through an outage, guards that
// fail and a lesser one that works, and starts it again from what it kept. It has the same sample in the
// same order, and uses no guard but those that the client uses that was never ended.
func TestRestartAtAnyMoment(t *testing.T) {
	story := func(restart int) (w *world, steps int) {
		w = newWorld(t, 21, 300)
		step := func(f func()) {
			if f(); steps == restart {
				before := w.s
				w.restart()
				if !slices.Equal(numbers(before.sample), numbers(w.s.sample)) || !slices.Equal(numbers(before.chosen), numbers(w.s.chosen)) {
					t.Fatalf("restart after step %d: another sample", steps)
				}
			}
			steps++
		}
		dials := func(n int) {
			for range n {
				a, err := w.s.Pick(nil, w.now)
				if err != nil {
					step(func() { w.sleep(err.(*WaitError).Until.Sub(w.now)) })
					continue
				}
				step(func() {})
				step(func() { w.try(a) })
			}
		}
		dials(3)
		w.off = true
		dials(12)
		w.off = false
		dials(8)
		for _, n := range numbers(w.s.primary) {
			w.dead[n] = true
		}
		dials(25)
		step(func() { w.sleep(time.Hour); w.update() })
		clear(w.dead)
		dials(6)
		return w, steps
	}
	w, steps := story(-1)
	if len(w.used) != 2 {
		t.Fatalf("%d guards used without a restart", len(w.used))
	}
	for at := range steps {
		again, _ := story(at)
		for id := range again.used {
			if !w.used[id] {
				t.Errorf("restart after step %d: guard %d used", at, numberOf(id))
			}
		}
	}
}

// TestChanges checks that every change of what is kept is told, and nothing else.
func TestChanges(t *testing.T) {
	l := newLife(t, 23, 300)
	last, count := l.w.s.Encode(), l.w.s.Changes()
	for range 30 * 24 {
		l.churn()
		l.w.sleep(time.Hour)
		s := l.w.s
		for _, call := range []func(){l.w.update, func() { l.w.dial(nil) }} {
			call()
			data := s.Encode()
			if bytes.Equal(data, last) != (s.Changes() == count) {
				t.Fatalf("%d changes told:\n%s\n%s", s.Changes()-count, last, data)
			}
			last, count = data, s.Changes()
		}
	}
}
