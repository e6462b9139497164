package mux

import "torproxy/wire"

// This file is what a session holds for its applications, and what it lets its peer send: unread bytes and
// their bounds, credit and its growth. Everything here runs with session.mu held.

// store keeps received bytes for the application. When the circuit has no room for them, the stream that
// holds the most is ended: the one whose application is slowest.
func (st *Stream) store(body []byte) {
	s := st.session
	for s.unread+len(body) > maxUnread {
		greedy := s.greediest()
		if greedy == nil || greedy.in.size < st.in.size+len(body) {
			greedy = st
		}
		greedy.shed()
		if greedy == st {
			return
		}
	}
	s.held(len(body))
	st.in.write(body)
	st.readable.set()
}

// greediest returns the stream with the most unread bytes, nil if there are none.
func (s *Session) greediest() (greedy *Stream) {
	most := 0
	for _, st := range s.streams {
		if st.in.size > most {
			greedy, most = st, st.in.size
		}
	}
	for st := range s.leftover {
		if st.in.size > most {
			greedy, most = st, st.in.size
		}
	}
	return greedy
}

// shed ends the stream because of what it holds. Its application must not take what it got for the whole,
// even if the peer has finished.
func (st *Stream) shed() {
	st.err = nil
	st.end(wire.ReasonResourceLimit, &wire.EndError{Reason: wire.ReasonResourceLimit})
}

// held counts unread bytes, for the circuit and for the process.
func (s *Session) held(n int) {
	s.unread += n
	s.cfg.Budget.add(n)
}

// spend takes n received bytes from the peer's credit, and notes whether the peer had run out of credit:
// it then sent exactly what it had when a WINDOW was on its way to it. A DATA message that ends there by
// chance does no harm. One WINDOW is watched at a time, so the window grows once per round trip at most.
func (st *Stream) spend(n int) {
	st.tripOver()
	st.credit -= n
	if st.watched > 0 {
		if st.watched -= n; st.watched <= 0 {
			st.due = st.asked
			if st.dry = st.watched == 0; !st.dry { // this DATA has needed the WINDOW, otherwise the next will
				st.tripOver()
			}
			st.watched = 0
			st.share()
		}
	}
}

// grant turns what is owed into credit, as it goes out with a WINDOW.
func (st *Stream) grant() {
	switch {
	case st.credit == 0:
		st.dry, st.due = true, st.session.now()
	case st.watched == 0:
		st.watched, st.ahead, st.asked = st.credit, st.credit, st.session.now()
	}
	st.credit += st.owed
	st.owed = 0
}

// consumed counts n bytes that the application has read, and owes the peer new credit once a good part of
// the window is free. A stream that runs dry, its peer out of credit and the application not behind, gets
// a window twice as large, up to the protocol's bound, as long as memory is not short. Where streams share the
// circuit, share says how large windows are.
func (st *Stream) consumed(n int) {
	s := st.session
	s.held(-n)
	if st.in.size == 0 {
		delete(s.leftover, st)
	}
	if st.err != nil || st.finRecv {
		return
	}
	if st.dry && !st.session.shared() && st.in.size < st.window/8 && st.window < wire.MaxCredit && s.cfg.Budget.ample() {
		st.window *= 2
		st.dry = false
	}
	grant := st.window - st.in.size - st.credit - st.owed
	if grant >= st.window/4 {
		st.owed += grant
		s.enqueue(st)
	}
}
