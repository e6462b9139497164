package mux

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"torproxy/wire"
)

// FuzzReceive feeds arbitrary payloads to both sides with streams in several states. Each either is a
// violation or leaves the session as it must be, able to go on.
func FuzzReceive(f *testing.F) {
	payload := func(msgs ...msg) []byte { return bytes.TrimRight(cellOf(msgs...)[wire.TagSize:], "\x00") }
	for _, m := range append(everyCommand(1), everyCommand(2)...) {
		f.Add(payload(m), payload(m))
	}
	f.Add(payload(push(4, 1), data(4, 100), fin(4)), payload(end(4, wire.ReasonDone)))
	f.Add(payload(push(6, 9), end(6, wire.ReasonReset)), payload(window(2, 5)))
	f.Add(payload(begin(9), data(9, 100), fin(9)), payload(end(9, wire.ReasonReset)))
	f.Add(payload(data(1, 100), window(1, 5), fin(1), end(1, wire.ReasonDone)), payload(connected(3)))
	f.Add(payload(msg{wire.CmdDrop, 0, "x"}), []byte{0, 1})
	f.Add([]byte{}, []byte{3, 0, 1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, h := range []*half{fuzzClient(t), fuzzExit(t)} {
			for _, payload := range [][]byte{first, second} {
				cell := make([]byte, wire.CellSize)
				copy(cell[wire.TagSize:], payload)
				err := h.s.receive(cell)
				checkInvariants(t, h.s)
				if err != nil && !errors.Is(err, wire.ErrViolation) {
					t.Fatal(err)
				}
				if err != nil {
					break
				}
				h.sent() // what it answers are well-formed cells
			}
			h.s.Close(nil)
			if n := h.s.cfg.Budget.Used(); n != heldBy(h.s) {
				t.Fatalf("%d bytes in use behind the end, %d in the queues", n, heldBy(h.s))
			}
		}
	})
}

// heldBy is what streams hold that are out of a closed session's reach: their applications may read it.
func heldBy(s *Session) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.unread)
}

func fuzzClient(t *testing.T) *half {
	h := newClient(t)
	h.s.cfg.Budget = NewBudget(1 << 20)
	h.connected()                            // 1: open
	h.open()                                 // 3: begun
	h.connected().CloseWrite()               // 5: half closed
	h.connected().Close()                    // 7: ended
	h.gets(cellOf(fin(h.connected().id)))    // 9: half closed by the peer
	h.gets(cellOf(data(1, 100), data(5, 5))) // something unread
	h.gets(cellOf(push(2, 1), data(2, 100))) // 2: pushed
	h.sent()
	return h
}

func fuzzExit(t *testing.T) *half {
	h := newExit(t)
	h.s.cfg.Budget = NewBudget(1 << 20)
	h.begun(1).Connect()
	h.begun(3)
	h.begun(5).CloseWrite()
	h.begun(7).Close()
	h.sent()
	h.push(1) // 2: pushed
	h.sent()
	return h
}

// FuzzPair is a model of two applications and the network between their sessions: ops says, byte by byte,
// which does what next. Whatever they do, neither session may find a violation, and each stream's bytes
// arrive in order.
func FuzzPair(f *testing.F) {
	for seed := range 20 {
		ops := make([]byte, 400)
		rand.NewChaCha8([32]byte{byte(seed)}).Read(ops)
		f.Add(ops)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 1000 {
			ops = ops[:1000]
		}
		newModel(t).run(ops)
	})
}

// TestRandomPair runs the model with many random schedules.
func TestRandomPair(t *testing.T) {
	for seed := range 40 {
		ops := make([]byte, 3000)
		rand.NewChaCha8([32]byte{byte(seed), 1}).Read(ops)
		newModel(t).run(ops)
	}
}

type model struct {
	*testing.T
	sides [2]*modelSide // client, exit
}

type modelSide struct {
	*half
	model    *model
	inFlight []byte // cells on their way to this side
	streams  []*modelStream
	seen     int // streams of half.accepted that are in streams
}

// modelStream is what an application knows of its end of a stream. The bytes it writes count up.
type modelStream struct {
	*Stream
	wrote int // handed to Write
	read  int
}

func newModel(t *testing.T) *model {
	m := &model{T: t}
	m.sides = [2]*modelSide{{half: newClient(t), model: m}, {half: newExit(t), model: m}}
	return m
}

func (m *model) run(ops []byte) {
	for len(ops) >= 3 {
		side := m.sides[ops[0]&1]
		side.step(ops[0]>>1%16, ops[1], int(ops[2]))
		for _, s := range m.sides {
			s.gather()
			checkInvariants(m.T, s.s)
		}
		ops = ops[3:]
	}
	m.finish()
}

// step does one thing that an application or the network may do.
func (a *modelSide) step(op, which byte, n int) {
	if op < 2 {
		a.transmit(1 + n%8)
		return
	}
	if op < 4 {
		a.deliver(1 + n%8)
		return
	}
	if op == 4 {
		a.start(n)
		return
	}
	if len(a.streams) == 0 {
		return
	}
	st := a.streams[int(which)%len(a.streams)]
	switch op {
	case 5, 6, 7, 8:
		a.writeMore(st, n*n)
	case 9, 10, 11, 12:
		a.readSome(st, n*n*8)
	case 13:
		st.Connect()
	case 14:
		if n > 100 {
			st.CloseWrite()
		}
	case 15:
		if n > 200 {
			st.End(wire.Reason(1 + n%12))
		}
	}
}

// start opens a stream: the client begins one, the exit pushes one if its parent will do.
func (a *modelSide) start(n int) {
	if !a.s.exit() {
		if a.s.Streams() < 40 {
			a.streams = append(a.streams, &modelStream{Stream: a.open()})
		}
		return
	}
	if st, err := a.s.Push(uint16(n)); err == nil {
		a.streams = append(a.streams, &modelStream{Stream: st})
	}
}

// gather takes up the streams that the peer has opened.
func (a *modelSide) gather() {
	for ; a.seen < len(a.accepted); a.seen++ {
		a.streams = append(a.streams, &modelStream{Stream: a.accepted[a.seen]})
	}
}

func (a *modelSide) peer() *modelSide {
	if a == a.model.sides[0] {
		return a.model.sides[1]
	}
	return a.model.sides[0]
}

func (a *modelSide) transmit(cells int) {
	buf := make([]byte, cells*wire.CellSize)
	n, err := a.s.fill(buf)
	if err != nil {
		a.Fatal(err)
	}
	p := a.peer()
	p.inFlight = append(p.inFlight, buf[:n*wire.CellSize]...)
}

func (a *modelSide) deliver(cells int) {
	n := min(cells*wire.CellSize, len(a.inFlight))
	if err := a.s.receive(a.inFlight[:n]); err != nil {
		a.Fatalf("an honest peer's cell: %v", err)
	}
	a.inFlight = a.inFlight[n:]
}

// writeMore is Write without waiting: bytes that were not sent before stay the first to be sent.
func (a *modelSide) writeMore(st *modelStream, n int) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if st.err != nil || st.finDue || st.finSent || len(st.out) > 64<<10 {
		return
	}
	p := append([]byte(nil), st.out...)
	for range n {
		p = append(p, byte(st.wrote))
		st.wrote++
	}
	if len(p) > 0 {
		st.out = p
		a.s.enqueue(st.Stream)
	}
}

func (a *modelSide) readSome(st *modelStream, n int) {
	a.s.mu.Lock()
	ready := st.in.size > 0
	a.s.mu.Unlock()
	if !ready || n == 0 {
		return
	}
	p := make([]byte, n)
	n, err := st.Read(p)
	if err != nil {
		a.Fatal(err)
	}
	for _, b := range p[:n] {
		if b != byte(st.read) {
			a.Fatalf("stream %d: byte %d is %d", st.id, st.read, b)
		}
		st.read++
	}
}

// finish lets both sides read and close everything: nothing may be left.
func (m *model) finish() {
	for moved := true; moved; {
		moved = false
		for _, a := range m.sides {
			a.transmit(64)
			a.peer().gather()
			moved = moved || len(a.peer().inFlight) > 0
			a.peer().deliver(1 << 20)
			a.peer().gather()
			for _, st := range a.peer().streams {
				st.Close()
			}
		}
	}
	for _, a := range m.sides {
		checkInvariants(m.T, a.s)
		if a.s.Streams() != 0 || a.s.Pushes() != 0 || a.s.unread != 0 || len(a.s.leftover) != 0 || a.s.ready.head != nil {
			m.Fatalf("left at the end: %d streams, %d bytes, %d leftover", a.s.Streams(), a.s.unread, len(a.s.leftover))
		}
	}
}
