package link

import (
	"errors"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"torproxy/wire"
)

// Stream is one circuit's bidirectional stream on a link: the stream is the circuit. One goroutine may
// read and another write; Reset may come from anywhere. Whoever holds a stream ends it with Reset: until
// then it counts against the link.
type Stream struct {
	qs   *quic.Stream
	link *Link
	once sync.Once
}

// Link returns the link that the stream runs on.
func (s *Stream) Link() *Link { return s.link }

// Read reads what has arrived, at most len(p) bytes. A peer that reset the stream makes it fail with an
// error that ResetCodeOf understands.
func (s *Stream) Read(p []byte) (int, error) { return s.qs.Read(p) }

// Peek waits until something has arrived and copies it to p without taking it out: a circuit that idles
// needs no buffer.
func (s *Stream) Peek(p []byte) (int, error) { return s.qs.Peek(p) }

// Write writes all of p; it blocks while the peer's window is full.
func (s *Stream) Write(p []byte) (int, error) { return s.qs.Write(p) }

// SetReadDeadline and SetWriteDeadline bound blocked reads and writes; the error then is
// os.ErrDeadlineExceeded. The zero time means none.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.qs.SetReadDeadline(t) }

// SetWriteDeadline is described at SetReadDeadline.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.qs.SetWriteDeadline(t) }

// Reset ends both directions at once with one code: the circuit is destroyed at both ends of the link.
// Only the first call counts. It never blocks.
func (s *Stream) Reset(code wire.ResetCode) {
	s.once.Do(func() {
		s.qs.CancelRead(quic.StreamErrorCode(code))
		s.qs.CancelWrite(quic.StreamErrorCode(code))
		s.link.release()
	})
}

// ResetCodeOf returns the code with which the peer reset a stream, from the error of a Read or Write on
// it. ok is false for errors of another kind (a dead link, a deadline).
func ResetCodeOf(err error) (code wire.ResetCode, ok bool) {
	var reset *quic.StreamError
	if errors.As(err, &reset) && reset.Remote {
		return wire.ResetCode(reset.ErrorCode).Known(), true
	}
	return wire.ResetDestroyed, false
}

// cellBuffer is the buffer of one batch of cells, in either direction: large enough that its cost is
// shared by many cells, and borrowed only while there are cells.
type cellBuffer [batchCells * wire.CellSize]byte

const batchCells = 52

var cellBuffers = sync.Pool{New: func() any { return new(cellBuffer) }}

// partBuffer holds the part of a cell that has come while the rest is awaited.
type partBuffer [wire.CellSize]byte

var partBuffers = sync.Pool{New: func() any { return new(partBuffer) }}

// ReadCells reads whole cells as they arrive, as many as there are up to batchCells, and calls f with them; f may
// change them in place and must not keep them. It returns when reading fails or f does, with that error.
// While nothing arrives the stream holds no buffer, and while the rest of a cell does not, one of a cell's
// size: a peer that stops in the middle of a cell ties up no more than one that stops behind it.
func (s *Stream) ReadCells(f func(cells []byte) error) error {
	var first [1]byte
	for {
		if _, err := s.qs.Peek(first[:]); err != nil {
			return err
		}
		if err := s.readBurst(f); err != nil {
			return err
		}
	}
}

// readBurst reads until it holds no part of a cell any more.
func (s *Stream) readBurst(f func(cells []byte) error) error {
	part := partBuffers.Get().(*partBuffer)
	defer partBuffers.Put(part)
	have := 0
	for {
		var err error
		if have, err = s.readBatch(part, have, f); err != nil || have == 0 {
			return err
		}
		if _, err := s.qs.Peek(part[have:]); err != nil { // wait for the rest of the cell, whole
			return err
		}
	}
}

// readBatch reads what there is behind the bytes of part, gives f the whole cells, and leaves in part what
// comes behind them.
func (s *Stream) readBatch(part *partBuffer, have int, f func(cells []byte) error) (left int, err error) {
	buf := cellBuffers.Get().(*cellBuffer)
	defer cellBuffers.Put(buf)
	copy(buf[:], part[:have])
	n, err := s.qs.Read(buf[have:])
	have += n
	whole := have - have%wire.CellSize
	if whole > 0 {
		if err := f(buf[:whole]); err != nil {
			return 0, err
		}
	}
	return copy(part[:], buf[whole:have]), err
}
