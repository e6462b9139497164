package route

import (
	"strings"
	"testing"

	"torproxy/wire/netdoc"
)

// TestErrorTexts checks what people are told when an option or a rule leaves no route.
func TestErrorTexts(t *testing.T) {
	smtp, web := TargetOf("example.com", 25), TargetOf("example.com", 443)
	pairs := func(c *netdoc.Consensus) { // r0 is of the family of each, and no two others of one
		for i := 2; i < 8; i++ {
			declare(c, 0, i)
		}
	}
	family := func(c *netdoc.Consensus) { declare(c, 1, 2, 3, 4, 5, 6, 7) }
	for _, test := range []struct {
		make func(*netdoc.Consensus)
		req  Request
		want string
	}{
		{nil, Request{Exit: selectors(t, "relay9")}, "--exit relay9: no running relay has that nickname"},
		{nil, Request{Exit: selectors(t, testID(40).String())}, "--exit " + testID(40).String() + ": no running relay has that ID"},
		{nil, Request{Exit: selectors(t, "relay8,relay9")}, "--exit relay8,relay9: none of these relays runs"},
		{nil, Request{Exit: selectors(t, "r5")}, "--exit r5: is no exit"},
		{nil, Request{Exit: selectors(t, "r5"), Target: web}, "--exit r5: is no exit"},
		{nil, Request{Exit: selectors(t, "r1"), Target: smtp}, "--exit r1: its exit policy does not accept port 25"},
		{nil, Request{Exit: selectors(t, "r1"), Target: TargetOf("192.0.2.1", 443)}, "--exit r1: its exit policy does not accept this address, port 443"},
		{nil, Request{Exit: selectors(t, "r0,r1"), Target: smtp}, "--exit r0,r1: the exit policy of none accepts port 25"},
		{nil, Request{Exit: selectors(t, "r5,r6")}, "--exit r5,r6: none is an exit"},
		{nil, Request{Target: smtp}, "no exit's policy fits: an exit for a host name, port 25"},
		{nil, Request{Exclude: selectors(t, "r0,r1")}, "--exclude: every exit that would do is excluded: any exit"},
		{nil, Request{Exit: selectors(t, "r0"), Exclude: selectors(t, "r0"), Target: web}, "--exclude: every exit that would do is excluded: an exit for a host name, port 443"},
		{nil, Request{Avoid: exclude(0, 1)}, "every exit that would do has failed just now: any exit"},
		{nil, Request{Exclude: selectors(t, "r2,r3,r4,r5,r6,r7")}, "no route of 3 hops among 8 running relays: --exclude leaves relays out"},
		{nil, Request{Avoid: exclude(1, 2, 3, 4, 5, 6, 7)}, "no route of 3 hops among 8 running relays: relays that failed just now are left out"},
		{func(c *netdoc.Consensus) { declare(c, 1, 2, 3, 4, 5, 6); declare(c, 0, 7) }, Request{Exit: selectors(t, "r0")}, "no route of 3 hops among 8 running relays: no two hops of one family"},
		{func(c *netdoc.Consensus) { declare(c, 0, 2, 3, 4, 5, 6, 7) }, Request{Exit: selectors(t, "r0")}, "no route of 3 hops among 8 running relays: no two hops of one family"},
		{family, Request{}, "no route of 3 hops among 8 running relays: no two hops of one family"},
		{pairs, Request{Exit: selectors(t, "r0")}, "no route of 3 hops among 8 running relays: the last hop is --exit"},
		{oneSubnet, Request{}, "no route of 3 hops among 8 running relays: no two hops of one subnet"},
		{func(c *netdoc.Consensus) { c.Params.MinRelays = 9 }, Request{}, "the network has 8 running relays, its minimum is 9"},
	} {
		c := network(t, 8, 2)
		for i := range 2 {
			c.Relays[i].Policy = policy(t, "accept 198.51.100.0/24:443, accept *:443")
		}
		c.Relays[1].Policy = policy(t, "reject 192.0.2.0/24:*, accept *:443")
		if test.make != nil {
			test.make(c)
		}
		test.req.Hops = 3
		_, err := Choose(c, test.req, seeded(1))
		if err == nil {
			t.Errorf("a route, want %q", test.want)
		} else if err.Error() != test.want {
			t.Errorf("%q, want %q", err, test.want)
		}
	}
}

// TestErrorsNameNoTarget checks that the texts, which may be logged, say neither host nor address.
func TestErrorsNameNoTarget(t *testing.T) {
	for _, host := range []string{"secret.example", "203.0.113.77"} {
		for why := LackPolicy; why <= LackReliable; why++ {
			err := error(&NoExit{Target: TargetOf(host, 443), Exit: selectors(t, "alice"), Why: why})
			if strings.Contains(err.Error(), host) {
				t.Errorf("error text %q", err)
			}
		}
	}
}
