//go:build clients && linux

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// cable is the only way out of a machine, and reads every packet that comes out of it. The kernel's own
// messages about the cable (ARP, neighbours, groups) and its answers to packets that come too late do not count.
type cable struct {
	file  *os.File
	relay func(netip.AddrPort) bool // reports whether this is a relay or an authority
	ended chan struct{}

	mu     sync.Mutex
	seen   escaped
	marks  map[string]chan struct{} // by what a packet carries
	marked int
}

// escaped is what came out of the cable for some time.
type escaped struct {
	links  int      // packets to relays and authorities: as it should be
	names  []string // packets that ask some server for a name
	others []string // everything else
}

// leaks are all packets that should not be.
func (e escaped) leaks() []string { return append(e.names[:len(e.names):len(e.names)], e.others...) }

const (
	ethernetHeader = 14
	markPort       = 9 // discard
)

// watchCable reads what comes out of an interface of this process's network, until the test's end.
func watchCable(t *testing.T, name string, relay func(netip.AddrPort) bool) *cable {
	t.Helper()
	device, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	everything := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(everything))
	if err != nil {
		t.Fatalf("reading packets: %v", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: device.Index}); err != nil {
		t.Fatalf("reading packets of %s: %v", name, err)
	}
	c := &cable{file: os.NewFile(uintptr(fd), name), relay: relay, ended: make(chan struct{}), marks: map[string]chan struct{}{}}
	go c.read()
	t.Cleanup(func() {
		c.file.Close()
		<-c.ended
	})
	return c
}

func (c *cable) read() {
	defer close(c.ended)
	raw, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	packet := make([]byte, 1<<16)
	for {
		var n int
		var from unix.Sockaddr
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, from, failed = unix.Recvfrom(int(fd), packet, 0)
			return failed != unix.EAGAIN
		})
		if err != nil {
			return // it was closed
		}
		if l, ok := from.(*unix.SockaddrLinklayer); failed == nil && ok && l.Pkttype != unix.PACKET_OUTGOING && n > ethernetHeader {
			c.look(binary.BigEndian.Uint16(packet[ethernetHeader-2:]), packet[ethernetHeader:n])
		}
	}
}

// look counts one packet.
func (c *cable) look(kind uint16, packet []byte) {
	p, ok := parsePacket(kind, packet)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch to := p.to.Port(); {
	case p.protocol == unix.IPPROTO_UDP && to == markPort && c.marks[string(p.data)] != nil:
		close(c.marks[string(p.data)])
		delete(c.marks, string(p.data))
	case p.protocol == unix.IPPROTO_UDP && c.relay(p.to):
		c.seen.links++
	case to == 53 || to == 853 || to == 5353 || to == 5355:
		c.seen.names = append(c.seen.names, p.String())
	default:
		c.seen.others = append(c.seen.others, p.String())
	}
}

// ipPacket is a packet of a program.
type ipPacket struct {
	protocol byte
	to       netip.AddrPort // port 0: it has none
	data     []byte         // of UDP
}

func (p ipPacket) String() string {
	s := fmt.Sprintf("protocol %d to %s", p.protocol, p.to)
	var m dnsmessage.Message
	if p.protocol == unix.IPPROTO_UDP && m.Unpack(p.data) == nil {
		for _, q := range m.Questions {
			s += fmt.Sprintf(", about %s %s", strings.TrimPrefix(q.Type.String(), "Type"), q.Name)
		}
	}
	return s
}

// parsePacket reads an Ethernet frame's payload; false: it is none of a program's.
func parsePacket(kind uint16, b []byte) (p ipPacket, ok bool) {
	var body []byte
	var to netip.Addr
	switch {
	case kind == unix.ETH_P_IP && len(b) >= 20 && len(b) >= int(b[0]&15)*4:
		p.protocol, body = b[9], b[int(b[0]&15)*4:]
		to, _ = netip.AddrFromSlice(b[16:20])
	case kind == unix.ETH_P_IPV6 && len(b) >= 40:
		p.protocol, body = b[6], b[40:]
		to, _ = netip.AddrFromSlice(b[24:40])
	default:
		return p, false
	}
	var port uint16
	switch p.protocol {
	case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ICMPV6, unix.IPPROTO_IGMP, unix.IPPROTO_ICMP:
		return p, false
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		if len(body) < 8 {
			return p, false
		}
		port, p.data = binary.BigEndian.Uint16(body[2:]), body[8:]
	}
	p.to = netip.AddrPortFrom(to, port)
	return p, true
}

// since returns what has come out since the last call, up to what h sends now: a packet of its own has to
// come out first.
func (c *cable) since(h *host, world string) escaped {
	h.t.Helper()
	c.mu.Lock()
	c.marked++
	text, came := fmt.Sprintf("packet %d of the test", c.marked), make(chan struct{})
	c.marks[text] = came
	c.mu.Unlock()
	err := h.inside(func() error {
		conn, err := net.Dial("udp", net.JoinHostPort(world, fmt.Sprint(markPort)))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte(text))
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	select {
	case <-came:
	case <-time.After(patience):
		h.t.Fatalf("the test's own packet has not come out of the cable after %v", patience)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = escaped{}
	return seen
}

// TestParsePacket makes sure that the cable can tell one packet from another.
func TestParsePacket(t *testing.T) {
	v4 := func(protocol byte, rest string) []byte {
		return []byte("\x45\x00\x00\x1c\x00\x00\x00\x00\x40" + string([]byte{protocol}) + "\x00\x00\x0a\x4d\x00\x02\xc6\x33\x64\x35" + rest)
	}
	v6 := func(protocol byte, rest string) []byte {
		return []byte("\x60\x00\x00\x00\x00\x08" + string([]byte{protocol}) + "\x40" + strings.Repeat("\x00", 16) +
			"\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x35" + rest)
	}
	const udp = "\x30\x39\x00\x35\x00\x08\x00\x00"
	for _, c := range []struct {
		kind   uint16
		packet []byte
		want   string // "" is none of a program's
	}{
		{unix.ETH_P_IP, v4(unix.IPPROTO_UDP, udp), "protocol 17 to 198.51.100.53:53"},
		{unix.ETH_P_IP, v4(unix.IPPROTO_TCP, udp), "protocol 6 to 198.51.100.53:53"},
		{unix.ETH_P_IP, v4(unix.IPPROTO_SCTP, udp), "protocol 132 to 198.51.100.53:0"},
		{unix.ETH_P_IPV6, v6(unix.IPPROTO_UDP, udp), "protocol 17 to [2001:db8::35]:53"},
		{unix.ETH_P_IP, v4(unix.IPPROTO_ICMP, udp), ""},
		{unix.ETH_P_IPV6, v6(unix.IPPROTO_ICMPV6, udp), ""},
		{unix.ETH_P_ARP, v4(unix.IPPROTO_UDP, udp), ""},
		{unix.ETH_P_IP, nil, ""},
		{unix.ETH_P_IP, v4(unix.IPPROTO_UDP, udp[:7]), ""},
	} {
		p, ok := parsePacket(c.kind, c.packet)
		if ok != (c.want != "") || ok && p.String() != c.want {
			t.Errorf("%x: got %v, %v, want %s", c.packet, p, ok, c.want)
		}
	}
}
