package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"torproxy/proxy/circuit"
	"torproxy/proxy/guard"
	"torproxy/wire"
	"torproxy/wire/link"
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
