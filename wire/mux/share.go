package mux

import (
	"time"

	"torproxy/wire"
)

// This file keeps the queue of a circuit short that several streams share. All of them wait in it, one behind the
// other, at every hop that is slower than the one before; who receives can tell how long it is, and grants less.
// By Little's law a stream that gets its bytes at some rate has rate x time of them on their way, and of these
//
//	rate x round trip     keep it at that rate
//	the rest              wait
//
// So each stream's window becomes twice the first: half of it may wait, and the rate can double in a round trip, as
// that of a stream that is alone does. What is alone delays nobody else on the circuit, and may fill it.

const (
	// sharedLeast is what all streams have together at least: less would starve the batches of cells on which the
	// hops work, where a round trip is shorter than their work.
	sharedLeast = 128 << 10
	// streamLeast is what each has at least: with many streams, a WINDOW for each few cells costs more than it saves.
	streamLeast = 32 << 10
)

// now is the time, zero without a clock.
func (s *Session) now() time.Time {
	if s.cfg.Clock == nil {
		return time.Time{}
	}
	return s.cfg.Clock()
}

// tripped takes the time from a BEGIN to its CONNECTED, which the destination's own is part of. The shortest is the
// path's; a longer one does not count: it is the queue that is to be kept short, and believing it makes it longer. The
// relays of a circuit stay the same, and should the path between them become longer after all, nothing is lost until
// it is twice as long: windows are twice what a round trip carries.
func (s *Session) tripped(took time.Duration) {
	if took > 0 && (s.trip == 0 || took < s.trip) { // 0: no clock, or one that stands
		s.trip = took
	}
}

// tripOver takes the time from a WINDOW to the first DATA that the peer could not send without it: a round trip, and
// what the peer and the circuit's queue added. The shortest is the best, as that of CONNECTED has the destination's
// own in it, and all that is done for the first time.
func (st *Stream) tripOver() {
	s := st.session
	if st.due.IsZero() {
		return
	}
	if s.trip > 0 {
		s.tripped(s.now().Sub(st.due))
	}
	st.due = time.Time{}
}

// shared reports whether there is a queue to keep short.
func (s *Session) shared() bool { return s.trip > 0 && len(s.streams) > 1 }

// share sets the window of a stream that has just received what it could before it needed the watched WINDOW.
func (st *Stream) share() {
	s := st.session
	took := s.now().Sub(st.asked)
	if !s.shared() || took <= 0 {
		return
	}
	carried := float64(st.ahead) * (float64(s.trip) / float64(took)) // in a round trip
	least := max(streamLeast, sharedLeast/len(s.streams))
	st.window = max(least, int(min(2*carried, float64(2*st.window), wire.MaxCredit)))
}
