package frontdoor

import (
	"strings"
	"testing"

	"torproxy/wire"
)

func TestParseTarget(t *testing.T) {
	long := strings.Repeat("a.", 126) + "a" // 253 bytes
	for in, want := range map[string]string{
		"example.com:443":              "example.com:443",
		"Example.COM:443":              "example.com:443",
		"example.com":                  "example.com:80",
		"example.com.:1":               "example.com.:1",
		"_dmarc.ex-ample.com:65535":    "_dmarc.ex-ample.com:65535",
		"xn--bcher-kva.example:080":    "xn--bcher-kva.example:80",
		"localhost:8118":               "localhost:8118",
		"192.0.2.1:22":                 "192.0.2.1:22",
		"192.0.2.1.:22":                "192.0.2.1:22",
		"2130706433:8118":              "127.0.0.1:8118",
		"0x7f000001:8118":              "127.0.0.1:8118",
		"0X7F.0.0.1:8118":              "127.0.0.1:8118",
		"0177.0.0.01:8118":             "127.0.0.1:8118",
		"127.1:8118":                   "127.0.0.1:8118",
		"127.0.1:8118":                 "127.0.0.1:8118",
		"127.65535:8118":               "127.0.255.255:8118",
		"0:8118":                       "0.0.0.0:8118",
		"0x:8118":                      "0.0.0.0:8118",
		"4294967295:1":                 "255.255.255.255:1",
		"[::1]:8118":                   "[::1]:8118",
		"[::1]":                        "[::1]:80",
		"[2001:DB8:0:0::1]:1":          "[2001:db8::1]:1",
		"[::ffff:127.0.0.1]:8118":      "127.0.0.1:8118",
		"[::ffff:7f00:1]:8118":         "127.0.0.1:8118",
		long + ":1":                    long + ":1",
		"a.0xg:1":                      "a.0xg:1",
		"1e3.example:1":                "1e3.example:1",
		strings.Repeat("a", 63) + ":1": strings.Repeat("a", 63) + ":1",
	} {
		got, err := parseTarget(in, 80)
		if err != nil || got.String() != want {
			t.Errorf("parseTarget(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for _, in := range []string{
		"", ":80", "a:0", "a:00", "a:65536", "a:000080", "a:-1", "a:+1", "a: 1", "a:1x", "a:1:2", "::1:80", "[::1]80", "[::1",
		"[::1]x:80", "[1.2.3.4]:80", "[]:80", "[fe80::1%eth0]:80", "a..b:80", ".a:80", ".:80", "..:80", "a b:80", "a/b:80", "a@b:80", "a%62:80",
		"a!b:80", "b\u00fccher.example:80", "a\x00b:80", "a\nb:80", "256.0.0.1:80", "1.2.3.256:80", "1.2.3.4.5:80", "1.256.3:80", "4294967296:80",
		"08.0.0.1:80", "0x1g.1:80", "a.1:80", "1..2:80", "127.0.0.0x100:80", "-1:80x", strings.Repeat("a", 64) + ":80", strings.Repeat("a.", 127) + "a:80",
	} {
		if got, err := parseTarget(in, 80); err == nil {
			t.Errorf("parseTarget(%q) = %q", in, got)
		}
	}
	for _, in := range []string{"a", "a:", "[::1]", "127.0.0.1"} {
		if got, err := parseTarget(in, 0); err == nil {
			t.Errorf("no port, no default: %q is %q", in, got)
		}
	}
}

// FuzzParseTarget: whatever comes out is canonical, fits into a BEGIN, and has no second spelling.
func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{"example.com:443", "2130706433:8118", "0x7f.1", "[::ffff:127.0.0.1]:1", "[::1]", "a..b:1", "LocalHost.:80", "0x", "1.2.3.4.:5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := parseTarget(in, 80)
		if err != nil {
			return
		}
		s := got.String()
		if again, err := parseTarget(s, 0); err != nil || again != got {
			t.Fatalf("%q is %q, which is %q, %v", in, s, again, err)
		}
		if _, begun, err := wire.ParseBegin(wire.AppendBegin(nil, wire.KindTCP, s)); err != nil || begun != s {
			t.Fatalf("%q is %q, which BEGIN does not take: %v", in, s, err)
		}
		if s != strings.ToLower(s) || got.addr.Is4In6() || got.addr.Zone() != "" || got.port == 0 {
			t.Fatalf("%q is %q, not canonical", in, s)
		}
	})
}
