package netdoc

import (
	"net/netip"
	"strings"
	"testing"
)

// Policies by their canonical form; one that is refused, by "!" and a part of the reason.
var policyTexts = map[string]string{
	"":                             "",
	"  \t":                         "",
	"accept *:*":                   "accept *:*",
	" accept   *:80 ":              "accept *:80",
	"accept *:80,reject *:*":       "accept *:80,reject *:*",
	"accept *:80 ,\n reject *:*":   "accept *:80,reject *:*",
	"accept private:*,accept *:*":  "accept private:*,accept *:*",
	"accept *:80-80":               "accept *:80",
	"accept *:1-65535":             "accept *:*",
	"accept *:0443":                "!not a number",
	"accept *:8000-9000":           "accept *:8000-9000",
	"accept 10.0.0.0/8:80":         "accept 10.0.0.0/8:80",
	"accept 10.0.0.1/32:80":        "accept 10.0.0.1:80",
	"accept 0.0.0.0/0:*":           "accept 0.0.0.0/0:*",
	"accept [2001:db8::]/32:*":     "accept [2001:db8::]/32:*",
	"accept [2001:DB8:0:0::1]:443": "accept [2001:db8::1]:443",
	"accept [2001:db8::1]/128:443": "accept [2001:db8::1]:443",
	"accept [::]/0:1-1024":         "accept [::]/0:1-1024",
	"accept [64:ff9b::8.8.8.8]:53": "accept [64:ff9b::808:808]:53",
	"reject 192.0.2.7:22":          "reject 192.0.2.7:22",
	"accept":                       "!not of the form",
	"accept *":                     "!no ports",
	"accept *:":                    "!not a number",
	"accept * :80":                 "!not of the form",
	"accept *:*,":                  "!not of the form",
	",accept *:*":                  "!not of the form",
	"accept *:*,,reject *:*":       "!not of the form",
	"accept *:*;reject *:*":        "!not of the form",
	"Accept *:*":                   "!neither accept nor reject",
	"allow *:*":                    "!neither accept nor reject",
	"accept6 *:*":                  "!neither accept nor reject",
	"*:*":                          "!not of the form",
	"accept *:0":                   "!ports are 1 to 65535",
	"accept *:0-80":                "!ports are 1 to 65535",
	"accept *:90-80":               "!ports are 1 to 65535",
	"accept *:65536":               "!not a number",
	"accept *:-80":                 "!not a number",
	"accept *:80-":                 "!not a number",
	"accept *:+80":                 "!not a number",
	"accept *:80-90-100":           "!not a number",
	"accept *:http":                "!not a number",
	"accept *:８０":                  "!not a number",
	"accept example.com:80":        "!no address",
	"accept localhost:80":          "!no address",
	"accept Private:80":            "!no address",
	"accept private/8:80":          "!no address",
	"accept */0:80":                "!no address",
	"accept 127.1:80":              "!no address",
	"accept 2130706433:80":         "!no address",
	"accept 0x7f000001:80":         "!no address",
	"accept 0177.0.0.1:80":         "!no address",
	"accept 127.000.000.001:80":    "!no address",
	"accept 127.0.0.1.:80":         "!no address",
	"accept 256.0.0.1:80":          "!no address",
	"accept 10.0.0.1/8:80":         "!the prefix is 10.0.0.0/8",
	"accept 10.0.0.0/33:80":        "!prefix length",
	"accept 10.0.0.0/08:80":        "!prefix length",
	"accept 10.0.0.0/-1:80":        "!prefix length",
	"accept 10.0.0.0/255.0.0.0:80": "!prefix length",
	"accept 10.0.0.0/:80":          "!prefix length",
	"accept [2001:db8::1]/32:80":   "!the prefix is 2001:db8::/32",
	"accept [2001:db8::/32]:80":    "!a bracket is missing",
	"accept [2001:db8::]/129:80":   "!prefix length",
	"accept 2001:db8::1:80":        "!stand in brackets",
	"accept 2001:db8::/32:80":      "!stand in brackets",
	"accept [10.0.0.1]:80":         "!stand in brackets",
	"accept [2001:db8::1:80":       "!a bracket is missing",
	"accept 2001:db8::1]:80":       "!no address",
	"accept [[2001:db8::1]]:80":    "!no address",
	"accept [2001:db8::1]":         "!no ports",
	"accept [::ffff:10.0.0.1]:80":  "!IPv4-mapped",
	"accept [::ffff:0:0]/96:80":    "!IPv4-mapped",
	"accept [fe80::1%eth0]:80":     "!zone",
	"accept [fe80::1%25eth0]:80":   "!zone",
	"accept 10.0.0.1%lo:80":        "!no address",
	manyRules(MaxPolicyRules):      manyRules(MaxPolicyRules),
	manyRules(MaxPolicyRules + 1):  "!more than 64 rules",
	strings.Repeat("accept *:80 ,", 1) + strings.Repeat(" ", 9000) + "reject *:*": "accept *:80,reject *:*",
}

func TestParsePolicy(t *testing.T) {
	for in, want := range policyTexts {
		p, err := ParsePolicy(in)
		if reason, bad := strings.CutPrefix(want, "!"); bad {
			refusal(t, in, err, reason)
			continue
		}
		if err != nil || p.String() != want {
			t.Errorf("%q: got %q, %v; want %q", in, p, err, want)
			continue
		}
		if again, err := ParsePolicy(want); err != nil || !again.Equal(p) {
			t.Errorf("%q: its canonical form reads as %q, %v", in, again, err)
		}
	}
}

// Addresses by class. None of the special ones may be reached through "*", however it is spelt.
var (
	publicAddrs = strings.Fields(`1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
		169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0
		198.17.255.255 198.20.0.0 198.51.99.1 203.0.112.1 223.255.255.255 ::ffff:8.8.8.8 ::ffff:808:808
		2000::1 2001:200::1 2001:4860:4860::8888 2001:db7::1 2001:db9::1 2600::1 2a00:1450::1 3ffe::1 3fff:1000::
		64:ff9b::8.8.8.8 2002:808:808::1`)
	specialAddrs = strings.Fields(`0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255
		169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255
		198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
		:: ::1 ::127.0.0.1 ::8.8.8.8 ::10.0.0.1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:0.0.0.0 ::ffff:0:8.8.8.8
		::fffe:7f00:1 100::1 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::192.168.1.1 64:ff9b::169.254.169.254 64:ff9b::
		64:ff9b:1::1 64:ff9b:1::8.8.8.8 64:ff9b:1:ffff:ffff:ffff:808:808 64:ff9b:2::1 64:ff9b:0:0:0:1:808:808 1fff:ffff::
		2001::1 2001:0:7f00:1::1 2001:2::1 2001:10::1 2001:20::1 2001:1ff::1
		2001:db8::1 2001:db8:ffff::1 2002:7f00:1::1 2002:a00:1:: 2002:c0a8:101::1 2002:: 2002:a9fe:a9fe::1 3fff::1 3fff:fff::1
		4000::1 5f00::1 8000::1 fc00::1 fd12:3456::1 fe80::1 fec0::1 ff02::1 ffff::1`)
)

func TestStarNeverIncludesSpecialAddresses(t *testing.T) {
	for policy, wants := range map[string][2]bool{ // public, special
		"":                                   {false, false},
		"accept *:*":                         {true, false},
		"accept *:443":                       {true, false},
		"accept 0.0.0.0/0:*,accept [::]/0:*": {true, false},
		"accept private:*":                   {false, true},
		"accept private:*,accept *:*":        {true, true},
		"accept *:*,accept private:*":        {true, true},
		"reject private:*,accept *:*":        {true, false},
		"reject *:*,accept private:*":        {false, true},
		"reject *:*":                         {false, false},
		"reject 0.0.0.0/0:*,reject [::]/0:*,accept private:*,accept *:*": {false, false},
		"accept *:80,accept private:80":                                  {false, false},
		"accept *:1-442,accept *:444-9000":                               {false, false},
	} {
		p := mustPolicy(policy)
		for i, list := range [2][]string{publicAddrs, specialAddrs} {
			for _, addr := range list {
				if got := p.Allows(netip.AddrPortFrom(netip.MustParseAddr(addr), 443)); got != wants[i] {
					t.Errorf("%q: %s: %v, want %v", policy, addr, got, wants[i])
				}
			}
		}
	}
	for i, list := range [2][]string{publicAddrs, specialAddrs} {
		for _, addr := range list {
			if got := IsSpecial(netip.MustParseAddr(addr)); got != (i == 1) {
				t.Errorf("%s: special: %v", addr, got)
			}
		}
	}
	if !IsSpecial(netip.Addr{}) || !IsSpecial(netip.MustParseAddr("fe80::1%eth0")) || !IsSpecial(netip.MustParseAddr("::ffff:10.0.0.1%eth0")) {
		t.Error("no address, or one with a zone, is not special")
	}
}

func TestPolicyAllows(t *testing.T) {
	for _, c := range []struct {
		policy string
		to     string
		want   bool
	}{
		{"accept *:80", "8.8.8.8:80", true},
		{"accept *:80", "8.8.8.8:81", false},
		{"accept *:80-90", "8.8.8.8:79", false},
		{"accept *:80-90", "8.8.8.8:80", true},
		{"accept *:80-90", "8.8.8.8:90", true},
		{"accept *:80-90", "8.8.8.8:91", false},
		{"accept *:*", "8.8.8.8:0", false},
		{"accept *:*", "8.8.8.8:65535", true},
		{"reject *:25,accept *:*", "8.8.8.8:25", false},
		{"accept *:*,reject *:25", "8.8.8.8:25", true},
		// Naming a special address or range reaches it, and nothing beside it.
		{"accept 127.0.0.1:80", "127.0.0.1:80", true},
		{"accept 127.0.0.1:80", "[::ffff:127.0.0.1]:80", true},
		{"accept 127.0.0.1:80", "127.0.0.2:80", false},
		{"accept 10.0.0.0/8:*", "10.1.2.3:80", true},
		{"accept 10.0.0.0/8:*", "[::ffff:10.1.2.3]:80", true},
		{"accept 10.0.0.0/8:*", "[64:ff9b::10.1.2.3]:80", false},
		{"accept 10.0.0.0/8:*", "[2002:a01:203::1]:80", false},
		{"accept 10.0.0.0/7:*", "10.1.2.3:80", false}, // 11.0.0.0/8 in it is public
		{"accept 10.0.0.0/7:*", "11.1.2.3:80", true},
		{"accept [::1]:80", "[::1]:80", true},
		{"accept [::1]:80", "127.0.0.1:80", false},
		{"accept [fc00::]/7:*", "[fd00::1]:80", true},
		{"accept [8000::]/1:*", "[fd00::1]:80", true}, // all of it is special
		{"accept [::]/0:*", "[fd00::1]:80", false},
		{"accept [::]/0:*", "8.8.8.8:80", false},
		{"accept 0.0.0.0/0:*", "[2600::1]:80", false},
		{"accept 0.0.0.0/0:*", "[::ffff:8.8.8.8]:80", true},
		// What carries an IPv4 address answers for it, named or not.
		{"accept [64:ff9b::]/96:*", "[64:ff9b::8.8.8.8]:80", false},
		{"accept [64:ff9b::]/96:*,accept 8.0.0.0/8:*", "[64:ff9b::8.8.8.8]:80", true},
		{"accept [64:ff9b::]/96:*,accept *:*", "[64:ff9b::10.0.0.1]:80", false},
		{"accept [64:ff9b::a00:0]/104:*", "[64:ff9b::10.0.0.1]:80", false},
		{"accept [64:ff9b::a00:0]/104:*,accept 10.0.0.1:80", "[64:ff9b::10.0.0.1]:80", true},
		{"reject 8.8.8.8:*,accept *:*", "[64:ff9b::8.8.8.8]:80", false},
		{"reject 8.8.8.8:*,accept *:*", "[2002:808:808::1]:80", false},
		{"reject 8.8.8.8:*,accept *:*", "[::ffff:8.8.8.8]:80", false},
		{"reject [64:ff9b::]/96:*,accept *:*", "[64:ff9b::8.8.8.8]:80", false},
		{"accept [2002::]/16:*,accept *:*", "[2002:7f00:1::1]:80", false},
		{"accept [2002:a00::]/24:*,accept private:*", "[2002:a00:1::1]:80", true},
		{"accept [2001::]/32:*", "[2001:0:808:808::f7f7:f7f7]:80", false},
		{"accept *:*", "[2001:0:808:808::f7f7:f7f7]:80", false},
		{"accept [2001::]/32:*,accept *:*", "[2001:0:808:808::f7f7:f7f7]:80", true},  // server and client 8.8.8.8
		{"accept [2001::]/32:*,accept *:*", "[2001:0:808:808::80ff:fffe]:80", false}, // client 127.0.0.1
		{"accept [2001::]/32:*,accept *:*", "[2001:0:7f00:1::f7f7:f7f7]:80", false},  // server 127.0.0.1
		{"reject private:*,accept 127.0.0.1:80", "127.0.0.1:80", false},
		{"accept private:*", "[fe80::1%eth0]:80", false},
		{"accept private:*,accept *:*", "[::ffff:127.0.0.1%eth0]:80", false},
		{"accept private:*,accept *:*", "[::ffff:8.8.8.8%eth0]:80", false},
	} {
		if got := mustPolicy(c.policy).Allows(netip.MustParseAddrPort(c.to)); got != c.want {
			t.Errorf("%q: %s: %v, want %v", c.policy, c.to, got, c.want)
		}
	}
	if mustPolicy("accept private:*,accept *:*").Allows(netip.AddrPort{}) {
		t.Error("no address is accepted")
	}
}

func TestPolicyForNames(t *testing.T) {
	for _, c := range []struct {
		policy string
		exit   bool // IsExit
		port80 bool // AllowsPort(80)
	}{
		{"", false, false},
		{"reject *:*", false, false},
		{"accept *:*", true, true},
		{"accept *:80", true, true},
		{"accept *:443", true, false},
		{"accept private:*", true, false},
		{"accept 127.0.0.1:*", true, false},
		{"accept 8.8.8.0/24:*", true, false},
		{"accept 93.184.216.34:80", true, false},
		{"accept 8.8.8.8:*,accept *:443", true, false},
		{"accept 8.8.8.8:*,accept *:80", true, true},
		{"accept 0.0.0.0/1:*", true, true}, // of the other half a quarter is special
		{"accept 128.0.0.0/1:*", true, false},
		{"accept 128.0.0.0/1:*,accept 64.0.0.0/2:*", true, true},
		{"accept 0.0.0.0/0:443", true, false},
		{"accept 0.0.0.0/4:*,accept 0.0.0.0/2:*,accept 32.0.0.0/3:*", true, false}, // what is named twice counts once
		{"reject 0.0.0.0/1:*,accept 0.0.0.0/0:*", true, false},
		{"reject 128.0.0.0/1:*,accept 0.0.0.0/0:*", true, true},
		{"reject 0.0.0.0/1:*,reject 128.0.0.0/1:*,accept 0.0.0.0/0:*", true, false},
		{"reject 0.0.0.0/0:*,accept *:*", true, true}, // by IPv6
		{"reject [::]/0:*,accept *:*", true, true},
		{"reject 0.0.0.0/0:*,reject [::]/0:*,accept *:*", true, false},
		{"accept [2000::]/3:*", true, true},
		{"accept [2000::]/4:*", true, true}, // of the other half more is special
		{"accept [3000::]/4:*", true, false},
		{"accept [3000::]/4:*,accept [2800::]/5:*", true, true},
		{"accept [2001:4860::]/32:*", true, false},
		{"accept 0.0.0.0/0:*", true, true},
		{"accept [64:ff9b::a00:0]/104:*", true, false},
		{"reject *:80,accept *:*", true, false},
		{"reject *:79-81,accept *:*", true, false},
		{"reject *:81,accept *:*", true, true},
		{"reject *:*,accept *:*", false, false},
		{"reject *:*,accept private:*", true, false},
		{"reject *:*,accept 8.8.8.8:*", false, false},
		{"reject *:*,accept 10.0.0.0/8:*", true, false},
		{"reject private:*,accept private:*", false, false},
		{"reject private:*,accept 10.0.0.0/8:*", false, false},
		{"reject private:*,accept *:*", true, true},
		{"reject 8.0.0.0/8:*,accept 8.8.8.8:*", false, false},
		{"reject 8.8.8.8:*,accept 8.0.0.0/8:*", true, false},
		{"reject 8.8.8.8:*,accept *:*", true, true},
		{"reject 8.0.0.0/8:*,accept *:80", true, true},
		{"accept *:80,reject *:*", true, true},
	} {
		p := mustPolicy(c.policy)
		if p.IsExit() != c.exit || p.AllowsPort(80) != c.port80 {
			t.Errorf("%q: exit %v, port 80 %v; want %v, %v", c.policy, p.IsExit(), p.AllowsPort(80), c.exit, c.port80)
		}
		if p.AllowsPort(0) {
			t.Errorf("%q: port 0 is allowed", c.policy)
		}
	}
}

// IsExit never denies what Allows accepts.
func TestPolicySummaryIsNotTooStrict(t *testing.T) {
	rules := []string{"accept *:80", "reject *:80", "accept private:*", "reject private:80", "accept 8.0.0.0/8:*", "reject 8.8.8.8:80",
		"accept [2600::]/16:80", "reject 10.0.0.0/8:*", "reject 0.0.0.0/0:80", "accept 10.0.0.1:80", "accept [::]/0:80", "accept 0.0.0.0/0:80-90"}
	addrs := append(append([]string{}, publicAddrs...), specialAddrs...)
	for _, a := range rules {
		for _, b := range rules {
			for _, c := range rules {
				p := mustPolicy(a + "," + b + "," + c)
				for _, addr := range addrs {
					to := netip.AddrPortFrom(netip.MustParseAddr(addr), 80)
					if !p.Allows(to) {
						continue
					}
					if !p.IsExit() {
						t.Fatalf("%q accepts %v and is no exit", p, to)
					}
				}
			}
		}
	}
}

// AllowsAddress is checked against asking for every port.
func TestAllowsAddress(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		"accept *:80":                         "198.41.0.4 198.41.0.5 2001:500:2::c",
		"accept private:*":                    "10.0.0.1 127.0.0.1 64:ff9b::a00:1",
		"accept 198.41.0.4:22-23":             "198.41.0.4",
		"reject 198.41.0.4:*,accept *:*":      "198.41.0.5 2001:500:2::c",
		"reject *:1-100,accept *:80-101":      "198.41.0.4 198.41.0.5 2001:500:2::c",
		"reject *:1-100,accept *:80-100":      "",
		"reject *:2-65535,accept *:*":         "198.41.0.4 198.41.0.5 2001:500:2::c",
		"reject *:1-65534,accept *:*":         "198.41.0.4 198.41.0.5 2001:500:2::c",
		"reject 198.41.0.0/24:*,accept *:443": "2001:500:2::c",
	} {
		p, err := ParsePolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range []string{"10.0.0.1", "127.0.0.1", "198.41.0.4", "198.41.0.5", "2001:500:2::c", "64:ff9b::a00:1"} {
			addr, some := netip.MustParseAddr(s), false
			for port := 1; port <= 65535 && !some; port++ {
				some = p.Allows(netip.AddrPortFrom(addr, uint16(port)))
			}
			if p.AllowsAddress(addr) != some {
				t.Errorf("%q: %v: %v, asked for each port %v", text, addr, !some, some)
			}
			if some {
				got = append(got, s)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
