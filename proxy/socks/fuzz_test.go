package socks

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// FuzzServeConn holds one connection against a second, plain reading of the protocol: the same answer,
// the same request to Dial or none, every byte behind the request carried and given back, and no panic.
func FuzzServeConn(f *testing.F) {
	for _, in := range []string{
		"", "\x05", "\x04\x01", "\x16\x03\x01", "GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x", strings.Repeat("A", maxMethod) + " ", strings.Repeat("A", maxMethod+1) + " ",
		greetNone + connect("web.test", 80),
		greetNone + connect("web.test", 80) + "early data",
		greetLogin + login + connect("[2001:db8::1]", 443) + "x",
		"\x05\x02\x00\x02" + login + connectIPv4,
		"\x05\x02\x01\x80", "\x05\x00",
		greetNone + resolve("web.test"),
		greetNone + resolve("2001:db8::1"),
		greetNone + resolve("a b"),
		greetLogin + login + "\x05\xf1" + connectIPv4[2:],
		greetNone + "\x05\xf1" + connectIPv6[2:],
		greetNone + "\x05\xf1" + connect("web.test", 0)[2:],
		greetNone + connectIPv6,
		greetNone + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00",
		greetNone + "\x05\x01\x00\x05",
		greetNone + connect("", 80),
		greetNone + connect("127.1", 80),
		greetNone + connect("fe80::1%eth0", 80),
		greetLogin + "\x01\x00\x00" + connect("a", 0),
		greetLogin + "\x01\x30\x00",
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > memoryBuffer/2 {
			return
		}
		log := newRecorder(slog.LevelInfo)
		var requests []Request
		cfg := Config{
			Log: slog.New(log),
			Dial: func(ctx context.Context, r Request) (net.Conn, error) {
				requests = append(requests, r)
				checkTarget(t, r.Target)
				return dialEcho(ctx, r)
			},
			Resolve: func(_ context.Context, r Request) ([]netip.Addr, error) {
				requests = append(requests, r)
				checkTarget(t, net.JoinHostPort(r.Target, "1"))
				return []netip.Addr{netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.7")}, nil
			},
			ResolveAddr: func(_ context.Context, r Request) (string, error) {
				requests = append(requests, r)
				checkTarget(t, net.JoinHostPort(r.Target, "1"))
				return "name.test", nil
			},
		}
		out := converse(t, cfg, string(in))
		if log.String() != "" {
			t.Fatal(log)
		}
		p := &plainReading{in: in}
		p.read()
		if p.http {
			if !strings.HasPrefix(out, "HTTP/1.1 501 ") {
				t.Fatalf("answer %q", out)
			}
			return
		}
		if out != p.out.String() {
			t.Fatalf("answer %q, want %q", out, p.out.String())
		}
		if len(requests) > 1 || (len(requests) == 1) != p.asked {
			t.Fatalf("%d requests, want one: %v", len(requests), p.asked)
		}
		for _, r := range requests {
			if r.User != p.user || r.Password != p.password {
				t.Fatalf("by %q with %q, want %q, %q", r.User, r.Password, p.user, p.password)
			}
		}
	})
}

// plainReading is what RFC 1928, RFC 1929 and this package's rules make of a client's bytes.
type plainReading struct {
	in             []byte
	out            bytes.Buffer
	http           bool
	asked          bool // one of Config's functions
	user, password string
}

// take removes n bytes from the input; false if there are not so many.
func (p *plainReading) take(n int) ([]byte, bool) {
	if len(p.in) < n {
		return nil, false
	}
	b := p.in[:n]
	p.in = p.in[n:]
	return b, true
}

// field takes a byte string with its length in front.
func (p *plainReading) field() ([]byte, bool) {
	n, ok := p.take(1)
	if !ok {
		return nil, false
	}
	return p.take(int(n[0]))
}

func (p *plainReading) read() {
	method, _, space := bytes.Cut(p.in, []byte(" "))
	if space && len(method) > 0 && len(method) <= maxMethod && len(bytes.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")) == 0 {
		p.http = true
		return
	}
	version, ok := p.take(1)
	switch {
	case !ok:
	case version[0] == 4:
		p.out.WriteString(socks4Rejected)
	case version[0] == 0x16:
		p.out.WriteString(tlsUnexpected)
	case version[0] == 5:
		methods, ok := p.field()
		if ok && p.authenticate(methods) {
			p.request()
		}
	}
}

func (p *plainReading) authenticate(methods []byte) bool {
	switch {
	case bytes.Contains(methods, []byte{2}):
		p.out.WriteString("\x05\x02")
		version, ok := p.take(1)
		if !ok || version[0] != 1 {
			return false
		}
		user, okUser := p.field()
		password, okPassword := p.field()
		if !okUser || !okPassword {
			return false
		}
		p.user, p.password = string(user), string(password)
		p.out.WriteString("\x01\x00")
		return true
	case bytes.Contains(methods, []byte{0}):
		p.out.WriteString(choseNone)
		return true
	}
	p.out.WriteString("\x05\xff")
	return false
}

func (p *plainReading) request() {
	head, ok := p.take(4)
	if !ok || head[0] != 5 {
		return
	}
	good, addr := true, netip.Addr{} // the destination
	switch head[3] {
	case 1:
		var ip []byte
		ip, ok = p.take(4)
		addr, _ = netip.AddrFromSlice(ip)
	case 4:
		var ip []byte
		ip, ok = p.take(16)
		addr, _ = netip.AddrFromSlice(ip)
	case 3:
		var host []byte
		host, ok = p.field()
		addr, good = plainHost(strings.ToLower(string(host)))
	default:
		p.out.WriteString(failed(8))
		return
	}
	port, okPort := p.take(2)
	switch {
	case !ok || !okPort:
	case head[1] != 1 && head[1] != 0xF0 && head[1] != 0xF1:
		p.out.WriteString(failed(7))
	case !good || head[1] == 1 && port[0] == 0 && port[1] == 0:
		p.out.WriteString(failed(1))
	case head[1] == 1:
		p.asked = true
		p.out.WriteString(connected)
		p.out.Write(p.in)
	default:
		p.lookup(head[1] == 0xF0, addr.Unmap())
	}
}

func (p *plainReading) lookup(ofName bool, addr netip.Addr) {
	switch {
	case ofName && !addr.IsValid():
		p.asked = true
		p.out.WriteString("\x05\x00\x00\x01\xc0\x00\x02\x07\x00\x00")
	case ofName && addr.Is4():
		fmt.Fprintf(&p.out, "\x05\x00\x00\x01%s\x00\x00", addr.AsSlice())
	case ofName:
		fmt.Fprintf(&p.out, "\x05\x00\x00\x04%s\x00\x00", addr.AsSlice())
	case addr.IsValid():
		p.asked = true
		p.out.WriteString("\x05\x00\x00\x03\x09name.test\x00\x00")
	default:
		p.out.WriteString(failed(8))
	}
}

// plainHost reports whether a name in lower case is a destination, and which address if it is one.
func plainHost(name string) (netip.Addr, bool) {
	in := strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	addr, err := netip.ParseAddr(in)
	switch {
	case err != nil:
		return addr, nameForm.MatchString(name) && !numberForm.MatchString(name)
	case in != name:
		return addr, name == "["+in+"]" && addr.Is6() && addr.Zone() == ""
	default:
		return addr, addr.Zone() == ""
	}
}
