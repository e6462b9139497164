package mux

import (
	"context"
	"errors"
	"sync"
	"time"

	"torproxy/wire"
)

// ErrDeadline is what reads and writes return after their deadline; its Timeout method says true.
var ErrDeadline error = deadlineError{}

type deadlineError struct{}

func (deadlineError) Error() string   { return "mux: deadline exceeded" }
func (deadlineError) Timeout() bool   { return true }
func (deadlineError) Temporary() bool { return true }

// ErrWriteClosed is returned by writes after CloseWrite.
var ErrWriteClosed = errors.New("mux: write after CloseWrite")

// Stream is one end of a byte pipe inside a circuit. One goroutine may read and another write at the same
// time; the other methods may be called from anywhere. Its holder ends it with Close or End.
type Stream struct {
	session *Session
	id      uint16
	kind    wire.Kind
	target  string
	parent  uint16 // of a pushed stream: the client's stream whose reply led to it

	connected chan struct{} // closed by CONNECTED, or by the end
	readable  signal
	writable  signal
	readBy    deadline
	writeBy   deadline
	reading   sync.Mutex // one Read or WriteTo at a time
	writing   sync.Mutex // one Write at a time

	// The rest is under session.mu.
	onDone func()
	err    error // why it is over for the application; nil while it lives
	eof    bool  // no more bytes will come than those in the queue

	in       queue     // bytes for the application
	credit   int       // bytes that the peer may still send
	window   int       // what credit and unread bytes together should come to
	owed     int       // credit to grant with the next WINDOW
	watched  int       // bytes that the peer can send before it needs the watched WINDOW; 0: none is watched
	ahead    int       // what watched was when its WINDOW went out,
	asked    time.Time // and when that was; before CONNECTED, when BEGIN went out
	due      time.Time // when the WINDOW went out without which the peer cannot send more; zero: it can, or did
	dry      bool      // the peer ran out of credit
	out      []byte
	sendable int // bytes that the peer still takes

	queued                          bool    // in session.ready
	behind                          *Stream // in session.ready
	openDue, connectDue             bool    // to be sent; openDue: BEGIN or PUSH
	finDue, endDue                  bool
	reason                          wire.Reason // of the END to be sent
	isConnected                     bool        // CONNECTED was sent or received
	finSent, finRecv, endSent, gone bool
	endRecv                         bool
}

func newStream(s *Session, id uint16, kind wire.Kind, target string) *Stream {
	return &Stream{
		session: s, id: id, kind: kind, target: target,
		connected: make(chan struct{}), readable: newSignal(), writable: newSignal(),
		credit: wire.InitialCredit, window: wire.InitialCredit, sendable: wire.InitialCredit,
	}
}

// ID is the stream's number on its circuit, odd if the client began it, even if the exit pushed it.
func (st *Stream) ID() uint16 { return st.id }

// pushed reports whether the exit opened the stream: it goes one way.
func (st *Stream) pushed() bool { return st.id%2 == 0 }

// Kind and Target are what the stream's BEGIN asked for.
func (st *Stream) Kind() wire.Kind { return st.kind }

// Target is what the client wrote, HOST:PORT for most kinds; the exit judges it.
func (st *Stream) Target() string { return st.target }

// Connected waits until the exit has answered: nil when the destination is connected, a *wire.EndError
// when it is not. The stream stays open when ctx ends first.
func (st *Stream) Connected(ctx context.Context) error {
	select {
	case <-st.connected:
	case <-ctx.Done():
		return ctx.Err()
	}
	st.session.mu.Lock()
	defer st.session.mu.Unlock()
	if st.isConnected {
		return nil
	}
	return st.err
}

// Connect answers BEGIN with CONNECTED; the exit calls it once, when the destination is connected.
func (st *Stream) Connect() {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exit() && !st.isConnected && !st.connectDue && !st.endDue && st.err == nil {
		st.connectDue = true
		s.enqueue(st)
	}
}

// OnDone calls f once, in a goroutine that must not be held up, when the peer has ended the stream or the
// circuit is gone: there is nobody left to work for. f is called at once if that is so already. There is
// one such f: a second call replaces the first.
func (st *Stream) OnDone(f func()) {
	s := st.session
	s.mu.Lock()
	over := st.endRecv || s.err != nil
	if !over {
		st.onDone = f
	}
	s.mu.Unlock()
	if over {
		f()
	}
}

// CloseWrite says that no more will be written (FIN); reading goes on. It does not block, and calling it
// again does nothing.
func (st *Stream) CloseWrite() error {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.finDue || st.finSent {
		return nil
	}
	if st.err != nil {
		return st.err
	}
	st.finDue = true
	s.enqueue(st)
	return nil
}

// Close ends the stream for both directions: what was written is delivered, what was not read is thrown
// away. It does not block, and only the first call of Close or End counts.
func (st *Stream) Close() error {
	st.End(wire.ReasonDone)
	return nil
}

// End ends the stream and tells the peer why.
func (st *Stream) End(reason wire.Reason) {
	st.SetDeadline(time.Time{}) // a timer must not outlive the stream
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	st.end(reason, &wire.EndError{Reason: reason})
}

// SetDeadline, SetReadDeadline and SetWriteDeadline work as those of net.Conn, with ErrDeadline.
func (st *Stream) SetDeadline(t time.Time) error {
	st.readBy.set(t)
	st.writeBy.set(t)
	return nil
}

// SetReadDeadline is described at SetDeadline.
func (st *Stream) SetReadDeadline(t time.Time) error { st.readBy.set(t); return nil }

// SetWriteDeadline is described at SetDeadline.
func (st *Stream) SetWriteDeadline(t time.Time) error { st.writeBy.set(t); return nil }
