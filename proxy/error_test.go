package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"torproxy/proxy/circuit"
	"torproxy/proxy/guard"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// TestErrorOf checks which hop every kind of cause is put down to, and that the header of a failed request
// names nobody.
func TestErrorOf(t *testing.T) {
	built := func(hop int, err error) error {
		return &circuit.BuildError{Hop: hop, Relay: "relay7", Err: err}
	}
	says := func(hop int, s wire.Status) error { return built(hop, &onion.HopError{Hop: hop - 1, Status: s}) }
	for _, test := range []struct {
		err    error
		status string
	}{
		{&wire.EndError{Reason: wire.ReasonDNS, Remote: true}, "hop 3 of 3: DNS failure"},
		{&wire.EndError{Reason: wire.ReasonRefused, Remote: true}, "hop 3 of 3: refused by the destination"},
		{&wire.EndError{Reason: wire.ReasonTimeout, Remote: true}, "hop 3 of 3: time-out"},
		{&wire.EndError{Reason: wire.ReasonTimeout}, "hop 0 of 3: no answer in time"},
		{&wire.EndError{Reason: wire.ReasonPolicy}, "hop 0 of 3: exit policy"},
		{says(1, wire.StatusNextUnreachable), "hop 1 of 3: next relay unreachable"},
		{fmt.Errorf("no circuit: %w", says(2, wire.StatusOverloaded)), "hop 2 of 3: overloaded"},
		{says(3, wire.StatusRefused), "hop 3 of 3: refused"},
		{built(0, errors.New("10.0.0.7: no route")), "hop 0 of 3: no link to hop 1"},
		{built(0, context.DeadlineExceeded), "hop 0 of 3: no link to hop 1"},
		{built(1, context.DeadlineExceeded), "hop 0 of 3: no answer in time"},
		{built(1, context.Canceled), "hop 0 of 3: given up"},
		{built(1, errors.New("reset")), "hop 1 of 3: circuit reset"},
		{built(1, wire.Violation("garbage")), "hop 1 of 3: protocol violation"},
		{errors.Join(&route.NoExit{Why: route.LackReliable}, says(2, wire.StatusRefused)), "hop 2 of 3: refused"},
		{fmt.Errorf("%w: %w", ErrNotReady, &route.TooFewRelays{Have: 4, Need: 5}), "hop 0 of 3: not ready"},
		{noRoute(&route.NoExit{Target: route.Target{Port: 25}}), "hop 0 of 3: no route"},
		{&route.TooFewDistinct{Hops: 3, Running: 2, Rule: route.RuleDistinct}, "hop 0 of 3: no route"},
		{&guard.WaitError{Down: true}, "hop 0 of 3: no guard answers"},
		{errors.Join(&guard.WaitError{}, says(2, wire.StatusRefused)), "hop 2 of 3: refused"},
		{fmt.Errorf("%w: by relay7", circuit.ErrClosed), "hop 0 of 3: the circuit broke"},
		{mux.ErrBusy, "hop 0 of 3: the circuit is full"},
		{mux.ErrExhausted, "hop 0 of 3: the circuit is full"},
		{fmt.Errorf("waiting: %w", context.DeadlineExceeded), "hop 0 of 3: no answer in time"},
		{context.Canceled, "hop 0 of 3: given up"},
		{fmt.Errorf("%w: %w", errOwn, &wire.EndError{Reason: wire.ReasonPolicy}), "hop 0 of 3: the target is a listener of this program"},
		{errors.New("relay7 and site.test"), "hop 0 of 3: failed"},
	} {
		e := errorOf(test.err, 3)
		if got := e.ProxyStatus(); got != test.status {
			t.Errorf("%v: got %q, want %q", test.err, got, test.status)
		}
		if !errors.Is(e, test.err) && e.Unwrap() != test.err {
			t.Errorf("%v is no longer in the chain", test.err)
		}
		if text := e.Error(); strings.Contains(text, "relay7") || strings.Contains(text, "site.test") || strings.Contains(text, "10.0.0.7") || strings.Contains(text, "\n") {
			t.Errorf("the text says %q", text)
		}
		if again := errorOf(fmt.Errorf("wrapped: %w", e), 5); again != e {
			t.Errorf("%v: an Error became %v", test.err, again)
		}
	}
	if errorOf(nil, 3) != nil {
		t.Error("nil became an error")
	}
}

// TestErrorText checks that what a person needs is in the text.
func TestErrorText(t *testing.T) {
	exits, err := route.ParseSelectors("alice,relay7")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		err  error
		want string
	}{
		{&wire.EndError{Reason: wire.ReasonDNS, Remote: true}, "proxy: hop 3 of 3, the exit: DNS failure"},
		{&onion.HopError{}, "proxy: this machine: failed"},
		{fmt.Errorf("%w: %w", ErrNotReady, &route.TooFewRelays{Have: 4, Need: 5}), "proxy: this machine: not ready: the network has 4 running relays, its minimum is 5"},
		{noRoute(&route.NoExit{Target: route.Target{Port: 25}}), "proxy: this machine: no route: no exit's policy fits: an exit for a host name, port 25"},
		{&route.NoExit{Exit: exits, Why: route.LackRelay}, "proxy: this machine: no route: --exit: none of these relays runs"},
		{fmt.Errorf("%w: %w", ErrNotReady, &route.NoExit{Exit: exits, Why: route.LackExit}), "proxy: this machine: not ready: --exit: none is an exit"},
		{fmt.Errorf("%w: %w", ErrNotReady, &netdoc.ClockError{}), "proxy: this machine: not ready: there is no consensus that is valid by this machine's clock"},
		{fmt.Errorf("%w: %w", ErrNotReady, errors.New("alice at 10.0.0.7 does not answer")), "proxy: this machine: not ready: there is no consensus yet, or not all of it"},
		{errStopped, "proxy: this machine: not ready: the proxy has stopped"},
		{&circuit.BuildError{Hop: 2, Relay: "relay7", Err: &onion.HopError{Hop: 1, Status: wire.StatusNextTimeout}}, "proxy: hop 2 of 3: next relay timed out"},
		{&guard.WaitError{Down: true}, "proxy: this machine: no guard answers: is this machine connected? The next attempt is in 0s"},
	} {
		if got := errorOf(test.err, 3).Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

// TestErrorWhole checks that the user, and he alone, is told the whole.
func TestErrorWhole(t *testing.T) {
	exits, _ := route.ParseSelectors("alice,relay7")
	for _, err := range []error{
		&route.NoExit{Exit: exits, Why: route.LackRelay},
		fmt.Errorf("%w: %w", ErrNotReady, &route.NoExit{Exit: exits, Why: route.LackRelay}),
		fmt.Errorf("%w: %w", ErrNotReady, errors.New("alice does not answer")),
	} {
		var s Step
		s.blame(err, nil)
		e, kept := errorOf(err, 3), &records{}
		kept.begin("site.test:80", "").failed(OutcomeFailed, e)
		if r := kept.slots[1].Record; !strings.Contains(r.Err, "alice") {
			t.Errorf("kept: %+v", r)
		}
		if !strings.Contains(s.Result, "alice") || !strings.Contains(e.told(), "alice") || strings.Contains(e.Error()+e.ProxyStatus(), "alice") {
			t.Errorf("the user is told %q, a page %q", s.Result, e)
		}
	}
}

// TestErrorTimeout checks that Error is a net.Error that tells time-outs from others.
func TestErrorTimeout(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{&wire.EndError{Reason: wire.ReasonTimeout, Remote: true}, true},
		{fmt.Errorf("waiting: %w", context.DeadlineExceeded), true},
		{&wire.EndError{Reason: wire.ReasonDNS, Remote: true}, false},
		{circuit.ErrClosed, false},
	} {
		var e net.Error
		if !errors.As(error(errorOf(test.err, 3)), &e) || e.Timeout() != test.want {
			t.Errorf("%v: time-out %v, want %v", test.err, e.Timeout(), test.want)
		}
	}
}
