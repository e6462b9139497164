package frontdoor

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
)

// reservoir is the body of a pushed reply between its stream, which fills it, and the client who reads it.
// Until somebody reads it holds at most maxReservoir bytes, afterwards a buffer's worth: who fills it waits
// then, and the stream's window holds the exit.
type reservoir struct {
	all   *atomic.Int64 // bytes in all reservoirs
	ended func()        // called once after take, when nobody reads any more

	mu    sync.Mutex
	moved sync.Cond
	held  bytes.Buffer
	err   error // the end, when held is empty: io.EOF, or what broke
	taken bool
	over  bool // nobody will read any more
}

func newReservoir(all *atomic.Int64, ended func()) *reservoir {
	r := &reservoir{all: all, ended: ended}
	r.moved.L = &r.mu
	return r
}

// put adds bytes, and the end if err is not nil. It waits for room, and reports false when there will be no
// more: nobody reads, or nobody does yet and all reservoirs together are full.
func (r *reservoir) put(p []byte, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.over && (!r.taken && r.held.Len() >= maxReservoir || r.taken && r.held.Len() >= bufferSize) {
		r.moved.Wait()
	}
	if !r.over && !r.taken && r.all.Load()+int64(len(p)) > maxPushBytes {
		r.err = io.ErrUnexpectedEOF // somebody may take it in this moment
		r.moved.Broadcast()
		return false
	}
	if r.over {
		return false
	}
	r.held.Write(p)
	r.all.Add(int64(len(p)))
	r.err = err
	r.moved.Broadcast()
	return true
}

// take says that somebody reads.
func (r *reservoir) take() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken = true
	r.moved.Broadcast()
}

// Read waits for bytes, or for the end.
func (r *reservoir) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.over && r.held.Len() == 0 && r.err == nil {
		r.moved.Wait()
	}
	switch {
	case r.over:
		return 0, io.ErrClosedPipe
	case r.held.Len() == 0:
		return 0, r.err
	}
	n, _ := r.held.Read(p)
	r.all.Add(-int64(n))
	r.moved.Broadcast()
	return n, nil
}

// abandon says that nobody reads any more. It may be called again.
func (r *reservoir) abandon() {
	r.mu.Lock()
	first := !r.over
	r.over = true
	r.all.Add(-int64(r.held.Len()))
	r.held = bytes.Buffer{}
	r.moved.Broadcast()
	taken := r.taken
	r.mu.Unlock()
	if first && taken {
		r.ended()
	}
}
