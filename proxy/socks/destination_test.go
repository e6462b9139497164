package socks

import (
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	socks5 "github.com/armon/go-socks5"
)

func TestDestination(t *testing.T) {
	name := func(s string) *socks5.AddrSpec { return &socks5.AddrSpec{FQDN: s, Port: 80} }
	addr := func(s string) *socks5.AddrSpec { return &socks5.AddrSpec{IP: net.ParseIP(s), Port: 80} }
	tests := []struct {
		in   *socks5.AddrSpec
		want string
		err  error
	}{
		{in: name("web.test"), want: "web.test:80"},
		{in: name("WEB.TEST."), want: "web.test.:80"},
		{in: name("localhost"), want: "localhost:80"},
		{in: name("_dmarc.a-b.x9"), want: "_dmarc.a-b.x9:80"},
		{in: name("1.2.3.4.example"), want: "1.2.3.4.example:80"},
		{in: name("0xg"), want: "0xg:80"},
		{in: name(strings.Repeat("a", 255)), want: strings.Repeat("a", 255) + ":80"},

		{in: addr("192.0.2.1"), want: "192.0.2.1:80"},
		{in: addr("::ffff:192.0.2.1"), want: "192.0.2.1:80"},
		{in: addr("2001:db8::1"), want: "[2001:db8::1]:80"},
		{in: name("192.0.2.1"), want: "192.0.2.1:80"},
		{in: name("::ffff:c000:201"), want: "192.0.2.1:80"},
		{in: name("2001:DB8:0:0::1"), want: "[2001:db8::1]:80"},
		{in: name("[2001:db8::1]"), want: "[2001:db8::1]:80"},

		{in: &socks5.AddrSpec{FQDN: "a", Port: 1}, want: "a:1"},
		{in: &socks5.AddrSpec{FQDN: "a", Port: 65535}, want: "a:65535"},
		{in: &socks5.AddrSpec{FQDN: "a", Port: 0}, err: errPort},
		{in: &socks5.AddrSpec{FQDN: "a", Port: 65536}, err: errPort},
		{in: &socks5.AddrSpec{FQDN: "a", Port: -1}, err: errPort},

		{in: name(""), err: errHost},
		{in: &socks5.AddrSpec{IP: net.IP{1, 2, 3}, Port: 80}, err: errHost},
		{in: name(strings.Repeat("a", 256)), err: errHost},
		{in: name("."), err: errHost},
		{in: name(".a"), err: errHost},
		{in: name("a..b"), err: errHost},
		{in: name("a.."), err: errHost},
		{in: name("a b"), err: errHost},
		{in: name("a\x00"), err: errHost},
		{in: name("a\n"), err: errHost},
		{in: name("a:80"), err: errHost},
		{in: name("a/b"), err: errHost},
		{in: name("user@a"), err: errHost},
		{in: name("*.a"), err: errHost},
		{in: name("bücher.test"), err: errHost},
		{in: name("\xff"), err: errHost},
		{in: name("[a]"), err: errHost},
		{in: name("[192.0.2.1]"), err: errHost},
		{in: name("[::1"), err: errHost},
		{in: name("::1]"), err: errHost},
		{in: name("[[::1]]"), err: errHost},
		{in: name("::1::"), err: errHost},

		{in: name("fe80::1%eth0"), err: errZone},
		{in: name("[fe80::1%25eth0]"), err: errZone},

		{in: name("2130706433"), err: errHost},
		{in: name("127.1"), err: errHost},
		{in: name("127.0.0.1."), err: errHost},
		{in: name("0177.0.0.1"), err: errHost},
		{in: name("127.0.0.01"), err: errHost},
		{in: name("0x7f000001"), err: errHost},
		{in: name("0X7F.1"), err: errHost},
		{in: name("a.0x"), err: errHost},
		{in: name("web.test.80"), err: errHost},
	}
	for _, tt := range tests {
		got, err := destination(tt.in)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q %v %d: %q, %v; want %q, %v", tt.in.FQDN, tt.in.IP, tt.in.Port, got, err, tt.want, tt.err)
		}
	}
}

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?$`)
	numberForm = regexp.MustCompile(`(^|\.)([0-9]+|0x[0-9a-f]*)\.?$`)
)

// checkTarget is what Request promises of a Target, said in another way than destination says it.
func checkTarget(t *testing.T, target string) {
	t.Helper()
	host, port, err := net.SplitHostPort(target)
	if err != nil || net.JoinHostPort(host, port) != target {
		t.Fatalf("target %q: %v", target, err)
	}
	if !regexp.MustCompile(`^[1-9][0-9]{0,4}$`).MatchString(port) {
		t.Fatalf("target %q: port", target)
	}
	if ap, err := netip.ParseAddrPort(target); err == nil {
		if ap.String() != target || ap.Addr().Zone() != "" || ap.Addr().Is4In6() {
			t.Fatalf("target %q is not canonical", target)
		}
	} else if len(host) > 255 || !nameForm.MatchString(host) || numberForm.MatchString(host) {
		t.Fatalf("target %q: name", target)
	}
}

func FuzzDestination(f *testing.F) {
	for _, s := range []string{"", "a", "web.test.", "A.b_c-d", "1.2.3.4", "[::1]", "::ffff:1.2.3.4", "fe80::1%a", "127.1", "0x7f", "a..b", "\x00"} {
		f.Add(s, []byte(nil), 80)
	}
	f.Add("", []byte{127, 0, 0, 1}, 65535)
	f.Add("", []byte(net.IPv6loopback), 1)
	f.Fuzz(func(t *testing.T, name string, ip []byte, port int) {
		target, err := destination(&socks5.AddrSpec{FQDN: name, IP: ip, Port: port})
		if err != nil {
			if target != "" {
				t.Fatalf("a target with an error: %q, %v", target, err)
			}
			return
		}
		checkTarget(t, target)
		host, _, _ := net.SplitHostPort(target)
		again, err := destination(&socks5.AddrSpec{FQDN: host, Port: port})
		if again != target || err != nil {
			t.Fatalf("%q becomes %q, %v", target, again, err)
		}
	})
}
