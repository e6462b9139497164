package relay

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// TestMachine checks that the machine's own addresses, however public, are dialled only where the policy
// allows 127.0.0.1, and that new ones are known after a while.
func TestMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here := []net.Addr{&net.IPNet{IP: net.IPv4(198, 41, 0, 4), Mask: net.CIDRMask(24, 32)}}
		m := newMachine([]netip.AddrPort{netip.MustParseAddrPort("198.41.0.9:9001")})
		var failed error
		m.interfaces = func() ([]net.Addr, error) { return here, failed }
		check := func(policyText, target string, want error) {
			t.Helper()
			d := newDialer(&Config{Policy: policy(t, policyText)})
			d.machine = m
			if got := d.judge(netip.MustParseAddrPort(target)); !errors.Is(got, want) {
				t.Errorf("%s, %s: %v, want %v", policyText, target, got, want)
			}
		}
		check("accept *:*", "198.41.0.4:80", errPolicy)
		check("accept *:*", "198.41.0.9:80", errPolicy)
		check("accept *:*", "198.41.0.5:80", nil)
		check("accept *:*,accept private:*", "198.41.0.4:80", nil)
		check("accept *:*,accept 127.0.0.1:443", "198.41.0.4:80", errPolicy)
		check("accept *:*,accept 127.0.0.1:80", "198.41.0.4:80", nil)
		here = append(here, &net.IPNet{IP: net.ParseIP("2001:500:2::c"), Mask: net.CIDRMask(64, 128)})
		<-time.After(machineLife)
		check("accept *:*", "[2001:500:2::c]:80", errPolicy)
		<-time.After(machineLife)
		failed = errors.New("no list")
		check("accept *:*", "198.41.0.5:80", errPolicy)
		check("accept *:*,accept private:*", "198.41.0.5:80", nil)
	})
}

// TestMachineIsRead reads the list of the machine that the test runs on.
func TestMachineIsRead(t *testing.T) {
	if its, err := newMachine(nil).has(netip.MustParseAddr("127.0.0.1")); !its || err != nil {
		t.Errorf("127.0.0.1 is not this machine's: %v", err)
	}
	d := newDialer(&Config{Policy: policy(t, "accept *:*")})
	if conn, reason := dialOnce(t, d, "127.0.0.1:80"); conn != nil || reason != wire.ReasonPolicy {
		t.Errorf("got %v, %v", conn, reason)
	}
}
