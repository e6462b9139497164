package route

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// relay returns the n-th relay of a test network: no exit, each in a subnet of its own.
func relay(n int) netdoc.Relay {
	r := netdoc.Relay{
		ID:        testID(n),
		Nickname:  fmt.Sprintf("r%d", n),
		Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(1 + n/200), byte(n % 200), 0, 1}), 9001)},
		Key:       netdoc.KeyRef{Digest: testKeyDigest},
		Weight:    1000,
		Flags:     netdoc.Running,
	}
	if err := r.Attach(testKey[:]); err != nil {
		panic(err)
	}
	return r
}

// testKey is every relay's onion key: what matters is that there is one.
var (
	testKey       [netdoc.OnionKeySize]byte
	testKeyDigest = netdoc.DigestOf(testKey[:])
)

func testID(n int) (id wire.ID) {
	binary.BigEndian.PutUint32(id[:], uint32(n+1))
	return id
}

func policy(t testing.TB, text string) netdoc.Policy {
	t.Helper()
	p, err := netdoc.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// network returns a consensus of relays 0 to n-1, of which the first exits are exits to everywhere.
func network(t testing.TB, n, exits int) *netdoc.Consensus {
	t.Helper()
	c := &netdoc.Consensus{}
	for i := range n {
		r := relay(i)
		if i < exits {
			r.Policy = policy(t, "accept *:*")
		}
		c.Relays = append(c.Relays, r)
	}
	return c
}

// Choose draws a route out of an Index that is made for this once.
func Choose(c *netdoc.Consensus, req Request, rnd *rand.Rand) ([]*netdoc.Relay, error) {
	return NewIndex(c).Choose(req, rnd)
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func exclude(ids ...int) map[wire.ID]struct{} {
	set := map[wire.ID]struct{}{}
	for _, n := range ids {
		set[testID(n)] = struct{}{}
	}
	return set
}

func TestTargetFits(t *testing.T) {
	tests := []struct {
		policy string
		host   string
		port   uint16
		want   bool
	}{
		{"accept *:80", "example.com", 80, true},
		{"accept *:80", "example.com", 443, false},
		{"accept *:80", "192.0.2.1", 443, false},
		{"accept *:*", "8.8.8.8", 53, true},
		{"accept *:*", "::ffff:8.8.8.8", 53, true},
		{"accept *:*", "127.0.0.1", 80, false},
		{"accept *:*", "::ffff:127.0.0.1", 80, false},
		{"accept private:*", "127.0.0.1", 80, true},
		{"reject 8.8.8.0/24:*, accept *:*", "8.8.8.8", 53, false},
		{"accept *:*", "2001:4860:4860::8888", 53, true},
	}
	for _, test := range tests {
		p := policy(t, test.policy)
		if got := TargetOf(test.host, test.port).fits(&p); got != test.want {
			t.Errorf("%q fits %s port %d: %v, want %v", test.policy, test.host, test.port, got, test.want)
		}
	}
	var none netdoc.Policy
	if (Target{}).fits(&none) {
		t.Error("a relay that exits nowhere fits a circuit without a target")
	}
}

func TestDistinctWithExitLast(t *testing.T) {
	c := network(t, 12, 4)
	rnd := seeded(1)
	for hops := 1; hops <= wire.MaxHops; hops++ {
		for range 500 {
			route, err := Choose(c, Request{Hops: hops, Target: TargetOf("example.com", 443)}, rnd)
			if err != nil {
				t.Fatalf("%d hops: %v", hops, err)
			}
			checkRoute(t, c, Request{Hops: hops}, route)
		}
	}
}

// checkRoute asserts what holds for every route, by code of its own.
func checkRoute(t testing.TB, c *netdoc.Consensus, req Request, route []*netdoc.Relay) {
	t.Helper()
	if len(route) != req.Hops {
		t.Fatalf("%d hops, want %d", len(route), req.Hops)
	}
	for i, a := range route {
		if mine, ok := c.Relay(a.ID); !ok || mine != a {
			t.Fatalf("hop %d is not a relay of the consensus", i+1)
		}
		if _, out := req.Avoid[a.ID]; out && (i > 0 || req.First == nil || req.Hops == 1) {
			t.Fatalf("hop %d is a relay to avoid", i+1)
		}
		if req.Exclude.Match(a) {
			t.Fatalf("hop %d is an excluded relay", i+1)
		}
		if !a.Flags.Has(netdoc.Running) {
			t.Fatalf("hop %d does not run", i+1)
		}
		for _, b := range route[:i] {
			if a.ID == b.ID {
				t.Fatalf("relay %s twice", a.Nickname)
			}
			if slices.Contains(a.Family, b.ID) && slices.Contains(b.Family, a.ID) {
				t.Fatalf("relays %s and %s are of one family", a.Nickname, b.Nickname)
			}
			if c.Params.SubnetRule && a.Addresses[0].Addr().As4()[0] == b.Addresses[0].Addr().As4()[0] &&
				a.Addresses[0].Addr().As4()[1] == b.Addresses[0].Addr().As4()[1] {
				t.Fatalf("relays %s and %s are in one subnet", a.Nickname, b.Nickname)
			}
		}
	}
	exit := route[len(route)-1]
	if exit.Flags.Has(netdoc.BadExit) || !req.Target.fits(&exit.Policy) || len(req.Exit) > 0 && !req.Exit.Match(exit) {
		t.Fatalf("relay %s is no exit for the target", exit.Nickname)
	}
}

func TestRelaysWithoutOnionKeyAreLeftOut(t *testing.T) {
	c := network(t, 6, 2)
	keyless := c.WithKeys(func(netdoc.Digest) []byte { return nil })
	var few *TooFewRelays
	keyless.Params.MinRelays = 1
	if _, err := Choose(keyless, Request{Hops: 1}, seeded(1)); !errors.As(err, &few) || few.Have != 0 {
		t.Errorf("without any key: %v", err)
	}
	c.Relays[0] = keyless.Relays[0]
	for seed := range uint64(100) {
		route, err := Choose(c, Request{Hops: 3}, seeded(seed))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range route {
			if r.ID == testID(0) {
				t.Fatal("a relay without an onion key is in the route")
			}
		}
	}
}

func TestScarceExitIsKeptForTheEnd(t *testing.T) {
	c := network(t, 8, 1)
	for seed := range uint64(200) {
		route, err := Choose(c, Request{Hops: 8}, seeded(seed))
		if err != nil {
			t.Fatal(err)
		}
		if route[7].ID != testID(0) {
			t.Fatal("the only exit is not last")
		}
	}
}

// chiSquared draws routes and compares how often each relay stands at a position with what is expected.
func chiSquared(t *testing.T, c *netdoc.Consensus, hops, position, draws int, expect []float64) {
	t.Helper()
	rnd := seeded(7)
	seen := make([]float64, len(c.Relays))
	for range draws {
		route, err := Choose(c, Request{Hops: hops}, rnd)
		if err != nil {
			t.Fatal(err)
		}
		seen[binary.BigEndian.Uint32(route[position].ID[:])-1]++
	}
	sum := 0.0
	for _, e := range expect {
		sum += e
	}
	chi, freedom := 0.0, -1.0
	for i, e := range expect {
		want := e / sum * float64(draws)
		if want == 0 {
			if seen[i] != 0 {
				t.Errorf("relay %d drawn %v times, want never", i, seen[i])
			}
			continue
		}
		chi += (seen[i] - want) * (seen[i] - want) / want
		freedom++
	}
	// Five standard deviations: the seed is fixed, a correct choice would have to be very unlucky.
	if limit := freedom + 5*math.Sqrt(2*freedom); chi > limit {
		t.Errorf("chi squared %.1f above %.1f: drawn %v, expected in proportion to %v", chi, limit, seen, expect)
	}
}

func TestDrawsFollowWeights(t *testing.T) {
	t.Run("exit", func(t *testing.T) {
		c := network(t, 6, 6)
		expect := []float64{1, 10, 100, 1000, 5000, 20000}
		for i := range c.Relays {
			c.Relays[i].Weight = uint64(expect[i])
		}
		chiSquared(t, c, 1, 0, 50000, expect)
	})
	t.Run("first hop", func(t *testing.T) {
		c := network(t, 6, 1)
		expect := []float64{0, 300, 100, 1000, 50, 200}
		for i := range c.Relays {
			c.Relays[i].Weight = uint64(expect[i])
		}
		chiSquared(t, c, 3, 0, 50000, expect)
	})
	t.Run("no weight counts as one", func(t *testing.T) {
		c := network(t, 3, 3)
		for i, w := range []uint64{0, 1, 2} {
			c.Relays[i].Weight = w
		}
		chiSquared(t, c, 1, 0, 20000, []float64{1, 1, 2})
	})
	t.Run("weights beyond every sum", func(t *testing.T) {
		c := network(t, 4, 4)
		for i := range c.Relays {
			c.Relays[i].Weight = math.MaxUint64 - uint64(i)
		}
		chiSquared(t, c, 1, 0, 20000, []float64{1, 1, 1, 1})
	})
}

func TestErrors(t *testing.T) {
	web := TargetOf("example.com", 80)
	tests := []struct {
		name string
		make func(c *netdoc.Consensus)
		req  Request
		want error
	}{
		{"network too small", func(c *netdoc.Consensus) { c.Params.MinRelays = 9 }, Request{Hops: 3}, &TooFewRelays{Have: 8, Need: 9}},
		{"network too small for one hop too", func(c *netdoc.Consensus) { c.Params.MinRelays = 9 }, Request{Hops: 1}, &TooFewRelays{Have: 8, Need: 9}},
		{"relays that do not run count for nothing", func(c *netdoc.Consensus) {
			c.Params.MinRelays = 8
			c.Relays[5].Flags = 0
		}, Request{Hops: 3}, &TooFewRelays{Have: 7, Need: 8}},
		{"no exit for the port", func(c *netdoc.Consensus) { setPolicies(t, c, "accept *:443") }, Request{Hops: 3, Target: web}, &NoExit{Target: web}},
		{"no exit at all", func(c *netdoc.Consensus) { setPolicies(t, c, "reject *:*") }, Request{Hops: 3}, &NoExit{}},
		{"exits are bad exits", func(c *netdoc.Consensus) {
			c.Relays[0].Flags |= netdoc.BadExit
			c.Relays[1].Flags |= netdoc.BadExit
		}, Request{Hops: 3, Target: web}, &NoExit{Target: web}},
		{"exits excluded", nil, Request{Hops: 3, Target: web, Avoid: exclude(0, 1)}, &NoExit{Target: web, Why: LackReliable}},
		{"fewer relays than hops", func(c *netdoc.Consensus) { c.Relays = c.Relays[:4] }, Request{Hops: 5}, &TooFewDistinct{Hops: 5, Running: 4, Rule: RuleDistinct}},
		{"too many excluded", nil, Request{Hops: 8, Avoid: exclude(7)}, &TooFewDistinct{Hops: 8, Running: 8, Rule: RuleAvoid}},
		{"one family", func(c *netdoc.Consensus) { declare(c, 0, 1, 2, 3, 4, 5, 6) }, Request{Hops: 3}, &TooFewDistinct{Hops: 3, Running: 8, Rule: RuleFamily}},
		{"one subnet", func(c *netdoc.Consensus) { oneSubnet(c) }, Request{Hops: 2}, &TooFewDistinct{Hops: 2, Running: 8, Rule: RuleSubnet}},
		{"one subnet, one family", func(c *netdoc.Consensus) {
			oneSubnet(c)
			declare(c, 0, 1, 2, 3, 4, 5, 6, 7)
		}, Request{Hops: 2}, &TooFewDistinct{Hops: 2, Running: 8, Rule: RuleBoth}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := network(t, 8, 2)
			if test.make != nil {
				test.make(c)
			}
			route, err := Choose(c, test.req, seeded(3))
			if route != nil || err == nil {
				t.Fatalf("a route of %d hops", len(route))
			}
			if fmt.Sprintf("%T %+v", err, err) != fmt.Sprintf("%T %+v", test.want, test.want) {
				t.Errorf("error %T %q, want %T %q", err, err, test.want, test.want)
			}
		})
	}
}

func TestHopsOutOfRange(t *testing.T) {
	c := network(t, 12, 4)
	for _, hops := range []int{-1, 0, wire.MaxHops + 1} {
		if _, err := Choose(c, Request{Hops: hops}, seeded(1)); err == nil {
			t.Errorf("%d hops accepted", hops)
		}
	}
}

func setPolicies(t *testing.T, c *netdoc.Consensus, text string) {
	for i := range c.Relays {
		c.Relays[i].Policy = policy(t, text)
	}
}

// declare makes relays one family, each naming all the others.
func declare(c *netdoc.Consensus, members ...int) {
	for _, i := range members {
		for _, j := range members {
			if i != j {
				c.Relays[i].Family = append(c.Relays[i].Family, testID(j))
			}
		}
	}
}

func oneSubnet(c *netdoc.Consensus) {
	c.Params.SubnetRule = true
	for i := range c.Relays {
		c.Relays[i].Addresses = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i), 1}), 9001)}
	}
}

func TestFamilyNeedsBothSides(t *testing.T) {
	c := network(t, 3, 1)
	for i := 1; i < 3; i++ { // relay 0 is named by the others but names none of them
		c.Relays[i].Family = []wire.ID{testID(0)}
	}
	if _, err := Choose(c, Request{Hops: 3}, seeded(1)); err != nil {
		t.Errorf("a one-sided family counts: %v", err)
	}
}

func TestSubnetRuleOnlyWhenAskedFor(t *testing.T) {
	c := network(t, 8, 2)
	oneSubnet(c)
	c.Params.SubnetRule = false
	if _, err := Choose(c, Request{Hops: 8}, seeded(1)); err != nil {
		t.Error(err)
	}
}

func TestSameSubnet(t *testing.T) {
	tests := []struct {
		a, b []string
		want bool
	}{
		{[]string{"192.0.2.1"}, []string{"192.0.99.1"}, true},
		{[]string{"192.0.2.1"}, []string{"192.1.2.1"}, false},
		{[]string{"2001:db8::1"}, []string{"2001:db8:ffff::1"}, true},
		{[]string{"2001:db8::1"}, []string{"2001:db9::1"}, false},
		{[]string{"192.0.2.1", "2001:db8::1"}, []string{"198.51.100.1", "2001:db8:1::1"}, true},
		{[]string{"::ffff:192.0.2.1"}, []string{"192.0.3.1"}, true},
		{[]string{"192.0.2.1"}, []string{"2001:db8::1"}, false},
		{[]string{"fe80::1%eth0"}, []string{"fe80::2%eth1"}, true},
	}
	for _, test := range tests {
		if got := sameSubnet(subnetsOf(test.a), subnetsOf(test.b)); got != test.want {
			t.Errorf("%v and %v: %v", test.a, test.b, got)
		}
	}
}

func subnetsOf(texts []string) (list []subnet) {
	for _, s := range texts {
		list = append(list, subnetOf(netip.MustParseAddr(s)))
	}
	return list
}

// Most first draws lead nowhere here: the route must be found all the same.
func TestFindsTheOnlyRoute(t *testing.T) {
	c := network(t, 9, 3)
	declare(c, 0, 3, 4, 5, 6, 7, 8) // exit 0 leaves nobody but exits 1 and 2
	declare(c, 1, 2)                // one of which may join it
	for _, i := range []int{1, 2} {
		c.Relays[i].Flags |= netdoc.BadExit
	}
	for seed := range uint64(50) {
		route, err := Choose(c, Request{Hops: 2}, seeded(seed))
		if err != nil {
			t.Fatal(err)
		}
		checkRoute(t, c, Request{Hops: 2}, route)
	}
	_, err := Choose(c, Request{Hops: 3}, seeded(1))
	if tooFew, ok := errors.AsType[*TooFewDistinct](err); !ok || tooFew.Rule != RuleFamily {
		t.Errorf("three hops: %v", err)
	}
}

func TestNewRandIsSafeForConcurrentUse(t *testing.T) {
	c := network(t, 12, 4)
	rnd := NewRand()
	done := make(chan error)
	for range 4 {
		go func() {
			var err error
			for range 200 {
				if _, e := Choose(c, Request{Hops: 3}, rnd); e != nil {
					err = e
				}
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// large returns the network that is measured: 10,000 relays, a third of them exits.
func large(b *testing.B) *netdoc.Consensus {
	c := network(b, 10000, 3300)
	c.Params.SubnetRule = true
	return c
}

func BenchmarkChoose(b *testing.B) {
	ix := NewIndex(large(b))
	b.ReportAllocs()
	rnd := NewRand()
	for b.Loop() {
		if _, err := ix.Choose(Request{Hops: 3, Target: TargetOf("example.com", 443)}, rnd); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIndex is what a new consensus costs, with its first route.
func BenchmarkIndex(b *testing.B) {
	c := large(b)
	b.ReportAllocs()
	rnd := NewRand()
	for b.Loop() {
		if _, err := NewIndex(c).Choose(Request{Hops: 3, Target: TargetOf("example.com", 443)}, rnd); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	ix := NewIndex(large(b))
	b.ReportAllocs()
	for b.Loop() {
		if err := ix.Check(Request{Hops: 3}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNoRoute is what it costs to say which rule leaves no route.
func BenchmarkNoRoute(b *testing.B) {
	c := large(b)
	for i := range c.Relays {
		c.Relays[i].Policy = netdoc.Policy{}
	}
	ix := NewIndex(c)
	b.ReportAllocs()
	for b.Loop() {
		if err := ix.Check(Request{Hops: 3}); err == nil {
			b.Fatal("a route without an exit")
		}
	}
}
