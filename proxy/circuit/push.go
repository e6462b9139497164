package circuit

import (
	"sync"

	"torproxy/wire"
	"torproxy/wire/mux"
)

// maxPushers is how many streams of a circuit may have streams pushed for them. A page's links are open
// long before sixty-four others have been asked for.
const maxPushers = 64

// pushes knows who takes the streams that the exit pushes. When there is no room for another stream's
// function, that of the oldest is forgotten, and what is pushed for it from then on is refused.
type pushes struct {
	mu     sync.Mutex
	takers [maxPushers]pusher // a ring
	next   int
}

type pusher struct {
	stream uint16
	take   func(*Conn)
}

// open begins a stream and remembers who takes what is pushed for it. It holds the lock over both: the
// exit's answer may be here before the stream's number is known.
func (p *pushes) open(s *mux.Session, kind wire.Kind, target string, take func(*Conn)) (*mux.Stream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st, err := s.Open(kind, target)
	if err == nil {
		p.takers[p.next] = pusher{st.ID(), take}
		p.next = (p.next + 1) % maxPushers
	}
	return st, err
}

// deliver gives a pushed stream to who takes it; it is mux.Config.Pushed.
func (p *pushes) deliver(parent uint16, st *mux.Stream) {
	if take := p.taker(parent); take != nil {
		take(&Conn{stream: st})
		return
	}
	st.End(wire.ReasonUnsupported)
}

func (p *pushes) taker(parent uint16) func(*Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.takers {
		if t.stream == parent {
			return t.take
		}
	}
	return nil
}
