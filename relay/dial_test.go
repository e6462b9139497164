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

// names is a resolver with fixed answers; a name it does not have does not exist, "slow.test" never answers.
type names map[string][]netip.Addr

func (n names) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	if host == "slow.test" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	addrs, ok := n[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
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
	resolver := names{
		"public.test":  {netip.MustParseAddr("198.41.0.4")},
		"private.test": {netip.MustParseAddr("10.1.2.3")},
		"mapped.test":  {netip.MustParseAddr("::ffff:10.1.2.3")},
		"nat64.test":   {netip.MustParseAddr("64:ff9b::a01:203")},
		"mixed.test":   {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("198.41.0.4")},
		"none.test":    {},
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
		{"accept *:*", "public.test", wire.ReasonDNS, ""},
		{"accept *:*", "public.test:0", wire.ReasonDNS, ""},
		{"accept *:*", "public.test:65536", wire.ReasonDNS, ""},
		{"accept *:*", ":80", wire.ReasonDNS, ""},
	} {
		var address string
		cfg := &Config{Resolver: resolver, Dial: func(_ context.Context, _, a string) (net.Conn, error) {
			address = a
			here, there := net.Pipe()
			there.Close()
			return here, nil
		}}
		if test.policy != "" {
			cfg.Policy = policy(t, test.policy)
		}
		conn, reason := newDialer(cfg).dial(t.Context(), test.target)
		if conn != nil {
			conn.Close()
		}
		if reason != test.reason || address != test.address {
			t.Errorf("%q, %s: dialled %q, %v; want %q, %v", test.policy, test.target, address, reason, test.address, test.reason)
		}
	}
}

// TestNoExitAsksNobody checks that a relay whose policy rejects everything resolves no names.
func TestNoExitAsksNobody(t *testing.T) {
	d := newDialer(&Config{Resolver: resolverFunc(func(string) { t.Error("the resolver was asked") })})
	if conn, reason := d.dial(t.Context(), "public.test:80"); conn != nil || reason != wire.ReasonPolicy {
		t.Errorf("got %v, %v; want the exit policy's refusal", conn, reason)
	}
}

type resolverFunc func(host string)

func (f resolverFunc) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	f(host)
	return nil, errors.New("no answer")
}

// TestSilentAddress checks that the addresses of a name share the time: one that swallows packets leaves
// enough of it for the next, and only so many are tried.
func TestSilentAddress(t *testing.T) {
	var many []netip.Addr
	for i := range byte(10) {
		many = append(many, netip.AddrFrom4([4]byte{198, 41, 0, i + 1}))
	}
	for _, test := range []struct {
		addrs  []netip.Addr
		after  time.Duration // the last address answers
		dialed int
		reason wire.Reason
	}{
		{many[:2], dialTimeout / 2, 2, 0},
		{many[:4], 3 * dialTimeout / 4, 4, 0},
		{many, dialTimeout, maxAddresses, wire.ReasonTimeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			last, dialed := netip.AddrPortFrom(test.addrs[len(test.addrs)-1], 80).String(), 0
			d := newDialer(&Config{
				Policy:   policy(t, "accept *:*"),
				Resolver: names{"many.test": test.addrs},
				Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
					if dialed++; address == last {
						here, there := net.Pipe()
						there.Close()
						return here, nil
					}
					<-ctx.Done()
					return nil, ctx.Err()
				},
			})
			began := time.Now()
			conn, reason := d.dial(t.Context(), "many.test:80")
			if took := time.Since(began); reason != test.reason || took != test.after || dialed != test.dialed {
				t.Errorf("%d addresses: %v after %v and %d dials, want %v after %v and %d", len(test.addrs), reason, took, dialed, test.reason, test.after, test.dialed)
			}
			if conn != nil {
				conn.Close()
			}
		})
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
	if conn, reason := d.dial(t.Context(), l.Addr().String()); conn != nil || reason != wire.ReasonPolicy {
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
			d := newDialer(&Config{Policy: policy(t, "accept *:*"), Resolver: names{}, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}})
			began := time.Now()
			if _, reason := d.dial(t.Context(), test.target); reason != wire.ReasonTimeout {
				t.Errorf("%s: %v, want time-out", test.target, reason)
			}
			if took := time.Since(began); took != test.after {
				t.Errorf("%s: after %v, want %v", test.target, took, test.after)
			}
		})
	}
}
