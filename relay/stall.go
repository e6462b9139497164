package relay

import (
	"container/list"
	"errors"
	"os"
	"sync"
	"time"

	"torproxy/wire/link"
)

// stalls bounds what circuits hold in memory whose cells nobody takes: the relay stops reading such a
// circuit, but what its window had allowed comes all the same. Both ends of an honest circuit always drain
// it, so when too many are stalled at a time, those that have been so longest are reset first (section 2
// of SPEC.md). It is safe for concurrent use.
type stalls struct {
	most int

	mu      sync.Mutex
	blocked list.List // of func(): the circuits' ends, in the order in which they were noticed
}

func newStalls(most int) *stalls { return &stalls{most: most} }

// write writes cells within stallTimeout. A write that is noticed to be blocked may have its circuit ended,
// by end, to make room for others'.
func (s *stalls) write(to *link.Stream, cells []byte, end func()) error {
	began := time.Now()
	to.SetWriteDeadline(began.Add(stallNotice))
	n, err := to.Write(cells)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	entry := s.enter(end)
	defer s.leave(entry)
	to.SetWriteDeadline(began.Add(stallTimeout))
	_, err = to.Write(cells[n:])
	return err
}

// enter notes a blocked circuit, and ends the one that has been blocked longest if there are too many.
func (s *stalls) enter(end func()) *list.Element {
	s.mu.Lock()
	entry := s.blocked.PushBack(end)
	var endLongest func()
	if s.blocked.Len() > s.most {
		endLongest = s.blocked.Remove(s.blocked.Front()).(func())
	}
	s.mu.Unlock()
	if endLongest != nil {
		endLongest()
	}
	return entry
}

// leave forgets a circuit; it may be forgotten already.
func (s *stalls) leave(entry *list.Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked.Remove(entry)
}
