// Package mux carries many streams inside one circuit (sections 4.1 to 4.3 of SPEC.md): BEGIN and CONNECTED, DATA
// under credit, FIN for each direction, END at the end; and PUSH, by which the exit opens a stream of its own
// for what the client will ask for next. The same code runs at the client and at the exit; the two differ
// only in who may say what.
//
//	application         Stream                 Session                      Pipe
//	Write(p) ---------> out = p --+
//	Read(p) <---------- in <------|--+
//	                              |  |
//	                              |  +-- receive: messages, credit, state <-- open  <-- cells read
//	                              +----> fill: round robin over the ready --> seal  --> cells written
//
// Two goroutines serve a session, a reader and a writer, and the reader never waits for the writer: what
// must be sent is state of a stream (credit owed, FIN, END), not an entry of a queue, so it has a bound by
// construction. Nor does the reader ever wait for an application: what an application does not read stays
// within the credit it was granted. So neither direction can stall the other.
//
// The package is pure: cells come from and go to a Pipe, and time enters only through deadlines.
package mux

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"torproxy/wire"
)

// Errors of a session and its streams. A stream that was ended returns *wire.EndError instead.
var (
	ErrClosed    = errors.New("mux: circuit is closed")
	ErrBusy      = errors.New("mux: circuit has all the streams it may have")
	ErrExhausted = errors.New("mux: circuit has used up its stream numbers")
	ErrParent    = errors.New("mux: a stream is pushed for one that is connected")
)

// Bounds that are this side's own affair; those that both sides must agree on stand in package wire.
const (
	// maxUnread is what the streams of one circuit may hold together before the greediest is ended.
	maxUnread = 16 << 20
	// maxLingering bounds streams refused with END whose END the client has not answered yet.
	maxLingering = 2 * wire.MaxStreams
)

// Config is what a Session needs to know.
type Config struct {
	// Accept makes this the exit's end: it gets each stream that the client begins. It is called by the
	// reader and must return at once; the stream must be ended by Close or End. Nil makes this the
	// client's end.
	Accept func(s *Stream)

	// Pushed gets each stream that the exit opens at the client, and the number of the client's stream whose
	// reply led to it, which may be over already. It is called by the reader, before anything is delivered
	// that the exit sent later, and must return at once; the stream must be ended by Close or End. With nil, such streams get END "unsupported".
	Pushed func(parent uint16, s *Stream)

	// Clock tells the time, at the client's end. With it, streams that share the circuit are granted what it
	// carries and little more (share.go). Nil grants each stream as much as it can use.
	Clock func() time.Time

	// Budget bounds the unread bytes of many sessions together. Nil sets no bound.
	Budget *Budget
}

// Session is one end of a circuit's streams. Its methods may be called from any goroutine.
type Session struct {
	cfg  Config
	wake chan struct{} // of size 1: the writer has something to do

	in, out atomic.Int64 // bytes of DATA

	mu       sync.Mutex
	err      error // why it is closed, for Run
	told     error // and for the streams; it wraps ErrClosed
	streams  map[uint16]*Stream
	leftover map[*Stream]struct{} // no longer in streams, but with bytes that the application has not read
	pipe     Pipe                 // while Run runs
	ready    readyQueue           // streams with something to send, each at most once
	next     uint32               // the number of this side's next stream
	last     uint16               // the number of the peer's newest stream
	pushes   int                  // of streams, those that the exit opened
	trip     time.Duration        // a round trip to the exit without a queue; 0: not known
	unread   int                  // bytes held for applications
	accepted *Stream              // opened by the peer's message being received
	ended    []func()             // OnDone callbacks due in the batch being received
}

// NewSession makes one end of a circuit; Run serves it.
func NewSession(cfg Config) *Session {
	s := &Session{
		cfg: cfg, wake: make(chan struct{}, 1), next: 1,
		streams: map[uint16]*Stream{}, leftover: map[*Stream]struct{}{},
	}
	if s.exit() {
		s.next = 2
	}
	return s
}

// Open begins a stream at the client; what target must look like depends on kind. It does not wait:
// Stream.Connected does, and data may be written before. ErrBusy and ErrExhausted ask for another circuit.
func (s *Session) Open(kind wire.Kind, target string) (*Stream, error) {
	if s.exit() {
		return nil, errors.New("mux: only the client opens streams")
	}
	// What the exit would take for a violation must not cost the circuit's other streams their circuit.
	if _, _, err := wire.ParseBegin(wire.AppendBegin(nil, kind, target)); err != nil {
		return nil, fmt.Errorf("mux: target cannot be sent: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return nil, s.told
	case s.begun() >= wire.MaxStreams:
		return nil, ErrBusy
	case s.next > 0xffff:
		return nil, ErrExhausted
	}
	st := newStream(s, uint16(s.next), kind, target)
	s.opens(st)
	return st, nil
}

// opens lists a stream that this side opens, and queues its first message. s.mu is held.
func (s *Session) opens(st *Stream) {
	s.next += 2
	s.streams[st.id] = st
	st.openDue = true
	s.enqueue(st)
}

// begun returns how many streams are open that the client began. s.mu is held.
func (s *Session) begun() int { return len(s.streams) - s.pushes }

// Streams returns how many streams are open that the client began, which is what wire.MaxStreams bounds.
func (s *Session) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun()
}

// Pushes returns how many streams are open that the exit pushed; wire.MaxPushes bounds them.
func (s *Session) Pushes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pushes
}

// Bytes returns how many bytes of DATA came in and went out, for people to look at.
func (s *Session) Bytes() (in, out int64) { return s.in.Load(), s.out.Load() }

// Close ends the session and every stream; Run returns err, or ErrClosed if err is nil. Readers and
// writers get an error that wraps ErrClosed and err, except that a stream whose peer had finished (FIN)
// can still be read to its end. Only the first call counts.
func (s *Session) Close(err error) {
	if err == nil {
		s.end(ErrClosed, ErrClosed)
		return
	}
	s.end(err, fmt.Errorf("%w: %w", ErrClosed, err))
}

// broken ends the session because its pipe failed or the peer broke the protocol. The streams get the cause
// as text only, for it would mislead an application that asks what it is: any relay of the path can end
// the circuit with an end of file, and a download cut short would look complete; and a time-out of the
// link is not a deadline of the stream, after which another try may help.
func (s *Session) broken(cause error) {
	s.end(cause, fmt.Errorf("%w: %v", ErrClosed, cause))
}

func (s *Session) end(err, told error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err, s.told = err, told
	for _, st := range s.streams {
		st.fail(told)
		if !st.eof {
			st.drop()
		}
		st.done()
	}
	clear(s.streams)
	s.pushes = 0
	s.ready = readyQueue{}
	ended, pipe := s.takeEnded(), s.pipe
	s.mu.Unlock()
	for _, f := range ended {
		f()
	}
	s.wakeWriter()
	if pipe != nil {
		// One code for every cause: what went wrong inside the circuit would be a message from its far
		// end to the relay at its near end.
		pipe.Reset(wire.ResetDestroyed)
	}
}

func (s *Session) exit() bool { return s.cfg.Accept != nil }

// enqueue gives a stream its turn at the writer. s.mu is held.
func (s *Session) enqueue(st *Stream) {
	if st.queued || s.err != nil {
		return
	}
	st.queued = true
	s.ready.push(st)
	s.wakeWriter()
}

func (s *Session) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already
	}
}

// takeEnded hands out the callbacks that became due, to be called without the lock. s.mu is held.
func (s *Session) takeEnded() []func() {
	due := s.ended
	s.ended = nil
	return due
}
