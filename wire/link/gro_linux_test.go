package link

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// control makes a control message with an integer in it.
func control(level, kind int32, value uint64, size int) []byte {
	b := make([]byte, unix.CmsgSpace(size))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	var v [8]byte
	binary.NativeEndian.PutUint64(v[:], value)
	copy(b[unix.CmsgLen(0):][:size], v[:])
	return b
}

func TestSegmentSize(t *testing.T) {
	ecn := control(unix.IPPROTO_IP, unix.IP_TOS, 2, 1)
	gro := control(unix.IPPROTO_UDP, unix.UDP_GRO, 1200, 4)
	for _, c := range []struct {
		name string
		oob  []byte
		want int
	}{
		{"none", nil, 5000},
		{"another", ecn, 5000},
		{"alone", gro, 1200},
		{"behind another", append(bytes.Clone(ecn), gro...), 1200},
		{"zero", control(unix.IPPROTO_UDP, unix.UDP_GRO, 0, 4), 5000},
		{"negative", control(unix.IPPROTO_UDP, unix.UDP_GRO, 1<<32-1, 4), 5000},
		{"cut", gro[:len(gro)-9], 5000},
	} {
		if got := segmentSize(c.oob, 5000); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestJoinedDatagrams sends bursts that the kernel joins, a short datagram at the end of each, and reads
// them through fewer messages than a burst has.
func TestJoinedDatagrams(t *testing.T) {
	sender, receiver := udpSocket(t), udpSocket(t)
	conn, ok := joinDatagrams(receiver).(*joining)
	if !ok {
		t.Fatal("this kernel does not join datagrams: it is older than Linux 5.0")
	}
	const size, burst, bursts = 1000, 10, 20
	var want [][]byte
	for b := range bursts {
		piece := make([]byte, 0, size*burst)
		for i := range burst {
			d := bytes.Repeat([]byte{byte(b), byte(i)}, size/2)
			if i == burst-1 {
				d = d[:size/3]
			}
			piece, want = append(piece, d...), append(want, d)
		}
		oob := control(unix.IPPROTO_UDP, unix.UDP_SEGMENT, size, 2)
		if _, _, err := sender.WriteMsgUDP(piece, oob, receiver.LocalAddr().(*net.UDPAddr)); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for len(want) > 0 {
		ms := make([]ipv4.Message, 3)
		for i := range ms {
			ms[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 1452)}, OOB: make([]byte, oobSize)}
		}
		n, err := conn.ReadBatch(ms, 0)
		if err != nil || n == 0 || n > len(want) {
			t.Fatalf("%d datagrams, %v, with %d to come", n, err, len(want))
		}
		for _, m := range ms[:n] {
			if !bytes.Equal(m.Buffers[0][:m.N], want[0]) {
				t.Fatalf("a datagram of %d bytes is not the one of %d that was sent", m.N, len(want[0]))
			}
			if m.Addr.String() != sender.LocalAddr().String() {
				t.Fatalf("from %v, sent from %v", m.Addr, sender.LocalAddr())
			}
			want = want[1:]
		}
	}
	if conn.segment != size {
		t.Errorf("datagrams of %d bytes, sent were %d: the kernel joined none", conn.segment, size)
	}
}

func udpSocket(t *testing.T) *net.UDPConn {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A socket that is not UDP of the kernel stays as it is.
func TestJoinOtherSockets(t *testing.T) {
	if conn := (net.PacketConn)(&struct{ net.PacketConn }{}); joinDatagrams(conn) != conn {
		t.Error("another socket was replaced")
	}
}
