package mux

import (
	"errors"

	"torproxy/wire"
)

// This file is what differs in a stream that the exit opens (section 4.2 of SPEC.md): it is connected from
// the start, and the client's side of it counts as finished. All else is as for other streams: credit,
// turns, memory, END.

// Push opens a stream at the exit for what the reply on the client's stream parent led to. Its holder
// writes to it at once; the client may end it at any time (OnDone). Push does not wait. ErrBusy says that as
// many streams are open as may be, ErrExhausted that the numbers are used up for good, ErrParent that the
// client's stream is not connected: not yet, or never, since the client has ended it before.
func (s *Session) Push(parent uint16) (*Stream, error) {
	if !s.exit() {
		return nil, errors.New("mux: only the exit pushes streams")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return nil, s.told
	case parent%2 == 0 || parent > s.last:
		return nil, errors.New("mux: a stream is pushed for one that the client has begun")
	case s.pushes >= wire.MaxPushes:
		return nil, ErrBusy
	case s.next > 0xffff:
		return nil, ErrExhausted
	}
	if p := s.streams[parent]; p != nil && !p.isConnected && !p.connectDue {
		return nil, ErrParent
	}
	st := newPush(s, uint16(s.next), parent)
	st.finRecv, st.eof = true, true
	s.opens(st)
	return st, nil
}

// newPush makes either end of a pushed stream, which counts as open from here on.
func newPush(s *Session, id, parent uint16) *Stream {
	st := newStream(s, id, 0, "")
	st.parent = parent
	st.isConnected = true
	close(st.connected)
	s.pushes++
	return st
}

// onPush takes a stream that the exit opens. s.mu is held.
func (s *Session) onPush(m wire.Message) error {
	parent, err := wire.ParsePush(m.Body)
	switch {
	case err != nil:
		return err
	case s.exit():
		return wire.Violation("PUSH from the client")
	case m.Stream == 0 || m.Stream%2 != 0 || m.Stream <= s.last:
		return wire.Violation("PUSH with stream number %d after %d", m.Stream, s.last)
	case s.pushes >= wire.MaxPushes:
		return wire.Violation("more than %d pushed streams", wire.MaxPushes)
	case !s.answeredOnce(parent):
		return wire.Violation("PUSH for stream %d, which has no reply", parent)
	}
	s.last = m.Stream
	st := newPush(s, m.Stream, parent)
	st.finSent = true
	s.streams[st.id] = st
	if s.cfg.Pushed == nil {
		st.end(wire.ReasonUnsupported, &wire.EndError{Reason: wire.ReasonUnsupported})
		return nil
	}
	s.accepted = st
	return nil
}

// answeredOnce reports whether the client has begun the stream and, as far as it still knows, got
// CONNECTED. s.mu is held.
func (s *Session) answeredOnce(id uint16) bool {
	if id%2 == 0 || uint32(id) >= s.next {
		return false
	}
	st := s.streams[id]
	return st == nil || st.isConnected
}
