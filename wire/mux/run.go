package mux

import "torproxy/wire"

// Pipe is the circuit's stream on its link.
type Pipe interface {
	// ReadCells calls f with whole cells as they arrive, some at a time; f may change them in place. It
	// returns when reading or f fails, with that error, which is never nil.
	ReadCells(f func(cells []byte) error) error
	// Write writes whole cells; it blocks while the link is full.
	Write(cells []byte) (int, error)
	// Reset ends the stream in both directions and makes ReadCells and Write fail.
	Reset(code wire.ResetCode)
}

// Codec is the onion encryption of one end of a circuit, in place. Seal is only called by the writer and
// Open only by the reader.
type Codec interface {
	Seal(cell []byte)
	Open(cell []byte) bool // false: the cell is not what the peer sent, the circuit must be destroyed
}

// errForged is what a cell that does not open means: somebody on the path changed it.
var errForged = wire.Violation("cell that does not authenticate")

// Run serves the session over its pipe until either fails or Close is called. It resets the pipe, ends
// every stream, and returns the first cause, ErrClosed after Close. A session runs once.
func (s *Session) Run(pipe Pipe, codec Codec) error {
	s.mu.Lock()
	s.pipe = pipe
	closed := s.err
	s.mu.Unlock()
	if closed != nil {
		pipe.Reset(wire.ResetDestroyed)
		return closed
	}
	s.cfg.Budget.join(s)
	defer s.cfg.Budget.leave(s)
	read := make(chan struct{})
	go func() {
		defer close(read)
		s.broken(s.read(pipe, codec))
	}()
	s.broken(s.write(pipe, codec))
	<-read
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// read opens and delivers cells until the pipe fails or a cell is not as it must be. All cells of a batch
// are opened before the first is delivered.
func (s *Session) read(pipe Pipe, codec Codec) error {
	return pipe.ReadCells(func(cells []byte) error {
		for rest := cells; len(rest) > 0; rest = rest[wire.CellSize:] {
			if !codec.Open(rest[:wire.CellSize]) {
				return errForged
			}
		}
		return s.receive(cells)
	})
}

// write sends cells until the session is closed or the pipe fails.
func (s *Session) write(pipe Pipe, codec Codec) error {
	for range s.wake {
		if err := s.writeReady(pipe, codec); err != nil {
			return err
		}
	}
	return nil
}

// writeReady sends what is ready now; the buffer is borrowed only for that long.
func (s *Session) writeReady(pipe Pipe, codec Codec) error {
	buf := batches.Get().(*batch)
	defer batches.Put(buf)
	for {
		n, err := s.fill(buf[:])
		if err != nil || n == 0 {
			return err
		}
		cells := buf[:n*wire.CellSize]
		for rest := cells; len(rest) > 0; rest = rest[wire.CellSize:] {
			codec.Seal(rest[:wire.CellSize])
		}
		if _, err := pipe.Write(cells); err != nil {
			return err
		}
	}
}
