package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// zone is a resolver with fixed answers; a name it does not have does not exist, "slow.test." never answers.
type zone map[string][]netip.Addr

func (z zone) LookupNetIP(ctx context.Context, network, host string) (addrs []netip.Addr, err error) {
	if host == "slow.test." {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, a := range z[host] {
		if a.Is4() == (network == "ip4") {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

func (z zone) LookupAddr(context.Context, string) ([]string, error) {
	return nil, errors.New("not asked")
}

// resolverFunc is a resolver of addresses.
type resolverFunc func(ctx context.Context, network, host string) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return f(ctx, network, host)
}

func (f resolverFunc) LookupAddr(context.Context, string) ([]string, error) {
	return nil, errors.New("not asked")
}

// dialOnce dials for a circuit of its own.
func dialOnce(t *testing.T, d *dialer, target string) (net.Conn, wire.Reason) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	n := d.names(ctx)
	defer n.close()
	defer cancel()
	return d.dial(ctx, n, target)
}

// answering is a connection to a destination that has closed it.
func answering() net.Conn {
	here, there := net.Pipe()
	there.Close()
	return here
}

func policy(t *testing.T, s string) netdoc.Policy {
	t.Helper()
	p, err := netdoc.ParsePolicy(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDialDecision checks which addresses are dialled for which targets, and the reason when none is.
func TestDialDecision(t *testing.T) {
	resolver := zone{
		"public.test.":  {netip.MustParseAddr("198.41.0.4")},
		"private.test.": {netip.MustParseAddr("10.1.2.3")},
		"mapped.test.":  {netip.MustParseAddr("::ffff:10.1.2.3")},
		"nat64.test.":   {netip.MustParseAddr("64:ff9b::a01:203")},
		"mixed.test.":   {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("198.41.0.4")},
		"none.test.":    {},
	}
	const dialled = wire.Reason(0)
	for _, test := range []struct {
		policy, target string
		reason         wire.Reason
		address        string
	}{
		{"accept *:*", "public.test:80", dialled, "198.41.0.4:80"},
		{"accept *:*", "198.41.0.4:80", dialled, "198.41.0.4:80"},
		{"accept *:*", "[2001:500:2::c]:443", dialled, "[2001:500:2::c]:443"},
		{"accept *:*", "[::ffff:198.41.0.4]:80", dialled, "198.41.0.4:80"},
		{"accept *:*", "private.test:80", wire.ReasonPolicy, ""},
		{"accept *:*", "mapped.test:80", wire.ReasonPolicy, ""},
		{"accept *:*", "nat64.test:80", wire.ReasonPolicy, ""},
		{"accept *:*", "127.0.0.1:80", wire.ReasonPolicy, ""},
		{"accept *:*", "0.0.0.0:80", wire.ReasonPolicy, ""},
		{"accept *:*", "[fe80::1%25lo]:80", wire.ReasonPolicy, ""},
		{"accept *:*", "mixed.test:80", dialled, "198.41.0.4:80"},
		{"accept private:*", "private.test:80", dialled, "10.1.2.3:80"},
		{"accept *:443", "public.test:80", wire.ReasonPolicy, ""},
		{"", "public.test:80", wire.ReasonPolicy, ""},
		{"accept *:*", "missing.test:80", wire.ReasonDNS, ""},
		{"accept *:*", "none.test:80", wire.ReasonDNS, ""},
		{"accept *:*", "2130706433:80", wire.ReasonDNS, ""},
		{"accept *:*", "PUBLIC.Test.:80", dialled, "198.41.0.4:80"},
		{"accept *:*", "localhost:80", wire.ReasonPolicy, ""},
		{"accept private:*", "a.localhost:80", dialled, "[::1]:80"},
		{"accept *:*", "public.test", wire.ReasonDNS, ""},
		{"accept *:*", "public.test:0", wire.ReasonDNS, ""},
		{"accept *:*", "public.test:65536", wire.ReasonDNS, ""},
		{"accept *:*", ":80", wire.ReasonDNS, ""},
	} {
		var address string
		cfg := &Config{Resolver: resolver, Dial: func(_ context.Context, _, a string) (net.Conn, error) {
			address = a
			return answering(), nil
		}}
		if test.policy != "" {
			cfg.Policy = policy(t, test.policy)
		}
		conn, reason := dialOnce(t, newDialer(cfg), test.target)
		if conn != nil {
			conn.Close()
		}
		if reason != test.reason || address != test.address {
			t.Errorf("%q, %s: dialled %q, %v; want %q, %v", test.policy, test.target, address, reason, test.address, test.reason)
		}
	}
}

// TestAsksNobody checks which names are not given to any resolver.
func TestAsksNobody(t *testing.T) {
	for _, test := range []struct {
		policy, host string
		reason       wire.Reason
	}{
		{"", "public.test", wire.ReasonPolicy}, // no exit
		{"accept *:*", "2130706433", wire.ReasonDNS},
		{"accept *:*", "127.1", wire.ReasonDNS},
		{"accept *:*", "0x7f000001", wire.ReasonDNS},
		{"accept *:*", "0x7f.1.", wire.ReasonDNS},
		{"accept *:*", "example.09", wire.ReasonDNS},
		{"accept *:*", "127.0.0.1.", wire.ReasonDNS},
		{"accept *:*", "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion", wire.ReasonDNS},
		{"accept *:*", "www.example.Onion.", wire.ReasonDNS},
		{"accept *:*", ".", wire.ReasonDNS},
		{"accept *:*", "a/b", wire.ReasonDNS},
		{"accept *:*", "localhost", wire.ReasonPolicy},
	} {
		d := newDialer(&Config{Policy: policy(t, test.policy), Resolver: resolverFunc(func(_ context.Context, _, host string) ([]netip.Addr, error) {
			t.Errorf("the resolver was asked for %q", host)
			return nil, errors.New("no answer")
		})})
		if conn, reason := dialOnce(t, d, test.host+":80"); conn != nil || reason != test.reason {
			t.Errorf("%s: got %v, %v; want %v", test.host, conn, reason, test.reason)
		}
	}
}

// TestControl checks that the address given to the kernel is judged again: here the policy's answer
// changes between the two, as a resolver's might.
func TestControl(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := 0
	d := newDialer(&Config{Policy: policy(t, "accept private:*"), Own: func(netip.AddrPort) bool {
		asked++
		return asked > 1
	}})
	if conn, reason := dialOnce(t, d, l.Addr().String()); conn != nil || reason != wire.ReasonPolicy {
		t.Errorf("got %v, %v; want the exit policy's refusal", conn, reason)
	}
	if asked != 2 {
		t.Errorf("judged %d times, want twice", asked)
	}
}

// TestReasons checks what the client is told of each kind of failure.
func TestReasons(t *testing.T) {
	for _, test := range []struct {
		err  error
		want wire.Reason
	}{
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, wire.ReasonRefused},
		{hostErrors[0], wire.ReasonHostUnreachable},
		{networkErrors[0], wire.ReasonNetUnreachable},
		{context.DeadlineExceeded, wire.ReasonTimeout},
		{os.ErrDeadlineExceeded, wire.ReasonTimeout},
		{errPolicy, wire.ReasonPolicy},
		{errors.New("connection refused"), wire.ReasonInternal}, // words decide nothing
	} {
		if got := reasonOf(test.err); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
}

// TestSlowDestinations checks the time-outs exactly.
func TestSlowDestinations(t *testing.T) {
	for _, test := range []struct {
		target string
		after  time.Duration
	}{{"slow.test:80", resolveTimeout}, {"198.41.0.4:80", dialTimeout}} {
		synctest.Test(t, func(t *testing.T) {
			d := newDialer(&Config{Policy: policy(t, "accept *:*"), Resolver: zone{}, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}})
			began := time.Now()
			if _, reason := dialOnce(t, d, test.target); reason != wire.ReasonTimeout {
				t.Errorf("%s: %v, want time-out", test.target, reason)
			}
			if took := time.Since(began); took != test.after {
				t.Errorf("%s: after %v, want %v", test.target, took, test.after)
			}
		})
	}
}
