package guard

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// FuzzGuards makes calls in any order, with many circuits under way at once, guards that die, swallow
// circuits and come back, and a connection that breaks. At every moment the bounds hold; a circuit is used
// only if no better guard of those that fit it answers as far as is known; and when all is well again, the
// best guard is used after some minutes.
func FuzzGuards(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint8(40*seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, relays uint8) {
		w := newWorld(t, seed, int(relays))
		c := &chaos{w: w, rnd: rand.New(rand.NewPCG(seed, 3))}
		for range 400 {
			c.step()
		}
		c.settle()
	})
}

type chaos struct {
	w    *world
	rnd  *rand.Rand
	open []*Attempt
}

func (c *chaos) step() {
	w := c.w
	switch c.rnd.IntN(12) {
	case 0, 1, 2, 3:
		c.begin()
	case 4, 5, 6, 7:
		c.end()
	case 8:
		w.sleep(time.Duration(c.rnd.Int64N(int64(20 * time.Minute))))
		w.update()
	case 9:
		w.sleep(time.Duration(c.rnd.Int64N(int64(10 * time.Second))))
	case 10:
		c.upset()
	case 11:
		w.wakeChecked()
	}
	if c.rnd.IntN(40) == 0 {
		w.check()
	}
}

// begin begins an attempt, perhaps beside one that is under way.
func (c *chaos) begin() {
	w := c.w
	but := c.rnd.IntN(20)
	fits := func(r *netdoc.Relay) bool { return numberOf(r.ID)%20 != but }
	var late *Attempt
	if len(c.open) > 0 && c.rnd.IntN(4) == 0 {
		late = c.open[c.rnd.IntN(len(c.open))]
	}
	a, err := w.s.PickBeside(late, fits, w.now)
	var wait *WaitError
	switch {
	case errors.As(err, &wait) && !wait.Until.After(w.now):
		w.t.Errorf("wait until %v at %v", wait.Until, w.now)
	case a != nil && (err != nil || !fits(a.Relay) || late != nil && a.id == late.id):
		w.t.Errorf("guard %d beside %v, %v", numberOf(a.id), late, err)
	case a != nil:
		c.open = append(c.open, a)
	}
}

// end ends any attempt that is under way, in a way that suits its guard.
func (c *chaos) end() {
	w := c.w
	if len(c.open) == 0 {
		return
	}
	i := c.rnd.IntN(len(c.open))
	a := c.open[i]
	c.open = slices.Delete(c.open, i, i+1)
	n := numberOf(a.id)
	switch {
	case c.rnd.IntN(10) == 0:
		w.s.Canceled(a, w.now)
	case w.off || w.dead[n] || w.relays[n] == nil:
		w.s.Failed(a, w.now)
	case w.mute[n]:
		w.s.Silent(a, w.behind(a), w.now)
	case c.rnd.IntN(10) == 0:
		w.s.Answered(a, w.now)
	default:
		if w.s.Built(a, w.now) == Wait {
			w.waiting = append(w.waiting, a)
		}
	}
	w.s.Failed(a, w.now) // told twice: nothing happens
}

func (c *chaos) upset() {
	w := c.w
	for n := range 80 {
		if c.rnd.IntN(10) == 0 {
			w.dead[n] = !w.dead[n]
		}
		if c.rnd.IntN(30) == 0 {
			w.mute[n] = !w.mute[n]
		}
	}
	w.off = c.rnd.IntN(4) == 0
	for n := range 80 { // some come and some go
		if w.relays[n] == nil && c.rnd.IntN(20) == 0 {
			w.add(n)
		} else if len(w.relays) > 1 && c.rnd.IntN(40) == 0 {
			delete(w.relays, n)
		}
	}
	if c.rnd.IntN(10) == 0 {
		w.now = w.now.Add(time.Duration(c.rnd.Int64N(int64(4*time.Hour))) - 2*time.Hour)
	}
	if c.rnd.IntN(10) == 0 {
		c.open = nil
		w.restart()
	}
}

// wakeChecked is wake, and checks what is known of the better guards of a circuit that is used.
func (w *world) wakeChecked() {
	w.waiting = slices.DeleteFunc(w.waiting, func(a *Attempt) bool {
		switch w.s.Check(a, w.now) {
		case Wait:
			return false
		case Use:
			for _, id := range a.better {
				if b := w.s.find(id); b != nil && b.listed() && b.reach == yes && b.keyless.IsZero() {
					w.t.Errorf("guard %d is used, %d is better and answers", numberOf(a.id), numberOf(id))
				}
			}
		}
		return true
	})
}

// settle makes all well again, and expects the best guard to be used.
func (c *chaos) settle() {
	w := c.w
	w.off = false
	clear(w.dead)
	clear(w.mute)
	for len(c.open) > 0 {
		c.end()
	}
	w.now = w.real
	w.sleep(primaryRetryMax)
	w.update()
	for range 8 {
		w.dial(nil)
		w.sleep(time.Minute)
	}
	r := w.dial(nil)
	if len(w.relays) == 0 {
		return
	}
	if r == nil || r.ID != w.s.primary[0].id {
		for _, g := range w.s.primary {
			w.t.Logf("primary %d: reach %d, retry in %v, failed in turn %d, %d pending", numberOf(g.id), g.reach, g.retry.Sub(w.now), g.failed, g.pending)
		}
		w.t.Errorf("guard %v is used; known of the network: %+v", name(r), w.s.net)
	}
}

// TestMute has the guard in use accept links and swallow circuits: it is left for the next one after some,
// and taken again when it answers.
func TestMute(t *testing.T) {
	w := newWorld(t, 2, 100)
	first := w.mustDial()
	w.mute[first] = true
	w.tries = 0
	second := w.mustDial()
	if second == first || w.tries != 2*silentLimit+1 { // the second, whose circuit waits; the first, for good
		t.Errorf("guard %d after %d attempts", second, w.tries)
	}
	w.mute[first] = false
	w.sleep(primaryRetryMax)
	if w.mustDial() != first {
		t.Error("it answers again and is not used")
	}
	// One circuit in three is lost behind it, which says nothing of the guard.
	for range 300 {
		a, err := w.s.Pick(nil, w.now)
		if err != nil || numberOf(a.id) != first {
			t.Fatalf("%v, %v", a, err)
		}
		w.sleep(time.Second)
		switch w.rnd.IntN(3) {
		case 0:
			w.s.Silent(a, w.behind(a), w.now)
		case 1:
			w.s.Answered(a, w.now)
		default:
			w.s.Built(a, w.now)
		}
	}
}

// TestMuteBehind has later hops swallow circuits: those with a relay in common cost no guard, however many, and
// as many others do as the network's exits allow.
func TestMuteBehind(t *testing.T) {
	for _, test := range []struct{ exits, want int }{{1, 2}, {6, 3}, {100, silentLimit}} {
		w := newWorld(t, 3, 100)
		for n := test.exits; n < 100; n++ {
			w.relays[n].Flags &^= netdoc.Exit
		}
		w.update()
		first := w.mustDial()
		silent := func(behind ...wire.ID) {
			a, err := w.s.Pick(nil, w.now)
			if err != nil || numberOf(a.id) != first {
				t.Fatalf("%v, %v", a, err)
			}
			w.sleep(time.Second)
			w.s.Silent(a, behind, w.now)
		}
		middle, exit := idOf(1000), idOf(1001)
		for n := range 50 {
			silent(idOf(200+n), exit)
			silent(exit, idOf(300+n))
		}
		silent(middle, exit)
		g := w.s.find(idOf(first))
		if g.reach == no {
			t.Fatalf("%d exits: one silent relay made the guard fail", test.exits)
		}
		for n := 1; n < test.want; n++ {
			silent(idOf(400+n), idOf(500+n))
		}
		if g.reach != no || g.silent != 0 || g.suspects != nil {
			t.Errorf("%d exits: after %d silences without a relay in common: reach %d, %d counted", test.exits, test.want, g.reach, g.silent)
		}
	}
}

func name(r *netdoc.Relay) string {
	if r == nil {
		return "none"
	}
	return r.Nickname
}
