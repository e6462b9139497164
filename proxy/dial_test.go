package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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

// TestElsewhere checks after which errors another circuit is tried.
func TestElsewhere(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{&wire.EndError{Reason: wire.ReasonPolicy, Remote: true}, true},
		{&wire.EndError{Reason: wire.ReasonResourceLimit, Remote: true}, true},
		{&wire.EndError{Reason: wire.ReasonUnsupported, Remote: true}, true},
		{&wire.EndError{Reason: wire.ReasonInternal, Remote: true}, true},
		{&wire.EndError{Reason: wire.ReasonShutdown, Remote: true}, true},
		{&wire.EndError{Reason: wire.ReasonTimeout}, true}, // the exit itself was silent
		{&wire.EndError{Reason: wire.ReasonTimeout, Remote: true}, false},
		{&wire.EndError{Reason: wire.ReasonRefused, Remote: true}, false},
		{&wire.EndError{Reason: wire.ReasonDNS, Remote: true}, false},
		{&wire.EndError{Reason: wire.ReasonHostUnreachable, Remote: true}, false},
		{&wire.EndError{Reason: wire.ReasonNetUnreachable, Remote: true}, true}, // it may have no IPv6
		{&wire.EndError{Reason: wire.ReasonReset, Remote: true}, false},
		{&wire.EndError{Reason: wire.ReasonDone, Remote: true}, false},
		{fmt.Errorf("%w: reset", circuit.ErrClosed), true},
		{mux.ErrBusy, true},
		{mux.ErrExhausted, true},
		{context.Canceled, false},
		{errors.New("mux: target cannot be sent"), false},
	} {
		if got := elsewhere(test.err); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
}

// TestBadTargets checks that what no exit could be asked for costs no circuit.
func TestBadTargets(t *testing.T) {
	var own Listeners
	own.Add(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9050})
	onBed(t, 1, Config{Spares: -1, Listeners: &own}, nil, func(b *bed) {
		for _, target := range []string{
			"", "site.test", ":80", "site.test:", "site.test:0", "site.test:65536", "site.test:http", "site.test:-1",
			"bücher.test:80", "site test:80", "site.test\n:80", strings.Repeat("a", wire.MaxTarget) + ":80",
			"localhost:9050", "127.1:9050",
		} {
			if _, err := b.Dial(b.t.Context(), Request{Target: target}); err == nil || errors.Is(err, ErrNotReady) {
				t.Errorf("%q: %v", target, err)
			}
		}
		if n := b.creates(); n != 0 {
			t.Errorf("%d circuits were built", n)
		}
		if _, err := b.Dialer("").DialContext(b.t.Context(), "udp", "site.test:80"); err == nil {
			t.Error("dialled UDP")
		}
	})
}

// TestRetries lets the first exit that is asked fail, in every way, and checks whether the next one is
// asked, what the application gets and when.
func TestRetries(t *testing.T) {
	const way = 10 * time.Millisecond // of one packet
	for name, test := range map[string]struct {
		exits   int
		first   func(*mux.Stream)
		others  func(*mux.Stream)
		asked   int64
		reason  wire.Reason // 0: connected
		atLeast time.Duration
	}{
		"policy, then served":         {2, says(wire.ReasonPolicy), echo, 2, 0, 0},
		"internal, then served":       {2, says(wire.ReasonInternal), echo, 2, 0, 0},
		"refused":                     {2, says(wire.ReasonRefused), echo, 1, wire.ReasonRefused, 0},
		"no such name":                {2, says(wire.ReasonDNS), echo, 1, wire.ReasonDNS, 0},
		"silent, then served":         {2, silent, echo, 2, 0, openTimeout},
		"silent, and no other":        {1, silent, echo, 1, wire.ReasonTimeout, openTimeout},
		"internal, and no other":      {1, says(wire.ReasonInternal), echo, 1, wire.ReasonInternal, 0},
		"internal, then policy":       {2, says(wire.ReasonInternal), says(wire.ReasonPolicy), 2, wire.ReasonPolicy, 0},
		"all by policy, then no more": {5, says(wire.ReasonPolicy), says(wire.ReasonPolicy), maxAttempts, wire.ReasonPolicy, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			configure := func(_ int, e *exit) {
				e.answer = func(st *mux.Stream) {
					if asked.Add(1) == 1 {
						test.first(st)
					} else {
						test.others(st)
					}
				}
			}
			onBed(t, test.exits, noSpares, configure, func(b *bed) {
				began := time.Now()
				conn, err := b.Dial(b.t.Context(), Request{Target: "site.test:80"})
				var end *wire.EndError
				switch {
				case test.reason == 0 && err != nil:
					t.Errorf("got %v", err)
				case test.reason != 0 && (!errors.As(err, &end) || end.Reason != test.reason):
					t.Errorf("got %v, want %v", err, test.reason)
				}
				if n := asked.Load(); n != test.asked {
					t.Errorf("%d exits were asked, want %d", n, test.asked)
				}
				if took := time.Since(began); took < test.atLeast || took > test.atLeast+50*way {
					t.Errorf("took %v, want a little more than %v", took, test.atLeast)
				}
				if conn != nil {
					conn.Close()
				}
			})
		})
	}
}

// TestBrokenCircuit breaks the circuit under a dial: it gets another one, through the same exit if there is
// no other, for any relay may have been the one that broke it.
func TestBrokenCircuit(t *testing.T) {
	var circuits atomic.Int64
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		e.serve = func(s *link.Stream, keys *onion.HopKeys) {
			if circuits.Add(1) == 1 {
				io.ReadFull(s, make([]byte, wire.CellSize)) // BEGIN
				return
			}
			e.session(s, keys)
		}
	}, func(b *bed) {
		b.dial("a").Close()
		if n := circuits.Load(); n != 2 {
			t.Errorf("%d circuits were used, want 2", n)
		}
	})
}

// TestNoExit checks that a target that no exit's policy accepts is refused as an exit would, and that an
// exit that cannot be reached is not called a refusal.
func TestNoExit(t *testing.T) {
	closed := func(_ int, e *exit) { e.policy = policy(t, "accept *:443") }
	onBed(t, 2, noSpares, closed, func(b *bed) {
		_, err := b.Dial(b.t.Context(), Request{Target: "site.test:80"})
		var end *wire.EndError
		var none *route.NoExit
		if !errors.As(err, &end) || end.Reason != wire.ReasonPolicy || !errors.As(err, &none) {
			t.Errorf("got %v, want the exit policy's refusal", err)
		}
	})
	gone := func(_ int, e *exit) {
		e.serve = nil
		e.ring = onion.NewKeyring(e.id, newKey(t), 10)
	}
	onBed(t, 2, noSpares, gone, func(b *bed) {
		_, err := b.Dial(b.t.Context(), Request{Target: "site.test:80"})
		var end *wire.EndError
		var failed *circuit.BuildError
		if errors.As(err, &end) || !errors.As(err, &failed) {
			t.Errorf("got %v, want why the circuit was not built", err)
		}
	})
}

func newKey(t *testing.T) *onion.PrivateKey {
	t.Helper()
	key, err := onion.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestGivenUp cancels a dial: it returns at once with the context's error, and the circuit stays in use.
func TestGivenUp(t *testing.T) {
	var asked atomic.Int64
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		e.answer = func(st *mux.Stream) {
			if asked.Add(1) == 1 {
				silent(st)
			} else {
				echo(st)
			}
		}
	}, func(b *bed) {
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := b.Dial(ctx, Request{Target: "site.test:80"})
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("got %v after %v", err, took)
		}
		b.dial("").Close()
		if n := b.creates(); n != 1 {
			t.Errorf("%d circuits were built, want 1", n)
		}
	})
}

// TestDialWhileStopping stops the proxy under dials of every kind: they return at once, as do later ones.
func TestDialWhileStopping(t *testing.T) {
	onBed(t, 2, noSpares, func(i int, e *exit) {
		e.answer = silent
		if i == 1 {
			e.policy = policy(t, "accept *:443")
			e.circuit = func(s *link.Stream) { io.Copy(io.Discard, s) } // no CREATED
		}
	}, func(b *bed) {
		results := make(chan error, 20)
		for i := range cap(results) {
			target := []string{"site.test:80", "site.test:443"}[i%2]
			go func() {
				_, err := b.Dial(b.t.Context(), Request{Target: target, Isolation: fmt.Sprint(i / 4)})
				results <- err
			}()
		}
		<-time.After(time.Second)
		began := time.Now()
		b.stop()
		for range cap(results) {
			if err := <-results; err == nil {
				t.Error("a dial succeeded")
			}
		}
		<-b.ended
		if _, err := b.Dial(b.t.Context(), Request{Target: "site.test:80"}); err == nil {
			t.Error("a dial succeeded afterwards")
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v", took)
		}
		if n := len(b.Circuits()); n != 0 {
			t.Errorf("%d circuits are left", n)
		}
	})
}
