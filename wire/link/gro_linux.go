package link

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// With UDP_GRO the kernel joins datagrams of equal length that arrive from one sender one behind the other,
// and hands them over in one piece: one walk through its network stack, and one system call, for many of
// them (udp(7)). quic-go does not ask for it, but reads by a socket's own ReadBatch if it has one.

const (
	joinedSize  = 64 << 10 // the most that the kernel joins
	joinedBatch = 4        // read at a time: a call costs more than the rest of such a piece
	oobSize     = 128      // as quic-go's: ECN, the local address, and here the length of a datagram
)

// joining is a UDP socket that reads joined datagrams and gives them out one by one. Reading is for one
// goroutine, as quic-go does it; all else is the socket's.
type joining struct {
	*net.UDPConn
	packets *ipv4.PacketConn // of both families, whatever it is called
	pieces  []ipv4.Message   // as read
	at      int              // the first piece that is not given out whole
	rest    []byte           // what is left of it
	segment int              // the length of its datagrams
}

// joinDatagrams returns a socket that reads faster, or conn itself where that can't be had.
func joinDatagrams(conn net.PacketConn) net.PacketConn {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return conn
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return conn
	}
	var refused error
	err = raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	})
	if err != nil || refused != nil {
		return conn
	}
	return &joining{UDPConn: udp, packets: ipv4.NewPacketConn(udp)}
}

// ReadBatch fills ms with one datagram each and returns how many there are, at least one unless it fails.
func (j *joining) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for len(j.rest) == 0 {
		if err := j.readPieces(flags); err != nil {
			return 0, err
		}
	}
	n := 0
	for n < len(ms) && len(j.rest) > 0 {
		j.give(&ms[n])
		n++
	}
	return n, nil
}

// readPieces waits for datagrams.
func (j *joining) readPieces(flags int) error {
	if j.pieces == nil {
		j.pieces = make([]ipv4.Message, joinedBatch)
		for i := range j.pieces {
			j.pieces[i] = ipv4.Message{Buffers: [][]byte{make([]byte, joinedSize)}, OOB: make([]byte, oobSize)}
		}
	}
	all := j.pieces[:joinedBatch]
	n, err := j.packets.ReadBatch(all, flags)
	if err != nil {
		return err
	}
	j.pieces, j.at = all[:n], -1
	j.nextPiece()
	return nil
}

// nextPiece goes on to the next piece that has bytes. An empty datagram carries nothing for QUIC.
func (j *joining) nextPiece() {
	for j.at++; j.at < len(j.pieces); j.at++ {
		if m := &j.pieces[j.at]; m.N > 0 {
			j.rest = m.Buffers[0][:m.N]
			j.segment = segmentSize(m.OOB[:m.NN], m.N)
			return
		}
	}
}

// give takes the next datagram out; the last one of a piece may be shorter.
func (j *joining) give(to *ipv4.Message) {
	from := &j.pieces[j.at]
	size := min(j.segment, len(j.rest))
	to.N = copy(to.Buffers[0], j.rest[:size])
	to.NN = copy(to.OOB, from.OOB[:from.NN])
	to.Flags, to.Addr = from.Flags, from.Addr
	if j.rest = j.rest[size:]; len(j.rest) == 0 {
		j.nextPiece()
	}
}

// segmentSize reads the length of the joined datagrams out of a piece's control messages; a piece without
// one is a single datagram of n bytes.
func segmentSize(oob []byte, n int) int {
	for len(oob) > 0 {
		header, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if header.Level == unix.IPPROTO_UDP && header.Type == unix.UDP_GRO && len(body) >= 4 {
			if size := int(int32(binary.NativeEndian.Uint32(body))); size > 0 {
				return size
			}
		}
		oob = rest
	}
	return n
}
