package mux

import (
	"torproxy/wire"
)

// This file is the state machine: what each message does to its stream, and what is a violation. It
// follows the table of section 4.2 of SPEC.md line by line. Everything here runs with session.mu held.

// receive takes a batch of opened cells, whole cells one behind the other, and delivers their messages.
// An error is a violation: the circuit must be destroyed.
func (s *Session) receive(cells []byte) error {
	s.mu.Lock()
	err := s.err
	for err == nil && len(cells) > 0 {
		err = s.receivePayload(cells[wire.TagSize:wire.CellSize])
		cells = cells[wire.CellSize:]
	}
	ended := s.takeEnded()
	s.mu.Unlock()
	s.cfg.Budget.relieve()
	for _, f := range ended {
		f()
	}
	return err
}

func (s *Session) receivePayload(payload []byte) error {
	m, rest, err := wire.NextMessage(payload)
	if err == nil && m.Command == wire.CmdNone {
		return wire.Violation("cell without a message")
	}
	for err == nil && m.Command != wire.CmdNone {
		if err := s.dispatch(m); err != nil {
			return err
		}
		if s.handOver(); s.err != nil {
			return s.err
		}
		m, rest, err = wire.NextMessage(rest)
	}
	return err
}

// handOver gives the application the stream that the peer's message has opened, before anything behind that
// message is delivered: who reads of a link has been given what was pushed for it. session.mu is held, but
// not meanwhile.
func (s *Session) handOver() {
	st := s.accepted
	if st == nil {
		return
	}
	s.accepted = nil
	s.mu.Unlock()
	defer s.mu.Lock()
	if st.pushed() {
		s.cfg.Pushed(st.parent, st)
	} else {
		s.cfg.Accept(st)
	}
}

func (s *Session) dispatch(m wire.Message) error {
	switch m.Command {
	case wire.CmdDrop:
		if !s.exit() || m.Stream != 0 {
			return wire.Violation("DROP where none may be")
		}
		return nil
	case wire.CmdBegin:
		return s.onBegin(m)
	case wire.CmdPush:
		return s.onPush(m)
	}
	st := s.streams[m.Stream]
	if st == nil || st.endRecv || st.openDue {
		return wire.Violation("%v on stream %d, which is not open", m.Command, m.Stream)
	}
	switch m.Command {
	case wire.CmdConnected:
		return st.onConnected(m.Body)
	case wire.CmdData:
		return st.onData(m.Body)
	case wire.CmdFin:
		return st.onFin(m.Body)
	case wire.CmdEnd:
		return st.onEnd(m.Body)
	default: // WINDOW: package wire lets no other command pass
		return st.onWindow(m.Body)
	}
}

func (s *Session) onBegin(m wire.Message) error {
	if !s.exit() {
		return wire.Violation("BEGIN from the exit")
	}
	if m.Stream%2 == 0 || m.Stream <= s.last {
		return wire.Violation("BEGIN with stream number %d after %d", m.Stream, s.last)
	}
	if s.begun() >= maxLingering {
		return wire.Violation("streams opened faster than refused")
	}
	kind, target, err := wire.ParseBegin(m.Body)
	if err != nil {
		return err
	}
	s.last = m.Stream
	full := s.begun() >= wire.MaxStreams
	st := newStream(s, m.Stream, kind, target)
	s.streams[st.id] = st
	if full {
		st.end(wire.ReasonResourceLimit, &wire.EndError{Reason: wire.ReasonResourceLimit})
		return nil
	}
	s.accepted = st
	return nil
}

func (st *Stream) onConnected(body []byte) error {
	if len(body) != 0 || st.session.exit() || st.isConnected {
		return wire.Violation("CONNECTED where none may be")
	}
	st.isConnected = true
	st.session.tripped(st.session.now().Sub(st.asked))
	closeOnce(st.connected)
	return nil
}

// answered reports whether the exit has said CONNECTED: nothing but END may come from it before.
func (st *Stream) answered() bool { return st.session.exit() || st.isConnected }

func (st *Stream) onData(body []byte) error {
	switch {
	case len(body) == 0:
		return wire.Violation("DATA without data")
	case !st.answered() || st.finRecv:
		return wire.Violation("DATA before CONNECTED or after FIN")
	case len(body) > st.credit:
		return wire.Violation("DATA beyond its credit")
	}
	st.spend(len(body))
	if st.err != nil {
		return nil // this side has ended the stream; the peer does not know yet
	}
	st.session.in.Add(int64(len(body)))
	st.store(body)
	return nil
}

func (st *Stream) onFin(body []byte) error {
	if len(body) != 0 || !st.answered() || st.finRecv {
		return wire.Violation("FIN where none may be")
	}
	st.finRecv = true
	st.eof = st.err == nil
	st.readable.set()
	st.finished()
	return nil
}

func (st *Stream) onEnd(body []byte) error {
	reason, err := wire.ParseEnd(body)
	if err != nil {
		return err
	}
	st.endRecv = true
	st.done()
	if reason == wire.ReasonDone && st.isConnected && st.err == nil {
		st.eof = true // the peer's application closed: its last byte is the end
	}
	st.end(wire.ReasonDone, &wire.EndError{Reason: reason, Remote: true})
	st.retire()
	return nil
}

func (st *Stream) onWindow(body []byte) error {
	n, err := wire.ParseWindow(body)
	if err != nil {
		return err
	}
	if !st.answered() {
		return wire.Violation("WINDOW before CONNECTED")
	}
	if st.pushed() && !st.session.exit() {
		return wire.Violation("WINDOW for a side that has nothing to send")
	}
	if st.sendable+n > wire.MaxCredit {
		return wire.Violation("more than %d bytes of credit outstanding", wire.MaxCredit)
	}
	st.sendable += n
	if len(st.out) > 0 {
		st.session.enqueue(st)
	}
	return nil
}

// finished queues END once both directions have had their FIN. END from both sides, and not the second
// FIN, is what closes a stream: a WINDOW may still be on its way behind the first.
func (st *Stream) finished() {
	if st.finSent && st.finRecv && !st.endDue && !st.endSent {
		st.endDue, st.reason = true, wire.ReasonDone
		st.session.enqueue(st)
	}
}

// end is the end for this side: cause for its application, reason for the peer (once, whatever came
// first). What the application can still read stays unless it closed the stream itself.
func (st *Stream) end(reason wire.Reason, cause *wire.EndError) {
	if !st.endDue && !st.endSent && !st.gone {
		st.endDue, st.reason = true, reason
		st.session.enqueue(st)
	}
	st.fail(cause)
	if !cause.Remote {
		st.eof = false
		st.drop()
	}
}

// fail wakes the application with err; the first error stays.
func (st *Stream) fail(err error) {
	if st.err == nil {
		st.err = err
		closeOnce(st.connected)
	}
	st.readable.set()
	st.writable.set()
}

// done makes the OnDone callback due.
func (st *Stream) done() {
	if st.onDone != nil {
		st.session.ended = append(st.session.ended, st.onDone)
		st.onDone = nil
	}
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// drop throws away what the application has not read.
func (st *Stream) drop() {
	st.session.held(-st.in.size)
	st.in.clear()
	delete(st.session.leftover, st)
}

// retire forgets the stream's number once END went both ways. What its application has not read counts
// against the circuit all the same.
func (st *Stream) retire() {
	if st.endSent && st.endRecv && !st.gone {
		st.gone = true
		delete(st.session.streams, st.id)
		if st.pushed() {
			st.session.pushes--
		}
		if st.in.size > 0 {
			st.session.leftover[st] = struct{}{}
		}
	}
}
