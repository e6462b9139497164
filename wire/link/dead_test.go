package link

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/wire"
)

// TestDeadPeerIsNoticed: a relay that dies without a word takes its link and all circuits on it along,
// twelve seconds after its last packet, whether the circuits idle, receive or send.
func TestDeadPeerIsNoticed(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		socket := &countingConn{PacketConn: nw.conns[0]}
		nw.conns[0] = socket
		nw.relay(0, func(c *Config) { c.Circuit = readOrTrickle })
		l := nw.link(nw.client(1), 0)
		idle, receiving, sending := nw.open(l), nw.open(l), nw.open(l)
		idle.Write([]byte("r"))
		receiving.Write([]byte("w"))
		sending.Write([]byte("r"))
		ended := make(chan time.Time, 3)
		until := func(f func(context.Context, *Stream), s *Stream) {
			go func() { f(nil, s); ended <- time.Now() }()
		}
		until(read, idle)
		until(read, receiving)
		until(trickle, sending)
		<-time.After(time.Minute)
		select {
		case <-ended:
			nw.Fatal("a circuit ended while its relay lived")
		default:
		}
		died := time.Now()
		socket.dead.Store(true)
		<-l.Done()
		for range 3 {
			if took := (<-ended).Sub(died); took < idleTimeout || took > keepAlive+idleTimeout+latency {
				nw.Errorf("noticed after %v, want %v to %v", took, idleTimeout, keepAlive+idleTimeout)
			}
		}
		if keepAlive+idleTimeout != 12*time.Second {
			nw.Error("the bound is not twelve seconds")
		}
	})
}

// read reads until the stream ends.
func read(_ context.Context, s *Stream) { io.Copy(io.Discard, s) }

// trickle sends some bytes every 300 ms until the stream ends.
func trickle(_ context.Context, s *Stream) {
	for err := error(nil); err == nil; {
		_, err = s.Write(make([]byte, 1000))
		<-time.After(300 * time.Millisecond)
	}
}

// readOrTrickle does one of the two, as the first byte says.
func readOrTrickle(ctx context.Context, s *Stream) {
	var one [1]byte
	io.ReadFull(s, one[:])
	if one[0] == 'r' {
		read(ctx, s)
	} else {
		trickle(ctx, s)
	}
}

// TestIdleLinkLives, and what that costs is what is said beside keepAlive.
func TestIdleLinkLives(t *testing.T) {
	const stated = 14 // at most, bytes a second in each direction, without UDP's and IP's headers
	inBubble(t, 2, func(nw *network) {
		counted := &countingConn{PacketConn: nw.conns[1]}
		nw.conns[1] = counted
		nw.relay(0, nil)
		l := nw.link(nw.client(1), 0)
		s := nw.open(l)
		nw.ping(s)
		<-time.After(time.Minute)
		sent, received, packets := counted.sent.Load(), counted.received.Load(), counted.packets.Load()
		const idle = time.Hour
		<-time.After(idle)
		seconds := int64(idle / time.Second)
		sent, received, packets = counted.sent.Load()-sent, counted.received.Load()-received, counted.packets.Load()-packets
		if most := stated * seconds; sent > most || received > most || sent+received < most {
			nw.Errorf("%.1f bytes a second sent, %.1f received, in %.2f packets", float64(sent)/float64(seconds),
				float64(received)/float64(seconds), float64(packets)/float64(seconds))
		}
		nw.ping(s)
	})
}

// countingConn counts datagrams' bytes, and sends nothing when it is dead.
type countingConn struct {
	net.PacketConn
	dead                    atomic.Bool
	sent, received, packets atomic.Int64
}

// SetReadBuffer and SetWriteBuffer are there because QUIC complains without them.
func (c *countingConn) SetReadBuffer(int) error  { return nil }
func (c *countingConn) SetWriteBuffer(int) error { return nil }

func (c *countingConn) WriteTo(p []byte, to net.Addr) (int, error) {
	c.sent.Add(int64(len(p)))
	c.packets.Add(1)
	if c.dead.Load() {
		return len(p), nil
	}
	return c.PacketConn.WriteTo(p, to)
}

func (c *countingConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(p)
	c.received.Add(int64(n))
	return n, from, err
}

// TestPartOfCell: circuits whose peer stops in the middle of a cell tie up little.
func TestPartOfCell(t *testing.T) {
	const circuits, each = 300, 8 << 10
	inBubble(t, 2, func(nw *network) {
		var cells atomic.Int64
		nw.relay(0, func(c *Config) {
			c.Circuit = func(_ context.Context, s *Stream) {
				s.ReadCells(func(b []byte) error { cells.Add(int64(len(b) / wire.CellSize)); return nil })
			}
		})
		l := nw.link(nw.client(1), 0)
		var streams []*Stream
		write := func(n int) {
			for _, s := range streams {
				if _, err := s.Write(make([]byte, n)); err != nil {
					nw.Fatal(err)
				}
			}
			<-time.After(time.Second)
		}
		for range circuits {
			streams = append(streams, nw.open(l))
		}
		write(wire.CellSize)
		before := heap()
		write(1)
		if grown := heap() - before; grown > circuits*each {
			nw.Errorf("one byte of a cell ties up %d bytes of a circuit", grown/circuits)
		}
		write(wire.CellSize - 1)
		if n := cells.Load(); n != 2*circuits {
			nw.Errorf("%d cells arrived, want %d", n, 2*circuits)
		}
	})
}

// heap returns the bytes in use that nothing can free.
func heap() int64 {
	runtime.GC()
	runtime.GC() // empties pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
