package mux

import (
	"sync"
	"sync/atomic"
)

// Budget bounds the unread bytes of many sessions together; it is safe for concurrent use. When they come
// to more, the greediest stream of the greediest session is ended, and so on: who fills the memory of a
// relay pays for it, not who comes next. A nil Budget sets no bound.
type Budget struct {
	limit int64
	used  atomic.Int64

	mu       sync.Mutex // taken before a session's
	sessions map[*Session]struct{}
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget {
	return &Budget{limit: limit, sessions: map[*Session]struct{}{}}
}

// Used returns how many bytes are held now.
func (b *Budget) Used() int64 { return b.used.Load() }

func (b *Budget) add(n int) {
	if b != nil {
		b.used.Add(int64(n))
	}
}

// ample reports whether windows may still grow: less than half is in use.
func (b *Budget) ample() bool { return b == nil || b.used.Load() < b.limit/2 }

func (b *Budget) join(s *Session) {
	if b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sessions[s] = struct{}{}
	}
}

func (b *Budget) leave(s *Session) {
	if b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.sessions, s)
	}
}

// relieve ends streams until the budget holds again. Sessions call it behind each batch of cells, without
// their lock, so the bound is passed by one batch of each at most.
func (b *Budget) relieve() {
	if b == nil || b.used.Load() <= b.limit {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	spared := map[*Session]bool{}
	for b.used.Load() > b.limit {
		greedy := b.greediest(spared)
		if greedy == nil {
			return // what is held belongs to circuits that are gone, and their applications must read it
		}
		if !greedy.shedGreediest() {
			spared[greedy] = true // all it holds is on its way out just now
		}
	}
}

func (b *Budget) greediest(spared map[*Session]bool) (greedy *Session) {
	most := 0
	for s := range b.sessions {
		s.mu.Lock()
		n := s.unread
		s.mu.Unlock()
		if n > most && !spared[s] {
			greedy, most = s, n
		}
	}
	return greedy
}

// shedGreediest ends the stream with the most unread bytes; false if there are none.
func (s *Session) shedGreediest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	greedy := s.greediest()
	if greedy == nil {
		return false
	}
	greedy.shed()
	return true
}
