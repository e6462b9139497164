package proxy

import (
	"sort"
	"time"

	"torproxy/wire/netdoc"
)

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
	ID     string // of no other stream of this proxy
	Target string
	Took   time.Duration // to open
	Age    time.Duration
}

// Watch returns a channel that is closed when circuits or streams next come, go or change their state. Take
// it before looking at Circuits. Bytes that flow are no such change.
func (p *Proxy) Watch() <-chan struct{} {
	p.pool.mu.Lock()
	defer p.pool.mu.Unlock()
	if p.pool.watched == nil {
		p.pool.watched = make(chan struct{})
	}
	return p.pool.watched
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
		infos = append(infos, CircuitInfo{ID: a.id, State: "building", Route: a.relays, Age: now.Sub(a.began)})
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Age > infos[j].Age })
	return infos
}

func (h *held) info(now time.Time) CircuitInfo {
	info := CircuitInfo{
		ID: h.id, State: "ready", Route: h.circuit.Route(), Isolation: h.label.isolation,
		Took: h.circuit.Took(), Age: now.Sub(h.circuit.Began()),
	}
	switch {
	case h.retired:
		info.State = "closing"
	case h.guard != nil:
		info.State = "building" // it may not be used yet
	}
	info.In, info.Out = h.circuit.Bytes()
	for _, s := range h.streams {
		info.Streams = append(info.Streams, StreamInfo{ID: s.id, Target: s.target, Took: s.took, Age: now.Sub(s.began)})
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
