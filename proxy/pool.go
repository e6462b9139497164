package proxy

import (
	"net/netip"
	"strconv"
	"sync"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/guard"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// held is a circuit in the pool. Its fields are under pool.mu.
type held struct {
	circuit   *circuit.Circuit
	id        string
	choice    string // what it was built for, choice.key: nobody else may take it
	used      bool   // it has a label, and carries only streams of that
	label     label
	firstUse  time.Time
	lastUse   time.Time // when a stream was last wanted of it, or closed
	reserved  *turn     // only for those who wait in it; nil: for anybody
	retired   bool      // no new streams; closed when the last one has ended
	crowded   bool      // it was closed to make room
	pending   int       // dials that are about to open a stream
	streams   map[*circuit.Conn]stream
	ending    int // streams that were closed, and whose last bytes may be on their way
	lastClose time.Time
	slow      int            // answers in a row that were
	guard     *guard.Attempt // what it waits for before it may carry streams; nil: for nothing
}

// stream is what the pool remembers of an open stream, to show it to its user.
type stream struct {
	id     string
	target string
	began  time.Time
	took   time.Duration // until the exit had connected it
}

// pool holds the circuits that stand and counts those being built.
type pool struct {
	mu       sync.Mutex
	closed   bool
	next     int
	identity int // how often it was renewed
	opens    int // the last stream's ID
	circuits map[string]*held
	building map[string]*attempt
	turns    map[purpose]*turn
	arrived  chan struct{} // closed and replaced when a circuit arrives
	slots    chan struct{} // one in it for each circuit being made, of maxBuilding
	lost     bool          // a spare has ended by itself
	watched  chan struct{} // closed by the next change; nil: nobody watches
	replaced time.Time     // when a circuit was last retired for being slow
	in, out  int64         // bytes that the circuits which have ended have carried
	spares   chan struct{} // of size 1: a spare was taken or lost
	running  sync.WaitGroup
}

// label is what streams must have in common to share a circuit. identity is the pool's of the moment when
// the stream was asked for, so that one which NewIdentity overtakes shares with no later one.
type label struct {
	isolation string
	choice    string // of relays and destination, where that separates too
	identity  int
}

// attempt is a circuit being built.
type attempt struct {
	*path
	id    string
	turn  *turn // who waits for it
	began time.Time
}

func (p *pool) init() {
	p.circuits, p.building, p.turns = map[string]*held{}, map[string]*attempt{}, map[purpose]*turn{}
	p.arrived, p.slots, p.spares = make(chan struct{}), make(chan struct{}, maxBuilding), make(chan struct{}, 1)
}

// labelled returns the label of a stream that is asked for now.
func (p *pool) labelled(isolation, choice string) label {
	p.mu.Lock()
	defer p.mu.Unlock()
	return label{isolation, choice, p.identity}
}

// take returns a circuit for a stream: one of the same label, else a spare that was built for the same choice
// of relays, which gets the label; fresh says so. It counts as pending until opened or released. Nil: none fits.
func (p *pool) take(l label, chosen string, fits func(route []*netdoc.Relay) bool) (best *held, fresh bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, h := range p.circuits {
		if h.retired || h.guard != nil || !fits(h.circuit.Route()) || h.circuit.Streams()+h.pending >= wire.MaxStreams {
			continue
		}
		if !h.used && h.choice != chosen { // whoever knows the exit by that choice would know of the label
			continue
		}
		if h.used && (h.label != l || now.Sub(h.firstUse) > usedLifetime) || h.reserved != nil && h.reserved.label != l {
			continue
		}
		if best == nil || better(h, best) {
			best = h
		}
	}
	if best == nil {
		return nil, false
	}
	if fresh = !best.used; fresh {
		best.used, best.label, best.firstUse = true, l, now
		best.retired = l.identity != p.identity
		if best.reserved != nil {
			best.reserved.gives, best.reserved = nil, nil
		}
		p.wakeSpares()
		p.changedLocked()
	}
	best.pending++
	best.lastUse = now
	return best, fresh
}

// better prefers a circuit that is in use already to a spare, and of two alike the older.
func better(a, b *held) bool {
	if a.used != b.used {
		return a.used
	}
	return a.circuit.Began().Before(b.circuit.Began())
}

// add takes the circuit of an attempt in and runs it; it leaves by itself when it has ended. If anybody waits
// in the attempt's turn for his first circuit it is his, else it is a spare, or, with a guard, it has to wait.
func (p *pool) add(a *attempt, c *circuit.Circuit, wait *guard.Attempt, run func(*circuit.Circuit)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.changedLocked()
	delete(p.building, a.id)
	if p.closed {
		c.Close()
		run(c) // a closed circuit only says good-bye
		return
	}
	h := &held{circuit: c, id: a.id, streams: map[*circuit.Conn]stream{}, choice: a.choice.key(), guard: wait, lastUse: time.Now()}
	p.circuits[h.id] = h
	p.makeRoomLocked()
	if wait == nil {
		p.giveLocked(h, a.turn)
	}
	p.running.Go(func() {
		run(c)
		p.remove(h)
	})
}

// giveLocked hands out a circuit that may carry streams now. p.mu is held.
func (p *pool) giveLocked(h *held, t *turn) {
	if t != nil && t.waiting > 0 && !t.given {
		h.reserved, t.gives, t.given = t, h, true
	}
	if h.spare() && p.sparesLocked() > maxUnused {
		h.retired = true
		h.circuit.Close()
	}
	p.arrivedLocked()
}

// heard has the circuits that wait for better guards judged anew, and reports whether any may carry streams now.
func (p *pool) heard(check func(*guard.Attempt) guard.Verdict) (any bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.circuits {
		if h.guard == nil || h.retired {
			continue
		}
		switch check(h.guard) {
		case guard.Use:
			h.guard, any = nil, true
			p.giveLocked(h, nil)
			p.changedLocked()
		case guard.Discard:
			h.retired = true
			h.circuit.Close()
		}
	}
	return any
}

// waitsForGuards reports whether any circuit does.
func (p *pool) waitsForGuards() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.circuits {
		if h.guard != nil && !h.retired {
			return true
		}
	}
	return false
}

// sparesLocked counts the spares. p.mu is held.
func (p *pool) sparesLocked() (n int) {
	for _, h := range p.circuits {
		if h.spare() {
			n++
		}
	}
	return n
}

// whileOpen runs f in a goroutine that close waits for; false, and not, if the pool is closed.
func (p *pool) whileOpen(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.running.Go(f)
	}
	return !p.closed
}

func (p *pool) release(h *held) {
	p.mu.Lock()
	h.pending--
	h.lastUse = time.Now()
	p.mu.Unlock()
	p.closeIfDone(h)
}

// opened notes a stream until it is closed, and counts it until nothing of it is on its way any more.
func (p *pool) opened(h *held, conn *circuit.Conn, s stream) {
	p.mu.Lock()
	h.pending--
	p.opens++
	s.id = strconv.Itoa(p.opens)
	h.streams[conn] = s
	p.changedLocked()
	p.mu.Unlock()
	var closed time.Time
	var answered func()
	conn.OnClose(func() {
		answered = p.awaitEnd(h)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(h.streams, conn)
		h.ending++
		closed = time.Now()
		h.lastClose, h.lastUse = closed, closed
		p.changedLocked()
	}, func() {
		answered()
		p.mu.Lock()
		h.ending--
		p.answeredLocked(h, time.Since(closed))
		p.mu.Unlock()
		p.closeIfDone(h)
	})
}

// connected notes how long a stream took to open that was noted when it was begun.
func (p *pool) connected(h *held, conn *circuit.Conn, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, open := h.streams[conn]; open {
		s.took = took
		h.streams[conn] = s
		p.changedLocked()
	}
}

// dropped closes a stream that was never connected; its circuit does not wait for the exit to agree. It is
// not for concurrent use with the stream's Close.
func (p *pool) dropped(h *held, conn *circuit.Conn) {
	conn.OnClose(nil, p.awaitEnd(h))
	conn.Close()
	p.mu.Lock()
	delete(h.streams, conn)
	p.changedLocked()
	p.mu.Unlock()
	p.closeIfDone(h)
}

// hold counts a stream that the exit has opened as pending until opened.
func (p *pool) hold(h *held) {
	p.mu.Lock()
	h.pending++
	p.mu.Unlock()
}

// remove forgets a circuit that has ended.
func (p *pool) remove(h *held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.circuits, h.id)
	in, out := h.circuit.Bytes()
	p.in += in
	p.out += out
	p.changedLocked()
	if !h.used {
		p.lost = p.lost || !h.retired
		p.wakeSpares()
	}
}

// standing reports whether any circuit takes new streams.
func (p *pool) standing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.circuits {
		if !h.retired && h.guard == nil {
			return true
		}
	}
	return false
}

// busy reports whether so many circuits are being built that none is built beside another.
func (p *pool) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.building) >= maxBuilding
}

// changedLocked tells those who watch. p.mu is held.
func (p *pool) changedLocked() {
	if p.watched != nil {
		close(p.watched)
		p.watched = nil
	}
}

// close waits until every circuit's Run has returned; their context has ended before.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.running.Wait()
}

func exitFits(exit *netdoc.Relay, t route.Target) bool {
	if t.Addr.IsValid() {
		return exit.Policy.Allows(netip.AddrPortFrom(t.Addr, t.Port))
	}
	return t.Port == 0 || exit.Policy.AllowsPort(t.Port)
}

// begin notes an attempt, for those who wait in t.
func (p *pool) begin(along *path, t *turn) *attempt {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	a := &attempt{path: along, id: strconv.Itoa(p.next), turn: t, began: time.Now()}
	p.building[a.id] = a
	p.changedLocked()
	return a
}

func (p *pool) failed(a *attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.building, a.id)
	p.changedLocked()
}
