package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
)

// ownAddress returns an address of this machine that is not loopback, if it has one.
func ownAddress(t *testing.T) (string, bool) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, ok := a.(*net.IPNet); ok && p.IP.To4() != nil && !p.IP.IsLoopback() {
			return p.IP.String(), true
		}
	}
	return "", false
}

// TestListeners tries every way to name a listener of this process that a resolver or a dialler somewhere
// understands.
func TestListeners(t *testing.T) {
	var l Listeners
	l.Add(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9050})
	l.Add(&net.UnixAddr{Name: "/run/socks", Net: "unix"})
	own := []string{
		"127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "127.0.0.1.",
		"localhost", "LocalHost", "localhost.", "sub.localhost", "a.b.localhost.",
		"[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::1%lo]", // IPv6
		"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:0.0.0.0]", // IPv4-mapped
		"[::127.0.0.1]", "[::7f00:2]", // IPv4-compatible
		"[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", // NAT64
		"[::ffff:0:127.0.0.1]",                                                                                         // IPv4-translated
		"[64:ff9b:1:7f00:0:100::]", "[64:ff9b:1:77f:0:1::]", "[64:ff9b:1:1:7f:0:100:0]", "[64:ff9b:1:a:b:c:127.0.0.1]", // NAT64 for local use: /48, /56, /64, /96
		"[2002:7f00:1::1]", "[2002:7f05:5:5::]", // 6to4
		"[2001:0:c000:201:0:1234:80ff:fffe]",                                                   // Teredo
		"[fe80::5efe:127.0.0.1]", "[2001:db8::200:5efe:7f00:1]", "[fe80::5efe:127.0.0.1%eth0]", // ISATAP
		"2130706433", "0x7f000001", "0X7F000001", "017700000001", // one number
		"127.1", "127.0.1", "0x7f.1", "0177.1", "127.0x0.0x1", "0177.0.0.01", "0x7f.0.0.0x1", // inet_aton
		"0", "0.0", "00", "0x0", "127.65535",
	}
	if addr, ok := ownAddress(t); ok {
		b := netip.MustParseAddr(addr).As4()
		own = append(own, addr, "[::ffff:"+addr+"]", "[64:ff9b::"+addr+"]", "[64:ff9b:1::"+addr+"]", "[fe80::5efe:"+addr+"]",
			fmt.Sprintf("[2002:%02x%02x:%02x%02x::]", b[0], b[1], b[2], b[3]),
			fmt.Sprintf("[2001::%02x%02x:%02x%02x]", ^b[0], ^b[1], ^b[2], ^b[3]))
	}
	for _, host := range own {
		if !l.HasTarget(host + ":9050") {
			t.Errorf("%s:9050 gets around it", host)
		}
		if l.HasTarget(host + ":9051") {
			t.Errorf("%s:9051 is no listener", host)
		}
	}
	for _, host := range []string{
		"198.41.0.4", "example.com", "localhost.example.com", "notlocalhost", "126.255.255.255", "128.0.0.1",
		"[2001:500:2::c]", "[64:ff9b::198.41.0.4]", "[::ffff:198.41.0.4]",
		"[::ffff:0:198.41.0.4]", "[64:ff9b:1::198.41.0.4]", "[2002:c629:4::1]", "[2002:c629:4::7f00:1]", "[2001::39d6:fffb]",
		"[2001:0:7f00:1::39d6:fffb]", "[2001:db8::5efe:198.41.0.4]", "[2001:db8::7f00:1]", "3324575748", "0xc6290004",
		"127.0.0.0.1", "127.0.0.256", "127.16777216", "4294967296", "0b1", "0o177.0.0.1", "127.0.0.1_0", "1_27.0.0.1",
		"127..1", "0x", "089.0.0.1", "",
	} {
		if l.HasTarget(host + ":9050") {
			t.Errorf("%s:9050 is kept from who wants it", host)
		}
	}
	for _, target := range []string{"127.0.0.1", "127.0.0.1:", "127.0.0.1:socks", "127.0.0.1:70000", "::1:9050", ""} {
		if l.HasTarget(target) {
			t.Errorf("%q is no target", target)
		}
	}
}

// TestListenersHasAddr checks what an exit of this process asks, about the very address that it dials.
func TestListenersHasAddr(t *testing.T) {
	var l Listeners
	if l.HasAddr(netip.MustParseAddrPort("127.0.0.1:9050")) || l.HasTarget("127.0.0.1:9050") {
		t.Error("the zero value knows a listener")
	}
	l.Add(&net.TCPAddr{IP: net.IPv6zero, Port: 9050})
	for addr, want := range map[string]bool{
		"127.0.0.1:9050": true, "127.9.9.9:9050": true, "0.0.0.0:9050": true, "[::1]:9050": true, "[::]:9050": true,
		"[::ffff:127.0.0.1]:9050": true, "[64:ff9b::7f00:1]:9050": true, "[::1%lo]:9050": true,
		"[2002:7f00:1::]:9050": true, "[fe80::5efe:7f00:1%eth0]:9050": true,
		"127.0.0.1:9051": false, "198.41.0.4:9050": false, "[2001:500:2::c]:9050": false,
	} {
		if got := l.HasAddr(netip.MustParseAddrPort(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}

// FuzzListeners checks that no spelling of a loopback address that the standard library reads gets around it.
func FuzzListeners(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "127.1", "0x7f.1", "::1", "::ffff:127.0.0.1", "localhost", "1.2.3.4"} {
		f.Add(s)
	}
	var l Listeners
	l.Add(&net.TCPAddr{Port: 9050})
	f.Fuzz(func(t *testing.T, host string) {
		got := l.HasTarget(net.JoinHostPort(host, "9050"))
		if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() && !got {
			t.Errorf("%q gets around it", host)
		}
	})
}
