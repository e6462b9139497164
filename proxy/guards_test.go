package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/guard"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// TestBlameGuard checks what of an attempt's end is the guard's.
func TestBlameGuard(t *testing.T) {
	says := func(hop int, s wire.Status) error {
		return &circuit.BuildError{Hop: hop + 1, Err: &onion.HopError{Hop: hop, Status: s}}
	}
	for _, test := range []struct {
		err  error
		want blame
	}{
		{nil, nobody},
		{context.Canceled, unknown},
		{&circuit.BuildError{Hop: 0, Err: context.Canceled}, unknown},
		{&circuit.BuildError{Hop: 1, Err: context.Canceled}, unknown},
		{&circuit.BuildError{Hop: 0, Err: link.ErrClosed}, unknown},
		{&circuit.BuildError{Hop: 0, Err: fmt.Errorf("%w: %w", link.ErrFull, context.DeadlineExceeded)}, unknown},
		{errors.New("a key that cannot be used"), unknown},
		{&circuit.BuildError{Hop: 0, Err: errors.New("no link")}, itself},
		{&circuit.BuildError{Hop: 0, Err: context.DeadlineExceeded}, itself},
		{&circuit.BuildError{Hop: 1, Err: io.EOF}, itself},
		{&circuit.BuildError{Hop: 1, Err: context.DeadlineExceeded}, anybody},
		{&circuit.BuildError{Hop: 1, Err: wire.Violation("garbage")}, anybody},
		{says(0, wire.StatusOverloaded), itself},
		{says(0, wire.StatusRefused), itself},
		{says(0, wire.StatusUnknownNext), another},
		{says(0, wire.StatusNextUnreachable), another},
		{says(1, wire.StatusOverloaded), another},
		{says(2, wire.StatusRefused), another},
		{fmt.Errorf("wrapped: %w", says(0, wire.StatusRefused)), itself},
	} {
		if got := blameGuard(test.err); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
}

// TestSilentExits checks that silent exits which were asked for cost no guard, and that one drawn does count.
func TestSilentExits(t *testing.T) {
	onBed(t, 3, noSpares, nil, func(b *bed) {
		routes := b.routes.Of(b.Consensus())
		b.guards.follow(routes, 3)
		failed := func() (n int) {
			for _, g := range b.guards.state.Guards() {
				if g.Failed {
					n++
				}
			}
			return n
		}
		silence := func(c choice, a, z byte) {
			next := &path{choice: c}
			first, err := b.guards.first(next, nil, nil)(nil)
			if err != nil || first == nil {
				b.t.Fatalf("%v, %v", first, err)
			}
			next.relays = []*netdoc.Relay{first, {ID: wire.ID{1, a}}, {ID: wire.ID{2, z}}}
			b.guards.ended(next, &circuit.BuildError{Hop: 1, Err: context.DeadlineExceeded})
		}
		asked, _ := route.ParseSelectors("somebody")
		for i := range byte(50) {
			silence(choice{exit: asked}, i, i)
			silence(choice{}, i, 200)
		}
		if n := failed(); n != 0 {
			b.t.Errorf("%d guards failed by silent exits", n)
		}
		silence(choice{}, 100, 100)
		if n := failed(); n != 1 {
			b.t.Errorf("%d guards failed by two silences without a relay in common, want 1", n)
		}
	})
}

// TestFollow checks that the guards keep to the newest consensus, and to what suits the clock.
func TestFollow(t *testing.T) {
	onBed(t, 2, noSpares, nil, func(b *bed) {
		c := b.Consensus()
		at := func(d time.Duration) *netdoc.Consensus {
			other := *c
			other.ValidAfter += d.Milliseconds()
			other.FreshUntil += d.Milliseconds()
			other.ValidUntil += d.Milliseconds()
			return &other
		}
		early, late := at(-time.Second), at(24*time.Hour)
		for i, step := range []struct{ given, want *netdoc.Consensus }{{late, nil}, {c, c}, {early, c}, {late, c}} {
			if b.guards.follow(b.routes.Of(step.given), 3); b.guards.seen != step.want {
				b.t.Errorf("step %d: the guards follow %p, want %p", i, b.guards.seen, step.want)
			}
		}
	})
}

// TestBuildFollows checks that a build which began with an older consensus goes on with the one of its moment,
// as the guards do.
func TestBuildFollows(t *testing.T) {
	onBed(t, 1, noSpares, nil, func(b *bed) {
		old := *b.Consensus()
		old.Relays = nil
		made := b.newBuild(&old, b.anywhere(), nil, trace{})
		if err := made.run(b.t.Context()); err != nil || made.consensus != b.Consensus() {
			b.t.Errorf("built by %p, want %p: %v", made.consensus, b.Consensus(), err)
		}
	})
}

// TestPromoted checks that a circuit which waited for a better guard is announced when it may be used.
func TestPromoted(t *testing.T) {
	onBed(t, 1, noSpares, nil, func(b *bed) {
		b.guards.follow(b.routes.Of(b.Consensus()), 3)
		next := &path{}
		first, err := b.guards.first(next, nil, nil)(nil)
		if err != nil {
			b.t.Fatal(err)
		}
		next.relays = []*netdoc.Relay{first}
		built, err := circuit.Build(b.t.Context(), b.node, next.relays)
		if err != nil {
			b.t.Fatal(err)
		}
		b.pool.add(b.pool.begin(next, nil), built, next.guard, b.runCircuit)
		b.health.allFailed(errors.New("nothing answers"))
		b.heardGuards()
		select {
		case <-b.Ready():
		default:
			b.t.Error("there is a circuit, and the client is not ready")
		}
		if err := b.health.trouble(b.pool.standing()); err != nil {
			b.t.Errorf("there is a circuit, and still: %v", err)
		}
		if b.pool.heard(b.guards.check) {
			b.t.Error("it was promoted twice")
		}
	})
}

// TestGuardState checks what is kept and taken of guards.
func TestGuardState(t *testing.T) {
	onBed(t, 1, noSpares, nil, func(b *bed) {
		b.dial("a").Close()
		if kept := b.GuardState(); kept != nil {
			t.Errorf("circuits of one hop have the guards %s", kept)
		}
		empty := guard.New(b.cfg.Network.Name, b.rnd).Encode()
		if err := b.OfferGuards(empty); err != nil || string(b.GuardState()) != string(empty) {
			t.Errorf("offered %s, %v; got %s", empty, err, b.GuardState())
		}
		for _, bad := range []string{"", "{}", "junk"} {
			if err := b.OfferGuards([]byte(bad)); err == nil {
				t.Errorf("%q was taken", bad)
			}
		}
		if err := b.OfferGuards(guard.New("another", b.rnd).Encode()); !errors.Is(err, guard.ErrNetwork) {
			t.Errorf("another network's: %v", err)
		}
		if string(b.GuardState()) != string(empty) {
			t.Error("what was refused has changed the guards")
		}
	})
}
