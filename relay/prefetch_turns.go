package relay

import (
	"context"
	"slices"
	"sync"

	"torproxy/relay/pagelinks"
)

// urgent are the kinds of link in the order in which a page cannot be shown without them.
var urgent = [...]pagelinks.Kind{pagelinks.Style, pagelinks.Script, pagelinks.Font, pagelinks.Image, pagelinks.Other}

func urgency(k pagelinks.Kind) int { return slices.Index(urgent[:], k) }

// turns lets so many of a page's links do something at a time: the most urgent first, then in order.
type turns struct {
	mu      sync.Mutex
	free    int
	waiting [len(urgent)][]chan struct{} // each closed when its turn has come
}

// take waits for a turn; false: ctx has ended. With a turn goes leave.
func (t *turns) take(ctx context.Context, urgency int) bool {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return true
	}
	mine := make(chan struct{})
	t.waiting[urgency] = append(t.waiting[urgency], mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return true
	case <-ctx.Done():
	}
	t.mu.Lock()
	queue := t.waiting[urgency]
	at := slices.Index(queue, mine)
	if at >= 0 {
		t.waiting[urgency] = slices.Delete(queue, at, at+1)
	}
	t.mu.Unlock()
	if at < 0 {
		t.leave() // it came at the last moment
	}
	return false
}

// leave gives a turn back, or to the next.
func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, queue := range t.waiting {
		if len(queue) > 0 {
			close(queue[0])
			t.waiting[i] = queue[1:]
			return
		}
	}
	t.free++
}
