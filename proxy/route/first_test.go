package route

import (
	"errors"
	"slices"
	"testing"

	"torproxy/wire/netdoc"
)

// TestFirst checks that the first hop is the one that was chosen, and what it is chosen from.
func TestFirst(t *testing.T) {
	c := network(t, 6, 2)
	declare(c, 1, 2)
	guards := []int{2, 3}
	seen := map[string]int{}
	for seed := range uint64(300) {
		var asked []string
		first := func(fits func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
			for _, i := range guards {
				r := &c.Relays[i]
				asked = append(asked, r.Nickname)
				if fits(r) {
					return r, nil
				}
			}
			return nil, nil
		}
		route, err := Choose(c, Request{Hops: 3, First: first}, seeded(seed))
		if err != nil {
			t.Fatal(err)
		}
		checkRoute(t, c, Request{Hops: 3}, route)
		seen[route[2].Nickname+" "+route[0].Nickname]++
		if want := map[string]string{"r0": "r2", "r1": "r3"}[route[2].Nickname]; route[0].Nickname != want {
			t.Fatalf("exit %s with first hop %s, want %s; asked %v", route[2].Nickname, route[0].Nickname, want, asked)
		}
	}
	if n := slices.Max([]int{seen["r0 r2"], seen["r1 r3"]}); len(seen) != 2 || n > 200 {
		t.Errorf("%v: the exit is drawn without regard to the first hop", seen)
	}
}

// TestExitDoesNotTellTheGuard counts exits, with a guard that does not fit beside most of them and with none
// at all: they are drawn as often.
func TestExitDoesNotTellTheGuard(t *testing.T) {
	const draws = 20000
	c := network(t, 100, 8)
	declare(c, 0, 1, 2, 3, 4, 50) // the first guard is of the family of five exits of eight
	first := func(fits func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
		for _, r := range []*netdoc.Relay{&c.Relays[50], &c.Relays[60]} {
			if fits(r) {
				return r, nil
			}
		}
		return nil, nil
	}
	ix, rnd := NewIndex(c), seeded(1)
	var seen [2][8]float64
	for range draws {
		for i, req := range []Request{{Hops: 3}, {Hops: 3, First: first}} {
			route, err := ix.Choose(req, rnd)
			if err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(c.Relays[:8], func(r netdoc.Relay) bool { return r.ID == route[2].ID })
			seen[i][at]++
			if guard := route[0].ID; i == 1 && (guard != testID(50)) != (at < 5) {
				t.Fatalf("exit %d with guard %s", at, route[0].Nickname)
			}
		}
	}
	chi := 0.0
	for i := range 8 {
		a, b := seen[0][i], seen[1][i]
		chi += (a - b) * (a - b) / (a + b)
	}
	if chi > 26 {
		t.Errorf("chi squared %.1f: %v with guards, %v without", chi, seen[1], seen[0])
	}
}

// TestNoGuardFits checks that another exit is drawn when no guard fits beside the first, and what the error is
// when none fits beside any.
func TestNoGuardFits(t *testing.T) {
	c := network(t, 100, 8)
	declare(c, 0, 1, 2, 3, 4, 50)
	only := func(fits func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
		if r := &c.Relays[50]; fits(r) {
			return r, nil
		}
		return nil, nil
	}
	for range 100 {
		route, err := Choose(c, Request{Hops: 3, First: only}, seeded(2))
		if err != nil {
			t.Fatal(err)
		}
		checkRoute(t, c, Request{Hops: 3}, route)
	}
	_, err := Choose(c, Request{Hops: 3, First: only, Exit: selectors(t, "r1,r2")}, seeded(2))
	if few, ok := errors.AsType[*TooFewDistinct](err); !ok || few.Rule != RuleGuard {
		t.Errorf("got %v, want that the guards leave no route", err)
	}
	if _, err = Choose(c, Request{Hops: 1, First: only, Exit: selectors(t, "r1")}, seeded(2)); err != nil {
		t.Errorf("one hop, which has no guard: %v", err)
	}
}

// TestFirstErrors checks that what First says ends the search, and that it is not trusted.
func TestFirstErrors(t *testing.T) {
	c := network(t, 10, 4)
	wait, asked := errors.New("wait"), 0
	_, err := Choose(c, Request{Hops: 3, First: func(func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
		asked++
		return nil, wait
	}}, seeded(1))
	if err != wait || asked != 1 {
		t.Errorf("got %v, asked %d times", err, asked)
	}
	declare(c, 0, 1, 2, 3, 5)
	route, err := Choose(c, Request{Hops: 3, First: func(func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
		return &c.Relays[5], nil
	}}, seeded(1))
	if err == nil {
		t.Errorf("route %v with a first hop that does not fit", route)
	}
	// A guard that has failed lately is First's to know.
	route, err = Choose(c, Request{Hops: 3, Avoid: exclude(6), First: func(fits func(*netdoc.Relay) bool) (*netdoc.Relay, error) {
		if !fits(&c.Relays[6]) {
			return nil, nil
		}
		return &c.Relays[6], nil
	}}, seeded(1))
	if err != nil || route[0] != &c.Relays[6] {
		t.Errorf("%v, %v", route, err)
	}
}
