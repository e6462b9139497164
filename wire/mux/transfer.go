package mux

import (
	"io"
	"sync"

	"torproxy/wire"
)

// Read reads at least one byte. io.EOF follows the peer's last byte; a stream that ended otherwise gives
// what had arrived before, then its *wire.EndError. If the circuit breaks before the peer has finished,
// what was not read is lost, and the error wraps ErrClosed.
func (st *Stream) Read(p []byte) (int, error) {
	st.reading.Lock()
	defer st.reading.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := st.awaitBytes(); err != nil {
		return 0, err
	}
	n := st.in.read(p)
	st.consumed(n)
	return n, nil
}

// WriteTo implements io.WriterTo without an extra copy.
func (st *Stream) WriteTo(w io.Writer) (total int64, err error) {
	st.reading.Lock()
	defer st.reading.Unlock()
	for {
		b, err := st.nextBlock()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(b.bytes())
		total += int64(n)
		st.giveBack(b)
		if err != nil {
			return total, err
		}
	}
}

// nextBlock waits for bytes and takes the first block of them; giveBack counts it as consumed.
func (st *Stream) nextBlock() (*block, error) {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := st.awaitBytes(); err != nil {
		return nil, err
	}
	return st.in.pop(), nil
}

func (st *Stream) giveBack(b *block) {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	st.consumed(b.len())
	b.free()
}

// awaitBytes blocks until there is something to read: nil, or why nothing will come. session.mu is held,
// but not while it waits.
func (st *Stream) awaitBytes() error {
	s := st.session
	for {
		switch {
		case st.readBy.passed():
			return ErrDeadline
		case st.in.size > 0:
			return nil
		case st.eof:
			return io.EOF
		case st.err != nil:
			return st.err
		}
		s.mu.Unlock()
		select {
		case <-st.readable:
		case <-st.readBy.wait():
		}
		s.mu.Lock()
	}
}

// Write hands p to the writer and returns when all of it has gone into cells; it blocks while the peer
// grants no credit. Data may be written before the stream is connected.
func (st *Stream) Write(p []byte) (int, error) {
	st.writing.Lock()
	defer st.writing.Unlock()
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case st.err != nil:
		return 0, st.err
	case st.finDue || st.finSent:
		return 0, ErrWriteClosed
	case st.writeBy.passed():
		return 0, ErrDeadline
	}
	st.out = p
	err := st.awaitSent()
	n := len(p) - len(st.out)
	st.out = nil
	return n, err
}

// awaitSent blocks until the writer has sent all of st.out, or the stream is over. A CloseWrite meanwhile
// takes effect behind it. session.mu is held, but not while it waits.
func (st *Stream) awaitSent() error {
	s := st.session
	if len(st.out) > 0 && st.sendable > 0 {
		s.enqueue(st)
	}
	for len(st.out) > 0 {
		switch {
		case st.err != nil:
			return st.err
		case st.writeBy.passed():
			return ErrDeadline
		}
		s.mu.Unlock()
		select {
		case <-st.writable:
		case <-st.writeBy.wait():
		}
		s.mu.Lock()
	}
	return nil
}

// smallBuffer is what ReadFrom holds while a source is silent: one message's bytes.
type smallBuffer [wire.MaxBody]byte

var smallBuffers = sync.Pool{New: func() any { return new(smallBuffer) }}

// ReadFrom implements io.ReaderFrom with borrowed buffers: a small one, and one of many cells' bytes while
// the source gives more at a time.
func (st *Stream) ReadFrom(r io.Reader) (total int64, err error) {
	small := smallBuffers.Get().(*smallBuffer)
	defer smallBuffers.Put(small)
	for {
		n, err := st.copyOnce(r, small[:])
		total += n
		if err == nil && n == int64(len(small)) {
			n, err = st.copyMany(r, len(small))
			total += n
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// copyMany copies as long as each read gives more than a few bytes.
func (st *Stream) copyMany(r io.Reader, few int) (total int64, err error) {
	buf := batches.Get().(*batch)
	defer batches.Put(buf)
	for {
		n, err := st.copyOnce(r, buf[:])
		total += n
		if err != nil || n <= int64(few) {
			return total, err
		}
	}
}

func (st *Stream) copyOnce(r io.Reader, buf []byte) (int64, error) {
	n, err := r.Read(buf)
	if n == 0 {
		return 0, err
	}
	m, writeErr := st.Write(buf[:n])
	if writeErr != nil {
		err = writeErr
	}
	return int64(m), err
}
