package relay

import (
	"net"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
)

// stall builds a circuit through relays 0 and 1 whose client reads nothing, and asks for more than its
// windows hold.
func (b *bed) stall() *link.Stream {
	b.t.Helper()
	s, codec := b.build(0, 1)
	cell := make([]byte, wire.TagSize, wire.CellSize)
	for i := range 12 {
		cell = wire.AppendMessage(cell, wire.CmdBegin, uint16(2*i+1), wire.AppendBegin(nil, wire.KindTCP, "198.41.0.4:80"))
	}
	cell = cell[:wire.CellSize]
	codec.Seal(cell)
	if _, err := s.Write(cell); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// sendForever is a destination that sends until it is closed.
func sendForever(_ *destination, there net.Conn) {
	go func() {
		for err := error(nil); err == nil; {
			_, err = there.Write(make([]byte, 16<<10))
		}
	}()
}

func (s *stalls) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocked.Len()
}

// TestStalledLongestGoesFirst stalls one circuit more than a relay has room for: the one that is stalled
// longest is reset when that is noticed, the others when their time is over.
func TestStalledLongestGoesFirst(t *testing.T) {
	onBed(t, 2, exitTo(t, sendForever), func(b *bed) {
		const apart = 20 * time.Second
		relay := b.relays[0]
		relay.stalls = newStalls(2)
		var circuits []*link.Stream
		for range 3 {
			circuits = append(circuits, b.stall())
			<-time.After(apart)
			if n := len(circuits); n < 3 && relay.Circuits() != n {
				t.Errorf("%d circuits of %d are left", relay.Circuits(), n)
			}
		}
		alive := func(s *link.Stream) bool {
			_, err := s.Write([]byte{1}) // of a cell that never comes
			return err == nil
		}
		if alive(circuits[0]) || !alive(circuits[1]) || !alive(circuits[2]) || relay.Circuits() != 2 {
			t.Errorf("left are %v, %v, %v, %d in all", alive(circuits[0]), alive(circuits[1]), alive(circuits[2]), relay.Circuits())
		}
		if n := relay.stalls.count(); n != 2 {
			t.Errorf("%d count as stalled", n)
		}
		<-time.After(stallTimeout - apart + time.Second)
		if alive(circuits[1]) || relay.Circuits() > 1 {
			t.Errorf("%d circuits outlive the time-out", relay.Circuits())
		}
		<-time.After(apart)
		if n := relay.stalls.count(); n != 0 || relay.Circuits() != 0 {
			t.Errorf("%d count as stalled at the end, %d circuits are left", n, relay.Circuits())
		}
	})
}

// TestSlowIsNotStalled: a circuit whose client reads slowly, but reads, is never counted.
func TestSlowIsNotStalled(t *testing.T) {
	onBed(t, 2, exitTo(t, sendForever), func(b *bed) {
		b.relays[0].stalls = newStalls(0)
		s := b.stall()
		for range 50 {
			<-time.After(2 * time.Second)
			if n, err := s.Read(make([]byte, 32<<10)); err != nil || n == 0 {
				t.Errorf("a slow circuit was reset: %v", err)
				break
			}
		}
		s.Reset(wire.ResetDestroyed)
	})
}
