package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// world is a simulated network and one client of it, in virtual time.
type world struct {
	t      testing.TB
	now    time.Time // the clock of the client
	real   time.Time // the clock of the authorities
	rnd    *rand.Rand
	relays map[int]*netdoc.Relay // those listed
	dead   map[int]bool          // listed, but do not answer
	mute   map[int]bool          // make links, but swallow circuits
	off    bool                  // the client's own connection is down
	s      *State

	contacted map[wire.ID]bool // links were made to
	explored  map[wire.ID]bool // and that while they were no primaries
	used      map[wire.ID]bool // circuits in use went through
	tries     int
	drawn     int // later hops
	waiting   []*Attempt
}

// start is when worlds begin.
var start = time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)

func newWorld(t testing.TB, seed uint64, relays int) *world {
	w := &world{
		t: t, now: start, real: start, rnd: rand.New(rand.NewPCG(seed, 2)),
		relays: map[int]*netdoc.Relay{}, dead: map[int]bool{}, mute: map[int]bool{},
		contacted: map[wire.ID]bool{}, explored: map[wire.ID]bool{}, used: map[wire.ID]bool{},
	}
	for i := range relays {
		w.add(i)
	}
	w.s = New("test", w.rnd)
	w.update()
	return w
}

func idOf(n int) (id wire.ID) {
	binary.BigEndian.PutUint32(id[:], uint32(n+1))
	return id
}

func numberOf(id wire.ID) int { return int(binary.BigEndian.Uint32(id[:])) - 1 }

var (
	anyKey       [netdoc.OnionKeySize]byte
	anyKeyDigest = netdoc.DigestOf(anyKey[:])
)

func (w *world) add(n int) *netdoc.Relay {
	r := &netdoc.Relay{
		ID: idOf(n), Nickname: fmt.Sprintf("r%d", n), Weight: 1000, Flags: netdoc.Running | netdoc.Guard | netdoc.Exit,
		Key: netdoc.KeyRef{Digest: anyKeyDigest},
	}
	if err := r.Attach(anyKey[:]); err != nil {
		w.t.Fatal(err)
	}
	w.relays[n] = r
	return r
}

// consensus is what the authorities say at this moment.
func (w *world) consensus() *netdoc.Consensus {
	hour := w.real.Truncate(time.Hour)
	c := &netdoc.Consensus{
		ValidAfter: hour.UnixMilli(), FreshUntil: hour.Add(time.Hour).UnixMilli(), ValidUntil: hour.Add(3 * time.Hour).UnixMilli(),
	}
	top := -1
	for n := range w.relays {
		top = max(top, n)
	}
	for n := range top + 1 {
		if r := w.relays[n]; r != nil {
			c.Relays = append(c.Relays, *r)
		}
	}
	return c
}

func (w *world) update() {
	w.s.Update(Network{Consensus: w.consensus()}, w.now)
	if w.tries%16 == 0 {
		w.check()
	}
}

// check asserts what holds at every moment.
func (w *world) check() {
	w.t.Helper()
	if n := len(w.s.sample); n > maxSample {
		w.t.Fatalf("%d guards in the sample", n)
	}
	if n := len(w.s.primary); n > primaries {
		w.t.Fatalf("%d primaries", n)
	}
	data := w.s.Encode()
	if len(data) > MaxState {
		w.t.Fatalf("a state of %d bytes", len(data))
	}
	if _, err := Parse(data, "test", w.rnd); err != nil {
		w.t.Fatalf("what Encode wrote: %v\n%s", err, data)
	}
}

// sleep lets both clocks go on.
func (w *world) sleep(d time.Duration) {
	w.now, w.real = w.now.Add(d), w.real.Add(d)
}

// restart has the client end and start again from what it kept.
func (w *world) restart() {
	s, err := Parse(w.s.Encode(), "test", w.rnd)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s, w.waiting = s, nil
	w.update()
}

// dial wants a circuit, as a client would that has a minute's patience; nil: it got none. A link that cannot
// be made takes five seconds.
func (w *world) dial(fits func(*netdoc.Relay) bool) *netdoc.Relay {
	w.t.Helper()
	for end := w.now.Add(time.Minute); w.now.Before(end); {
		a, err := w.s.Pick(fits, w.now)
		var wait *WaitError
		switch {
		case errors.As(err, &wait):
			if !wait.Until.After(w.now) {
				w.t.Fatalf("wait until %v at %v", wait.Until, w.now)
			}
			if wait.Until.After(end) {
				w.sleep(end.Sub(w.now))
				return nil
			}
			w.sleep(wait.Until.Sub(w.now))
			continue
		case err != nil:
			w.t.Fatal(err)
		case a == nil:
			return nil
		case fits != nil && !fits(a.Relay):
			w.t.Fatalf("%s does not fit", a.Relay.Nickname)
		}
		if r := w.try(a); r != nil {
			return r
		}
	}
	return nil
}

// try builds a circuit; the guard if it, or one that has waited, may be used.
func (w *world) try(a *Attempt) *netdoc.Relay {
	w.tries++
	n := numberOf(a.id)
	dead := w.off || w.dead[n] || w.relays[n] == nil
	if !dead {
		w.contacted[a.id] = true
		if !w.s.isPrimary(w.s.find(a.id)) {
			w.explored[a.id] = true
		}
	}
	switch {
	case dead:
		w.sleep(5 * time.Second)
		w.s.Failed(a, w.now)
	case w.mute[n]:
		w.sleep(5 * time.Second)
		w.s.Silent(a, w.behind(a), w.now)
	default:
		w.sleep(200 * time.Millisecond)
		w.waiting = append(w.waiting, a)
		w.s.Built(a, w.now)
	}
	return w.wake()
}

// behind draws two later hops.
func (w *world) behind(a *Attempt) (ids []wire.ID) {
	for len(ids) < 2 {
		w.drawn++
		if id := idOf(w.drawn * 7 % 1009); id != a.id && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// wake asks again for the circuits that wait, and takes the first that may be used.
func (w *world) wake() (taken *netdoc.Relay) {
	var still []*Attempt
	for _, a := range w.waiting {
		if w.dead[numberOf(a.id)] {
			continue // and its circuit with it
		}
		switch w.s.Check(a, w.now) {
		case Use:
			w.used[a.id] = true
			if taken == nil {
				taken = a.Relay
			}
		case Wait:
			still = append(still, a)
		}
	}
	w.waiting = still
	return taken
}

func (w *world) mustDial() int {
	w.t.Helper()
	r := w.dial(nil)
	if r == nil {
		w.t.Fatalf("no circuit at %v", w.now)
	}
	return numberOf(r.ID)
}

// numbers lists guards.
func numbers(guards []*guard) (n []int) {
	for _, g := range guards {
		n = append(n, numberOf(g.id))
	}
	return n
}
