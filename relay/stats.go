package relay

import (
	"sync/atomic"

	"torproxy/wire"
)

// Stats is what a relay counts for its operator. There is nothing in it of whom it served: no address, no
// name, no time, and nothing of one circuit. All counts begin with the relay and only rise, but those under
// Now.
type Stats struct {
	Now struct {
		Circuits    int   // that run through the relay
		Peeling     int   // CREATEs that wait to be peeled
		Connections int   // to destinations, those of kind http that wait for a request included
		Lookups     int   // streams of kind resolve
		Unread      int64 // bytes that clients sent and destinations have not taken
	}

	// Answered counts CREATEs by the status in their answer, Reset those that got none by the code.
	Answered map[wire.Status]uint64
	Reset    map[wire.ResetCode]uint64

	// Cells counts those that came, as a relay in the middle and as the last; each is wire.CellSize bytes.
	// Those towards the exit, and those from it.
	CellsOutward, CellsInward uint64

	// Streams counts those that are over by what they asked for and how they ended. Reason 0 is a stream
	// that was served, whatever happened to it later; kind 0 stands for all that are unknown.
	Streams map[StreamCount]uint64

	// Dials counts attempts to reach a destination; reason 0 is a connection.
	Dials map[wire.Reason]uint64
}

// StreamCount is what streams are counted by.
type StreamCount struct {
	Kind   wire.Kind
	Reason wire.Reason
}

// The lengths of the tables of counters: one more than the highest number.
const (
	statuses = int(wire.StatusRefused) + 1
	resets   = int(wire.ResetViolation) + 1
	kinds    = int(wire.KindResolve) + 1
	reasons  = int(wire.ReasonShutdown) + 1
)

// counters are the counters behind Stats. Cells are added a batch at a time.
type counters struct {
	answered [statuses]atomic.Uint64
	reset    [resets]atomic.Uint64
	cells    [2]atomic.Uint64 // inward, outward
	streams  [kinds][reasons]atomic.Uint64
	dials    [reasons]atomic.Uint64
}

// passed counts the cells of one read.
func (c *counters) passed(outward bool, cells []byte) {
	direction := 0
	if outward {
		direction = 1
	}
	c.cells[direction].Add(uint64(len(cells) / wire.CellSize))
}

// stream counts a stream that is over.
func (c *counters) stream(kind wire.Kind, reason wire.Reason) {
	if int(kind) >= kinds {
		kind = 0
	}
	c.streams[kind][reason].Add(1)
}

// Stats returns the counts of this moment. Each is exact; together they are not of one instant.
func (r *Relay) Stats() Stats {
	s := Stats{
		Answered: counted[wire.Status](r.counters.answered[:]), Reset: counted[wire.ResetCode](r.counters.reset[:]),
		CellsInward: r.counters.cells[0].Load(), CellsOutward: r.counters.cells[1].Load(),
		Streams: map[StreamCount]uint64{}, Dials: counted[wire.Reason](r.counters.dials[:]),
	}
	s.Now.Circuits = r.Circuits()
	s.Now.Peeling = int(r.peel.waiting.Load())
	s.Now.Connections = int(r.exits.Load())
	s.Now.Lookups = int(r.lookups.Load())
	s.Now.Unread = r.budget.Used()
	for kind := range r.counters.streams {
		for reason, n := range counted[wire.Reason](r.counters.streams[kind][:]) {
			s.Streams[StreamCount{wire.Kind(kind), reason}] = n
		}
	}
	return s
}

// counted returns a table's counters that are not zero.
func counted[K ~uint8 | ~uint64](table []atomic.Uint64) map[K]uint64 {
	m := map[K]uint64{}
	for i := range table {
		if n := table[i].Load(); n > 0 {
			m[K(i)] = n
		}
	}
	return m
}
