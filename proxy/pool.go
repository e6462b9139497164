package proxy

import (
	"net/netip"
	"sort"
	"strconv"
	"sync"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

const (
	defaultSpares = 3
	usedLifetime  = 10 * time.Minute // a circuit takes no new streams so long after its first
	spareLifetime = 30 * time.Minute // an unused one is replaced: its relays may have left the consensus
	tendInterval  = 15 * time.Second
)

// held is a circuit in the pool. Its fields are under pool.mu.
type held struct {
	circuit   *circuit.Circuit
	id        string
	used      bool // it has an isolation label, and carries only streams of that
	isolation string
	firstUse  time.Time
	retired   bool // no new streams; closed when the last one ends
	pending   int  // dials that are about to open a stream
	streams   map[*circuit.Conn]stream
}

// stream is what the pool remembers of an open stream, to show it to its user.
type stream struct {
	target string
	began  time.Time
	took   time.Duration // until the exit had connected it
}

// pool holds the circuits that stand and counts those being built.
type pool struct {
	mu       sync.Mutex
	closed   bool
	next     int
	circuits map[string]*held
	building map[string]*attempt
	spares   chan struct{} // of size 1: a spare was taken or lost
	running  sync.WaitGroup
}

// attempt is a circuit being built.
type attempt struct {
	id    string
	route []*netdoc.Relay
	began time.Time
}

func (p *pool) init() {
	p.circuits, p.building = map[string]*held{}, map[string]*attempt{}
	p.spares = make(chan struct{}, 1)
}

// take returns a circuit for a stream: one of the same label, else a spare, which gets the label. It
// counts as pending until opened or released. Nil: none fits.
func (p *pool) take(isolation string, fits func(*netdoc.Relay) bool) *held {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	var best *held
	for _, h := range p.circuits {
		if h.retired || !fits(h.circuit.Exit()) || h.circuit.Streams()+h.pending >= wire.MaxStreams {
			continue
		}
		if h.used && (h.isolation != isolation || now.Sub(h.firstUse) > usedLifetime) {
			continue
		}
		if best == nil || better(h, best) {
			best = h
		}
	}
	if best == nil {
		return nil
	}
	if !best.used {
		best.used, best.isolation, best.firstUse = true, isolation, now
		p.wakeSpares()
	}
	best.pending++
	return best
}

// better prefers a circuit that is in use already to a spare, and of two alike the older.
func better(a, b *held) bool {
	if a.used != b.used {
		return a.used
	}
	return a.circuit.Began().Before(b.circuit.Began())
}

// add takes a circuit in and runs it; it leaves by itself when it has ended.
func (p *pool) add(id string, c *circuit.Circuit, run func(*circuit.Circuit)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.building, id)
	if p.closed {
		c.Close()
		run(c) // a closed circuit only says good-bye
		return
	}
	h := &held{circuit: c, id: id, streams: map[*circuit.Conn]stream{}}
	p.circuits[id] = h
	p.running.Go(func() {
		run(c)
		p.remove(h)
	})
}

func (p *pool) release(h *held) {
	p.mu.Lock()
	h.pending--
	p.mu.Unlock()
	p.closeIfDone(h)
}

// opened notes a stream until it is closed.
func (p *pool) opened(h *held, conn *circuit.Conn, s stream) {
	p.mu.Lock()
	h.pending--
	h.streams[conn] = s
	p.mu.Unlock()
	conn.OnClose(func() {
		p.mu.Lock()
		delete(h.streams, conn)
		p.mu.Unlock()
		p.closeIfDone(h)
	})
}

func (p *pool) retire(h *held) {
	p.mu.Lock()
	h.retired = true
	p.mu.Unlock()
	p.closeIfDone(h)
}

// retireAll retires every circuit that has carried a stream.
func (p *pool) retireAll() {
	p.mu.Lock()
	var used []*held
	for _, h := range p.circuits {
		if h.used {
			h.retired = true
			used = append(used, h)
		}
	}
	p.mu.Unlock()
	for _, h := range used {
		p.closeIfDone(h)
	}
}

func (p *pool) closeIfDone(h *held) {
	p.mu.Lock()
	done := h.retired && h.pending == 0 && len(h.streams) == 0
	p.mu.Unlock()
	if done {
		h.circuit.Close()
	}
}

// remove forgets a circuit that has ended.
func (p *pool) remove(h *held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.circuits, h.id)
	if !h.used {
		p.wakeSpares()
	}
}

// tend retires circuits that are past their time.
func (p *pool) tend(now time.Time) {
	p.mu.Lock()
	var due []*held
	for _, h := range p.circuits {
		old := h.used && now.Sub(h.firstUse) > usedLifetime || !h.used && now.Sub(h.circuit.Began()) > spareLifetime
		if old && !h.retired {
			h.retired = true
			due = append(due, h)
		}
	}
	p.mu.Unlock()
	for _, h := range due {
		p.closeIfDone(h)
	}
}

// missing returns how many spares are neither there nor being built.
func (p *pool) missing(want int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.circuits {
		if !h.used && !h.retired {
			want--
		}
	}
	return want
}

func (p *pool) wakeSpares() {
	select {
	case p.spares <- struct{}{}:
	default:
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

// CircuitInfo is a circuit as its user may see it.
type CircuitInfo struct {
	ID        string
	State     string // "building", "ready" or "closing"
	Route     []*netdoc.Relay
	Streams   []StreamInfo
	Took      time.Duration // to build
	Age       time.Duration
	In, Out   int64 // bytes of the application, from and to the destinations
	Isolation string
}

// StreamInfo is one open stream of a circuit.
type StreamInfo struct {
	Target string
	Took   time.Duration // to open
	Age    time.Duration
}

// Circuits lists the circuits, oldest first.
func (p *Proxy) Circuits() []CircuitInfo {
	now := time.Now()
	pl := &p.pool
	pl.mu.Lock()
	defer pl.mu.Unlock()
	infos := make([]CircuitInfo, 0, len(pl.circuits)+len(pl.building))
	for _, h := range pl.circuits {
		infos = append(infos, h.info(now))
	}
	for _, a := range pl.building {
		infos = append(infos, CircuitInfo{ID: a.id, State: "building", Route: a.route, Age: now.Sub(a.began)})
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Age > infos[j].Age })
	return infos
}

func (h *held) info(now time.Time) CircuitInfo {
	info := CircuitInfo{
		ID: h.id, State: "ready", Route: h.circuit.Route(), Isolation: h.isolation,
		Took: h.circuit.Took(), Age: now.Sub(h.circuit.Began()),
	}
	if h.retired {
		info.State = "closing"
	}
	info.In, info.Out = h.circuit.Bytes()
	for _, s := range h.streams {
		info.Streams = append(info.Streams, StreamInfo{Target: s.target, Took: s.took, Age: now.Sub(s.began)})
	}
	sort.Slice(info.Streams, func(i, j int) bool { return info.Streams[i].Age > info.Streams[j].Age })
	return info
}

// CloseCircuit destroys a circuit and breaks its streams; false if there is none of that ID.
func (p *Proxy) CloseCircuit(id string) bool {
	p.pool.mu.Lock()
	h := p.pool.circuits[id]
	p.pool.mu.Unlock()
	if h == nil {
		return false
	}
	h.circuit.Close()
	return true
}

func (p *pool) begin(r []*netdoc.Relay) *attempt {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	a := &attempt{id: strconv.Itoa(p.next), route: r, began: time.Now()}
	p.building[a.id] = a
	return a
}

func (p *pool) failed(a *attempt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.building, a.id)
}
