package mux

import (
	"testing"
	"time"

	"torproxy/wire"
)

// sharing is a client whose circuit has a clock that stands, and two streams that were connected in a round trip.
type sharing struct {
	*half
	time       time.Time
	trip       time.Duration
	bulk, calm *Stream
	credit     int     // that the first stream's peer has
	coming     []grant // to it
}

type grant struct {
	n  int
	at time.Time // when the first byte that is sent for it arrives
}

func newSharing(t *testing.T, trip time.Duration) *sharing {
	h := &sharing{half: newClient(t), time: time.Unix(1e9, 0), trip: trip, credit: wire.InitialCredit}
	h.s.cfg.Clock = func() time.Time { return h.time }
	h.bulk, h.calm = h.open(), h.open()
	h.sent()
	h.time = h.time.Add(trip)
	h.gets(cellOf(connected(1), connected(3)))
	return h
}

// flows gives the first stream bytes at a rate for some time, as far as its WINDOWs, a round trip before, allow; its
// application reads them at once.
func (h *sharing) flows(perSecond int, d time.Duration) {
	h.Helper()
	for end := h.time.Add(d); h.time.Before(end); {
		for ; len(h.coming) > 0 && (h.credit == 0 || !h.coming[0].at.After(h.time)); h.coming = h.coming[1:] {
			h.credit += h.coming[0].n
			if h.coming[0].at.After(h.time) {
				h.time = h.coming[0].at
			}
		}
		n := min(h.credit, wire.MaxBody)
		if n == 0 {
			h.Fatal("the peer has no credit")
		}
		h.time = h.time.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
		h.gets(bulk(1, n))
		readAll(h.T, h.bulk)
		h.credit -= n
		if n := h.granted(1); n > 0 {
			h.coming = append(h.coming, grant{n, h.time.Add(h.trip)})
		}
	}
}

// TestShare checks that the window of a stream beside another comes to twice what the circuit carries in a round
// trip, from above and from below, and within bounds.
func TestShare(t *testing.T) {
	for name, c := range map[string]struct {
		perSecond   int
		trip        time.Duration
		least, most int
	}{
		"a long way":             {5 << 20, 300 * time.Millisecond, 2800 << 10, 3300 << 10},
		"a longer way":           {20 << 20, 300 * time.Millisecond, wire.MaxCredit, wire.MaxCredit},
		"a middling way":         {2 << 20, 100 * time.Millisecond, 380 << 10, 440 << 10},
		"a short and fast way":   {50 << 20, 500 * time.Microsecond, sharedLeast / 2, sharedLeast / 2},
		"a destination's trifle": {10 << 10, 10 * time.Millisecond, sharedLeast / 2, sharedLeast / 2},
	} {
		t.Run(name, func(t *testing.T) {
			h := newSharing(t, c.trip)
			h.flows(c.perSecond, max(40*c.trip, 40*wire.InitialCredit*time.Second/time.Duration(c.perSecond)))
			if w := h.bulk.window; w < c.least || w > c.most {
				t.Errorf("the window is %d KiB, want %d to %d", w>>10, c.least>>10, c.most>>10)
			}
			if h.calm.window != wire.InitialCredit {
				t.Errorf("the other stream's window is %d KiB", h.calm.window>>10)
			}
		})
	}
}

// TestShareManyStreams checks that what all have at least is divided, but not without end.
func TestShareManyStreams(t *testing.T) {
	h := newSharing(t, time.Millisecond)
	for range 30 {
		h.open()
	}
	h.sent()
	h.flows(100<<20, time.Second)
	if w := h.bulk.window; w < 195<<10 || w > 210<<10 {
		t.Errorf("the window is %d KiB", h.bulk.window>>10)
	}
	h.flows(1<<20, 3*time.Second)
	if h.bulk.window != streamLeast {
		t.Errorf("the window is %d KiB", h.bulk.window>>10)
	}
}

// TestAlone checks that a stream without others, a circuit without a clock, and one whose round trip is not known
// fill it as before.
func TestAlone(t *testing.T) {
	for name, prepare := range map[string]func(h *sharing){
		"alone":         func(h *sharing) { h.gets(cellOf(end(3, done))); h.sent() },
		"no clock":      func(h *sharing) { h.s.cfg.Clock = nil; h.s.trip = 0 },
		"no round trip": func(h *sharing) { h.s.trip = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			h := newSharing(t, time.Millisecond)
			prepare(h)
			credit := wire.InitialCredit
			for range 8 {
				h.time = h.time.Add(time.Millisecond)
				h.gets(bulk(1, credit))
				readAll(t, h.bulk)
				credit = h.granted(1)
			}
			if h.bulk.window != wire.MaxCredit {
				t.Errorf("the window is %d KiB", h.bulk.window>>10)
			}
		})
	}
}

// TestRoundTrip checks that the shortest round trip counts.
func TestRoundTrip(t *testing.T) {
	h := newSharing(t, 100*time.Millisecond)
	for _, c := range []struct{ took, want time.Duration }{
		{50 * time.Millisecond, 50 * time.Millisecond}, {0, 50 * time.Millisecond},
		{82 * time.Millisecond, 50 * time.Millisecond}, {20 * time.Millisecond, 20 * time.Millisecond},
	} {
		if h.s.tripped(c.took); h.s.trip != c.want {
			t.Errorf("after %v: %v, want %v", c.took, h.s.trip, c.want)
		}
	}
}

// TestRoundTripOfWindows checks that what the destination and the circuit's first use added to the first round trip is
// found out by later ones, and that a peer that has nothing to send does not count as a long way.
func TestRoundTripOfWindows(t *testing.T) {
	const trip = time.Millisecond
	h := newSharing(t, 20*trip)
	h.trip = trip
	h.flows(1<<30, 20*trip) // so fast that the peer waits for WINDOWs
	if got := h.s.trip; got < trip || got > trip+10*time.Microsecond {
		t.Fatalf("a round trip takes %v, want %v", got, trip)
	}
	h.time = h.time.Add(time.Hour)
	h.flows(1<<30, 20*trip)
	if got := h.s.trip; got > trip+10*time.Microsecond {
		t.Errorf("after a pause a round trip takes %v", got)
	}
}

// TestRoundTripWithoutWaiting checks that a peer that never waits for a WINDOW tells of a round trip as well: no longer
// than what it could still send took.
func TestRoundTripWithoutWaiting(t *testing.T) {
	const trip = time.Millisecond
	h := newSharing(t, 20*trip)
	h.trip = trip
	h.flows(50<<20, 100*trip)
	if got := h.s.trip; got < trip || got > 6*trip {
		t.Errorf("a round trip takes %v, of which %v are the way", got, trip)
	}
}
