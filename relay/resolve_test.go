package relay

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// phonebook is a resolver that knows names in both directions, and is slow for IPv6 if told so.
type phonebook struct {
	zone
	hosts map[string][]string
	slow6 time.Duration
}

func (p phonebook) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if network == "ip6" {
		select {
		case <-time.After(p.slow6):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return p.zone.LookupNetIP(ctx, network, host)
}

func (p phonebook) LookupAddr(_ context.Context, addr string) ([]string, error) {
	if hosts, ok := p.hosts[addr]; ok {
		return hosts, nil
	}
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

var book = phonebook{
	zone: zone{
		"public.test.":  {netip.MustParseAddr("2001:500:2::c"), netip.MustParseAddr("198.41.0.4"), netip.MustParseAddr("198.41.0.5")},
		"mixed.test.":   {netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("198.41.0.4"), netip.MustParseAddr("fd00::1")},
		"private.test.": {netip.MustParseAddr("10.1.2.3")},
		"inside.test.":  {netip.MustParseAddr("64:ff9b::a01:203"), netip.MustParseAddr("::ffff:10.1.2.3")},
	},
	hosts: map[string][]string{
		"198.41.0.4":    {"a.example.", "b.example."},
		"2001:500:2::c": {"c.example."},
		"10.1.2.3":      {"printer.corp.example."},
		"198.41.0.9":    {"<script>.example."},
		"198.41.0.10":   {"<script>.example.", "good.example."},
	},
}

// TestResolve checks what is told of which name and address, through a whole circuit.
func TestResolve(t *testing.T) {
	for _, test := range []struct {
		policy, target, want string
		reason               wire.Reason
	}{
		{"accept *:*", "public.test", "198.41.0.4 198.41.0.5 2001:500:2::c", 0},
		{"accept *:*", "Public.TEST.", "198.41.0.4 198.41.0.5 2001:500:2::c", 0},
		{"accept *:443", "mixed.test", "198.41.0.4", 0},
		{"accept private:22,accept *:443", "mixed.test", "10.1.2.3 198.41.0.4 fd00::1", 0},
		{"accept *:*", "private.test", "", wire.ReasonPolicy},
		{"accept *:*", "inside.test", "", wire.ReasonPolicy},
		{"accept *:*", "localhost", "", wire.ReasonPolicy},
		{"accept private:80", "localhost", "127.0.0.1 ::1", 0},
		{"accept *:*", "missing.test", "", wire.ReasonDNS},
		{"accept *:*", "slow.test", "", wire.ReasonTimeout},
		{"accept *:*", "2130706433", "", wire.ReasonDNS},
		{"accept *:*", "public.test:80", "", wire.ReasonDNS},
		{"accept *:*", "[2001:500:2::c]", "", wire.ReasonDNS},
		{"accept *:*", "198.41.0.4", "a.example b.example", 0},
		{"accept *:*", "2001:0500:0002:0::c", "c.example", 0},
		{"accept *:*", "::ffff:198.41.0.4", "a.example b.example", 0},
		{"accept *:*", "198.41.0.200", "", wire.ReasonDNS},
		{"accept *:*", "198.41.0.9", "", wire.ReasonDNS},
		{"accept *:*", "198.41.0.10", "good.example", 0},
		{"accept *:*", "10.1.2.3", "", wire.ReasonPolicy},
		{"accept private:*", "10.1.2.3", "printer.corp.example", 0},
		{"accept *:*", "fe80::1%lo", "", wire.ReasonPolicy},
		{"", "public.test", "", wire.ReasonPolicy},
		{"", "198.41.0.4", "", wire.ReasonPolicy},
	} {
		onBed(t, 1, func(_ int, c *Config) { c.Policy, c.Resolver = policy(t, test.policy), book }, func(b *bed) {
			st, err := b.ask(b.session(0), wire.KindResolve, test.target)
			if test.reason != 0 {
				wantEnd(t, test.target, err, test.reason)
				return
			}
			raw, err := io.ReadAll(st)
			if err != nil {
				t.Errorf("%s: %v", test.target, err)
			}
			answers, err := wire.ParseAnswers(raw)
			if err != nil {
				t.Errorf("%s: %v", test.target, err)
			}
			var got []string
			for _, a := range answers {
				if a.Addr.IsValid() {
					a.Name = a.Addr.String()
				}
				got = append(got, a.Name)
				if a.TTL != nameLife {
					t.Errorf("%s: to be used for %v, want %v", test.target, a.TTL, nameLife)
				}
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("%s: %v, want %v", test.target, got, test.want)
			}
			st.Close()
		})
	}
}

// TestResolveOneFamily lets IPv6 be late: what has come by then is told, and what comes too late is not
// waited for.
func TestResolveOneFamily(t *testing.T) {
	for slow, want := range map[time.Duration]string{
		familyWait - 1:             fmt.Sprint(familyWait-1, "198.41.0.4 198.41.0.5 2001:500:2::c"),
		familyWait + 1:             fmt.Sprint(familyWait, "198.41.0.4 198.41.0.5"),
		resolveTimeout + time.Hour: fmt.Sprint(familyWait, "198.41.0.4 198.41.0.5"),
	} {
		synctest.Test(t, func(t *testing.T) {
			late := book
			late.slow6 = slow
			d := newDialer(&Config{Policy: policy(t, "accept *:*"), Resolver: late})
			ctx, cancel := context.WithCancel(t.Context())
			n := d.names(ctx)
			began := time.Now()
			answers, reason := d.resolve(ctx, n, "public.test")
			var got []string
			for _, a := range answers {
				got = append(got, a.Addr.String())
			}
			if told := fmt.Sprint(time.Since(began), strings.Join(got, " ")); told != want || reason != 0 {
				t.Errorf("IPv6 after %v: %s, %v; want %s", slow, told, reason, want)
			}
			cancel()
			n.close()
		})
	}
}

// TestResolveBound fills the relay with lookups that take long: one more is refused, and all end with their
// streams.
func TestResolveBound(t *testing.T) {
	onBed(t, 1, func(_ int, c *Config) { c.Policy, c.Resolver = policy(t, "accept *:*"), book }, func(b *bed) {
		r, s := b.relays[0], b.session(0)
		r.lookups.Store(maxLookups - 1)
		st, err := s.Open(wire.KindResolve, "slow.test")
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		_, err = b.ask(s, wire.KindResolve, "public.test")
		wantEnd(t, "one lookup too many", err, wire.ReasonResourceLimit)
		st.Close()
		<-time.After(time.Second)
		if got := r.lookups.Load(); got != maxLookups-1 {
			t.Errorf("%d lookups run, want %d", got, maxLookups-1)
		}
	})
}
