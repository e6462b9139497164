package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/onion"
)

// TestFailures checks how the errors of builds and dials are sorted.
func TestFailures(t *testing.T) {
	says := func(s wire.Status) error {
		return &circuit.BuildError{Hop: 1, Err: &onion.HopError{Status: s}}
	}
	for _, test := range []struct {
		err  error
		want Failure
	}{
		{&circuit.BuildError{Hop: 0, Err: errors.New("no link")}, FailureLink},
		{&circuit.BuildError{Hop: 0, Err: context.DeadlineExceeded}, FailureLink},
		{&circuit.BuildError{Hop: 1, Err: context.DeadlineExceeded}, FailureTimeout},
		{&circuit.BuildError{Hop: 1, Err: context.Canceled}, FailureGivenUp},
		{&circuit.BuildError{Hop: 0, Err: context.Canceled}, FailureGivenUp},
		{&circuit.BuildError{Hop: 1, Err: wire.Violation("garbage")}, FailureViolation},
		{&circuit.BuildError{Hop: 1, Err: io.EOF}, FailureBroken},
		{says(wire.StatusUnknownNext), FailureBehind},
		{says(wire.StatusNextUnreachable), FailureUnreachable},
		{says(wire.StatusNextTimeout), FailureUnreachable},
		{says(wire.StatusNextReset), FailureUnreachable},
		{says(wire.StatusOverloaded), FailureRefused},
		{says(wire.StatusRefused), FailureRefused},
		{fmt.Errorf("after other causes: %w", says(wire.StatusRefused)), FailureRefused},
	} {
		if got := failureOf(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, DialConnected},
		{&wire.EndError{Reason: wire.ReasonDNS, Remote: true}, "DNS failure"},
		{fmt.Errorf("wrapped: %w", &wire.EndError{Reason: wire.ReasonTimeout}), "time-out"},
		{context.Canceled, DialGivenUp},
		{fmt.Errorf("%w: %w", ErrNotReady, &route.TooFewRelays{}), DialNoCircuit},
	} {
		if got := outcomeOf(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}

// TestStats checks that every dial, circuit and byte is counted once, also after it has gone.
func TestStats(t *testing.T) {
	var refuse atomic.Bool
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		e.answer = func(st *mux.Stream) {
			if refuse.Load() {
				st.End(wire.ReasonRefused)
			} else {
				echo(st)
			}
		}
	}, func(b *bed) {
		conn := b.dial("a")
		io.WriteString(conn, "twelve bytes")
		io.ReadFull(conn, make([]byte, 12))
		refuse.Store(true)
		b.Dial(b.t.Context(), Request{Target: "site.test:80", Isolation: "a"})
		check := func(when string, circuits, streams int) {
			t.Helper()
			s := b.Stats()
			if s.Circuits != circuits || s.Streams != streams || s.Spares != 0 || s.Building != 0 {
				t.Errorf("%s: %+v", when, s)
			}
			if s.Built != 1 || s.In != 12 || s.Out != 12 || s.Dials[DialConnected] != 1 || s.Dials[wire.ReasonRefused.String()] != 1 {
				t.Errorf("%s: %+v", when, s)
			}
		}
		check("in use", 1, 1)
		if s := b.Stats(); s.BuildMedian < 40*time.Millisecond || s.Build95 != s.BuildMedian || s.Late < s.Build80 || s.GiveUp < s.Late {
			t.Errorf("times are %+v", s)
		}
		conn.Close()
		b.NewIdentity()
		<-time.After(time.Second)
		check("gone", 0, 0)
		b.exits[0].ring = onion.NewKeyring(b.exits[0].id, newKey(t), 10)
		b.Dial(b.t.Context(), Request{Target: "site.test:80"})
		if s := b.Stats(); s.Failed[FailureBroken] != 1 || s.Dials[DialNoCircuit] != 1 {
			t.Errorf("after a build that failed: %+v", s)
		}
	})
}

// TestWatch checks that whoever watches learns of every circuit and stream that comes or goes, and of
// nothing else.
func TestWatch(t *testing.T) {
	onBed(t, 1, noSpares, nil, func(b *bed) {
		<-time.After(time.Minute)
		changes := func(want bool, what string, do func()) {
			t.Helper()
			changed := b.Watch()
			do()
			<-time.After(time.Second)
			select {
			case <-changed:
				if !want {
					t.Errorf("%s: a change", what)
				}
			default:
				if want {
					t.Errorf("%s: no change", what)
				}
			}
		}
		conn := b.dial("a") // the circuit stands
		changes(true, "a stream opens", func() { b.dial("a") })
		changes(false, "bytes", func() { io.WriteString(conn, "some") })
		changes(false, "nothing", func() {})
		changes(true, "a stream closes", func() { conn.Close() })
		changes(true, "a circuit is built", func() { b.dial("b") })
		changes(true, "a new identity", func() { b.NewIdentity() })
		changes(true, "a circuit goes", func() { b.CloseCircuit(b.Circuits()[0].ID) })
	})
}

// TestHonestProgress lets every relay fail once the proxy is ready: it says so, and why, and when they are
// back that it is ready again. One failure while circuits stand is not worth a word.
func TestHonestProgress(t *testing.T) {
	var good atomic.Bool
	good.Store(true)
	onBed(t, 3, Config{}, func(_ int, e *exit) {
		answer := e.circuit
		e.circuit = func(s *link.Stream) {
			if good.Load() {
				answer(s)
			}
		}
	}, func(b *bed) {
		<-b.Ready()
		<-time.After(time.Second)
		b.health.attemptFailed(errors.New("one"))
		if got := b.Progress(); got.Percent != percentReady {
			t.Errorf("after one failure: %+v", got)
		}
		good.Store(false)
		b.dial("a") // takes a spare, which is missing now
		<-time.After(time.Minute)
		said := b.Progress()
		if said.Percent != percentBuilding || !strings.Contains(said.Summary, "no circuit can be built any more: ") {
			t.Errorf("when nothing can be built: %+v", said)
		}
		<-time.After(time.Minute)
		if again := b.Progress(); again != said {
			t.Errorf("the same trouble is told anew: %+v, then %+v", said, again)
		}
		good.Store(true)
		<-time.After(2 * retryMax)
		if got := b.Progress(); got.Percent != percentReady {
			t.Errorf("when it works again: %+v", got)
		}
	})
}

// TestOutlook checks that whether a consensus has a route is found out once and no oftener.
func TestOutlook(t *testing.T) {
	onBed(t, 0, noSpares, nil, func(b *bed) {
		c := b.Consensus()
		first := b.routable(c)
		if again := b.routable(c); first == nil || again != first {
			t.Errorf("got %v, then %v", first, again)
		}
		other := *c
		if got := b.routable(&other); got == nil || got == first {
			t.Errorf("for another consensus: %v", got)
		}
	})
}
