package mux

import (
	"encoding/binary"

	"torproxy/wire"
)

// minFragment is the least room in which DATA is worth a message: fewer bytes wait for the next cell.
const minFragment = 64

// fill writes what the streams have to send into cells, as many as fit in buf, and returns how many. The
// streams take turns, one message of DATA each, so that a bulk transfer never delays the others by more
// than their number of cells. Payloads are complete, zeros included; tags are left to the onion layer.
func (s *Session) fill(buf []byte) (cells int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	for len(buf) >= wire.CellSize && s.ready.head != nil {
		payload := buf[wire.TagSize:wire.CellSize]
		used := s.fillPayload(payload)
		if used == 0 {
			continue // what was ready had nothing to say any more
		}
		clear(payload[used:])
		buf = buf[wire.CellSize:]
		cells++
	}
	return cells, nil
}

func (s *Session) fillPayload(payload []byte) (used int) {
	for s.ready.head != nil {
		st := s.ready.head
		n, more := st.emit(payload[used:])
		used += n
		if more && n == 0 {
			return used // no room left for its next message: it is first in the next cell
		}
		s.ready.pop()
		if more {
			s.ready.push(st)
			continue
		}
		st.queued = false
		st.finished()
		st.retire()
	}
	return used
}

// emit writes the stream's next messages, in the order that the state machine allows, and at most one of
// DATA. more says that there is more to send than fitted or than its turn allowed.
func (st *Stream) emit(b []byte) (n int, more bool) {
	for _, step := range emitSteps {
		k, ok := step(st, b[n:])
		n += k
		if !ok {
			return n, true
		}
	}
	return n, false
}

// over reports that nothing but END may be sent, or, at the exit, nothing before CONNECTED.
func (st *Stream) over() bool {
	return st.err != nil || st.endDue || st.endSent || (st.session.exit() && !st.isConnected)
}

// readyQueue lists streams in the order of their turns, through their own pointers: a turn allocates
// nothing.
type readyQueue struct{ head, tail *Stream }

func (q *readyQueue) push(st *Stream) {
	if q.tail == nil {
		q.head = st
	} else {
		q.tail.behind = st
	}
	q.tail = st
}

func (q *readyQueue) pop() {
	st := q.head
	q.head, st.behind = st.behind, nil
	if q.head == nil {
		q.tail = nil
	}
}

// emitSteps are the steps of emit: each returns the bytes written, and false if it could not finish.
var emitSteps = [...]func(*Stream, []byte) (int, bool){
	(*Stream).emitOpen, (*Stream).emitConnected, (*Stream).emitWindow,
	(*Stream).emitData, (*Stream).emitFin, (*Stream).emitEnd,
}

func (st *Stream) emitOpen(b []byte) (int, bool) {
	if !st.openDue {
		return 0, true
	}
	cmd, n := wire.CmdBegin, 1+len(st.target)
	if st.pushed() {
		cmd, n = wire.CmdPush, 2
	}
	if len(b) < wire.HeaderSize+n {
		return 0, false
	}
	wire.PutHeader(b, cmd, st.id, n)
	if body := b[wire.HeaderSize:wire.HeaderSize]; st.pushed() {
		binary.BigEndian.AppendUint16(body, st.parent)
	} else {
		wire.AppendBegin(body, st.kind, st.target)
	}
	st.openDue, st.asked = false, st.session.now()
	return wire.HeaderSize + n, true
}

func (st *Stream) emitConnected(b []byte) (int, bool) {
	if !st.connectDue {
		return 0, true
	}
	if len(b) < wire.HeaderSize {
		return 0, false
	}
	wire.PutHeader(b, wire.CmdConnected, st.id, 0)
	st.connectDue, st.isConnected = false, true
	closeOnce(st.connected)
	return wire.HeaderSize, true
}

func (st *Stream) emitWindow(b []byte) (int, bool) {
	if st.owed == 0 || st.finRecv || st.over() {
		return 0, true
	}
	if len(b) < wire.HeaderSize+4 {
		return 0, false
	}
	wire.PutHeader(b, wire.CmdWindow, st.id, 4)
	binary.BigEndian.PutUint32(b[wire.HeaderSize:], uint32(st.owed))
	st.grant()
	return wire.HeaderSize + 4, true
}

func (st *Stream) emitData(b []byte) (int, bool) {
	n := min(len(st.out), st.sendable)
	if n == 0 || st.over() {
		return 0, true
	}
	room := len(b) - wire.HeaderSize
	if room < min(n, minFragment) {
		return 0, false
	}
	n = min(n, room)
	wire.PutHeader(b, wire.CmdData, st.id, n)
	copy(b[wire.HeaderSize:], st.out[:n])
	st.out = st.out[n:]
	st.sendable -= n
	st.session.out.Add(int64(n))
	if len(st.out) == 0 {
		st.writable.set()
	}
	return wire.HeaderSize + n, len(st.out) == 0 || st.sendable == 0
}

func (st *Stream) emitFin(b []byte) (int, bool) {
	if !st.finDue || len(st.out) > 0 || st.over() {
		return 0, true
	}
	if len(b) < wire.HeaderSize {
		return 0, false
	}
	wire.PutHeader(b, wire.CmdFin, st.id, 0)
	st.finDue, st.finSent = false, true
	return wire.HeaderSize, true
}

func (st *Stream) emitEnd(b []byte) (int, bool) {
	if !st.endDue {
		return 0, true
	}
	if len(b) < wire.HeaderSize+1 {
		return 0, false
	}
	wire.PutHeader(b, wire.CmdEnd, st.id, 1)
	b[wire.HeaderSize] = byte(st.reason)
	st.endDue, st.endSent = false, true
	return wire.HeaderSize + 1, true
}
