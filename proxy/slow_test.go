package proxy

import (
	"io"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/wire/link"
	"torproxy/wire/onion"
)

// slowed is a circuit's stream that what the exit writes to it gets through only after a while.
type slowed struct {
	*link.Stream
	by *atomic.Int64
}

func (s slowed) Write(p []byte) (int, error) {
	<-time.After(time.Duration(s.by.Load()))
	return s.Stream.Write(p)
}

// TestSlowCircuit slows circuits down while they are in use. One that has become slow takes no new streams,
// and keeps those that it has; where all are slow, they are not replaced one after the other.
func TestSlowCircuit(t *testing.T) {
	var by atomic.Int64
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		e.serve = func(s *link.Stream, keys *onion.HopKeys) { e.sessionOver(slowed{s, &by}, keys) }
	}, func(b *bed) {
		use := func() {
			b.dial("a").Close()
			<-time.After(10 * time.Second)
		}
		long := b.dial("a")
		first := b.circuitOf("a")
		carries := func() string {
			conn := b.dial("a")
			defer conn.Close()
			return b.circuitOf("a")
		}
		for range 2 * slowRow {
			use()
		}
		by.Store(int64(slowLeast / 2))
		for range 2 * slowRow {
			use()
		}
		if carries() != first {
			t.Error("a circuit that is as quick as it was is not used any more")
		}
		by.Store(int64(2 * slowLeast))
		<-time.After(10 * time.Second)
		for range slowRow {
			use()
		}
		second := carries()
		if second == first {
			t.Errorf("after %d slow answers the circuit is still used", slowRow)
		}
		if _, err := long.Write([]byte("still here")); err != nil {
			t.Errorf("the open stream: %v", err)
		}
		if _, err := io.ReadFull(long, make([]byte, 10)); err != nil {
			t.Errorf("the open stream: %v", err)
		}
		for range slowRow - 1 {
			use()
		}
		if carries() != second {
			t.Errorf("the next circuit, which is as slow, is replaced within %v", slowPause)
		}
	})
}
