package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// never is a delay that no test waits for.
const never = time.Hour

// eyeballs is the world as one race sees it: when lookups and connections answer, and how.
type eyeballs struct {
	v6, v4   []string // the name's addresses
	ask6     time.Duration
	ask4     time.Duration
	connects map[string]time.Duration // by address; one that is not here refuses at once
	wins     string
	reason   wire.Reason
	after    time.Duration
	dialled  string // each address with the milliseconds from the beginning, in order
}

func (e *eyeballs) lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	list, delay := e.v6, e.ask6
	if network == "ip4" {
		list, delay = e.v4, e.ask4
	}
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var addrs []netip.Addr
	for _, a := range list {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if addrs == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// TestHappyEyeballs checks, exactly, which addresses are tried when, and which one wins.
func TestHappyEyeballs(t *testing.T) {
	const a6, b6, c6, a4, b4 = "2001:500:2::a", "2001:500:2::b", "2001:500:2::c", "198.41.0.1", "198.41.0.2"
	const ms = time.Millisecond
	for name, e := range map[string]eyeballs{
		"IPv6 answers": {
			v6: []string{a6}, v4: []string{a4}, connects: map[string]time.Duration{a6: 30 * ms, a4: 10 * ms},
			wins: a6, after: 30 * ms, dialled: "[" + a6 + "]@0",
		},
		"IPv6 is slow: IPv4 is tried beside it": {
			v6: []string{a6}, v4: []string{a4}, connects: map[string]time.Duration{a6: 400 * ms, a4: 30 * ms},
			wins: a4, after: 280 * ms, dialled: "[" + a6 + "]@0 " + a4 + "@250",
		},
		"IPv6 is slow, and yet first": {
			v6: []string{a6}, v4: []string{a4}, connects: map[string]time.Duration{a6: 260 * ms, a4: 30 * ms},
			wins: a6, after: 260 * ms, dialled: "[" + a6 + "]@0 " + a4 + "@250",
		},
		"IPv6 fails: IPv4 at once": {
			v6: []string{a6}, v4: []string{a4}, connects: map[string]time.Duration{a4: 30 * ms},
			wins: a4, after: 30 * ms, dialled: "[" + a6 + "]@0 " + a4 + "@0",
		},
		"the families take turns": {
			v6: []string{a6, b6, c6}, v4: []string{a4, b4}, connects: map[string]time.Duration{a6: never, a4: never, b6: never, b4: 20 * ms},
			wins: b4, after: 770 * ms, dialled: "[" + a6 + "]@0 " + a4 + "@250 [" + b6 + "]@500 " + b4 + "@750",
		},
		"so many and no more": {
			v6: []string{a6, b6, c6}, v4: []string{a4, b4}, connects: map[string]time.Duration{a6: never, a4: never, b6: never, b4: never, c6: 0},
			reason: wire.ReasonTimeout, after: dialTimeout, dialled: "[" + a6 + "]@0 " + a4 + "@250 [" + b6 + "]@500 " + b4 + "@750",
		},
		"the IPv6 lookup is a little late": {
			v6: []string{a6}, v4: []string{a4}, ask6: 60 * ms, ask4: 20 * ms, connects: map[string]time.Duration{a6: 0, a4: 0},
			wins: a6, after: 60 * ms, dialled: "[" + a6 + "]@60",
		},
		"the IPv6 lookup is lost": {
			v4: []string{a4}, ask6: never, ask4: 20 * ms, connects: map[string]time.Duration{a4: 0},
			wins: a4, after: 70 * ms, dialled: a4 + "@70",
		},
		"the IPv6 lookup comes while IPv4 is tried": {
			v6: []string{a6}, v4: []string{a4, b4}, ask6: 100 * ms, connects: map[string]time.Duration{a4: never, b4: never, a6: 5 * ms},
			wins: a6, after: 305 * ms, dialled: a4 + "@50 [" + a6 + "]@300",
		},
		"the IPv4 lookup comes when IPv6 has failed": {
			v6: []string{a6}, v4: []string{a4}, ask4: 100 * ms, connects: map[string]time.Duration{a4: 5 * ms},
			wins: a4, after: 105 * ms, dialled: "[" + a6 + "]@0 " + a4 + "@100",
		},
		"no IPv6": {
			v4: []string{a4}, ask6: 10 * ms, connects: map[string]time.Duration{a4: 5 * ms},
			wins: a4, after: 15 * ms, dialled: a4 + "@10",
		},
		"an address that may not be dialled is passed over": {
			v6: []string{"::1", a6}, v4: []string{"10.0.0.1"}, connects: map[string]time.Duration{a6: 5 * ms, "::1": 0, "10.0.0.1": 0},
			wins: a6, after: 5 * ms, dialled: "[" + a6 + "]@0",
		},
		"all refuse": {
			v6: []string{a6}, v4: []string{a4}, reason: wire.ReasonRefused, dialled: "[" + a6 + "]@0 " + a4 + "@0",
		},
		"one refuses, one is silent": {
			v6: []string{a6}, v4: []string{a4}, connects: map[string]time.Duration{a6: never},
			reason: wire.ReasonRefused, after: dialTimeout, dialled: "[" + a6 + "]@0 " + a4 + "@250",
		},
		"no name":              {reason: wire.ReasonDNS},
		"one lookup is silent": {ask4: never, reason: wire.ReasonTimeout, after: resolveTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { e.check(t) })
		})
	}
}

func (e *eyeballs) check(t *testing.T) {
	began := time.Now()
	var mu sync.Mutex
	var dialled []string
	open := map[string]net.Conn{}
	d := newDialer(&Config{
		Policy:   policy(t, "accept *:*"),
		Resolver: resolverFunc(e.lookup),
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			mu.Lock()
			dialled = append(dialled, fmt.Sprintf("%s@%d", address[:len(address)-len(":80")], time.Since(began).Milliseconds()))
			mu.Unlock()
			to := netip.MustParseAddrPort(address).Addr().String()
			delay, ok := e.connects[to]
			if !ok {
				return nil, syscall.ECONNREFUSED
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(delay):
			}
			c := answering()
			mu.Lock()
			open[to] = c
			mu.Unlock()
			return c, nil
		},
	})
	conn, reason := dialOnce(t, d, "many.test:80")
	took := time.Since(began)
	if reason != e.reason || took != e.after {
		t.Errorf("%v after %v, want %v after %v", reason, took, e.reason, e.after)
	}
	if got := fmt.Sprint(dialled); got != "["+e.dialled+"]" {
		t.Errorf("dialled %v, want [%v]", got, e.dialled)
	}
	if conn != nil {
		defer conn.Close()
	}
	if e.wins != "" && conn != open[e.wins] {
		t.Errorf("the connection is not that to %v", e.wins)
	}
}

// TestBothConnect lets two attempts succeed in the same moment, many times: one is given out, the other is
// closed.
func TestBothConnect(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var made []*destination
			d := newDialer(&Config{
				Policy:   policy(t, "accept *:*"),
				Resolver: zone{"many.test.": {netip.MustParseAddr("198.41.0.1"), netip.MustParseAddr("198.41.0.2")}},
				Dial: func(_ context.Context, _, address string) (net.Conn, error) {
					if address == "198.41.0.1:80" {
						<-time.After(2 * attemptDelay)
					} else {
						<-time.After(attemptDelay)
					}
					c := &destination{Conn: answering(), closed: make(chan struct{})}
					mu.Lock()
					defer mu.Unlock()
					made = append(made, c)
					return c, nil
				},
			})
			conn, _ := dialOnce(t, d, "many.test:80")
			if conn == nil || len(made) != 2 {
				t.Fatalf("%d connections were made, want 2; got %v", len(made), conn)
			}
			for _, c := range made {
				select {
				case <-c.closed:
					if c == conn {
						t.Error("the connection given out is closed")
					}
				default:
					if c != conn {
						t.Error("the other connection is open")
					}
				}
			}
			conn.Close()
		})
	}
}

// TestTelling checks that every reason of a dial has its place in the order of what is told.
func TestTelling(t *testing.T) {
	for r := wire.ReasonRefused; r <= wire.ReasonPolicy; r++ {
		if !slices.Contains(telling, r) {
			t.Errorf("%v is not in the list", r)
		}
	}
}
