package proxy

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/proxy/timing"
	"torproxy/wire/link"
)

// unlearned are the limits before anything is known.
var unlearned timing.Times

// slowFirst makes the first circuits that are asked for, whatever the exit, wait before they are answered.
func slowFirst(circuits int64, wait time.Duration) func(int, *exit) {
	var asked atomic.Int64
	return func(_ int, e *exit) {
		answer := e.circuit
		e.circuit = func(s *link.Stream) {
			if asked.Add(1) <= circuits {
				<-time.After(wait)
			}
			answer(s)
		}
	}
}

// TestLateCircuit lets the first circuit be late: a second one is built beside it, through another relay, and
// serves the dial; the first, when it stands, is a spare, and nobody is blamed for anything.
func TestLateCircuit(t *testing.T) {
	const quick = 200 * time.Millisecond // for a link and a circuit
	onBed(t, 2, noSpares, slowFirst(1, 2*unlearned.Late()), func(b *bed) {
		began := time.Now()
		b.dial("a")
		if took := time.Since(began); took < unlearned.Late() || took > unlearned.Late()+quick {
			t.Errorf("the dial took %v, want a little more than %v", took, unlearned.Late())
		}
		<-time.After(2 * unlearned.Late())
		for i, e := range b.exits {
			if n := e.creates.Load(); n != 1 {
				t.Errorf("exit %d was asked for %d circuits, want 1 each", i, n)
			}
		}
		if s := b.Stats(); s.Built != 2 || s.Spares != 1 || len(s.Failed) != 0 {
			t.Errorf("got %+v, want 2 built, one of them a spare", s)
		}
		began = time.Now()
		b.dial("b")
		if took := time.Since(began); took > quick || b.creates() != 2 {
			t.Errorf("the next dial took %v, and %d circuits were built: it should use the late one", took, b.creates())
		}
	})
}

// TestLearnedLate checks that a circuit is late soon once the network is known to be quick.
func TestLearnedLate(t *testing.T) {
	var slow atomic.Bool
	onBed(t, 2, noSpares, func(_ int, e *exit) {
		answer := e.circuit
		e.circuit = func(s *link.Stream) {
			if slow.CompareAndSwap(true, false) {
				<-time.After(10 * time.Second)
			}
			answer(s)
		}
	}, func(b *bed) {
		for i := range 30 {
			b.dial(strconv.Itoa(i))
		}
		slow.Store(true)
		began := time.Now()
		b.dial("slow")
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("the dial took %v", took)
		}
	})
}

// TestTenTimesSlower slows a network that the client knows well down tenfold: every dial gets its circuit in
// the time that it takes now, and before long that time is what the client expects.
func TestTenTimesSlower(t *testing.T) {
	var pause atomic.Int64
	pause.Store(int64(500 * time.Millisecond))
	onBed(t, 2, noSpares, func(_ int, e *exit) {
		answer := e.circuit
		e.circuit = func(s *link.Stream) {
			<-time.After(time.Duration(pause.Load()))
			answer(s)
		}
	}, func(b *bed) {
		for i := range 50 {
			b.dial("before " + strconv.Itoa(i))
		}
		pause.Store(int64(5 * time.Second))
		for i := range 50 {
			began := time.Now()
			b.dial("after " + strconv.Itoa(i))
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("dial %d took %v", i, took)
			}
		}
		if late := b.patience.late(); late < 5*time.Second || late > 8*time.Second {
			t.Errorf("late after %v when a circuit takes 5 s", late)
		}
	})
}

// TestGivenUpBuild gives up a dial whose circuit is being built: it is a spare when it stands.
func TestGivenUpBuild(t *testing.T) {
	onBed(t, 1, noSpares, slowFirst(1, time.Second), func(b *bed) {
		ctx, cancel := context.WithTimeout(b.t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := b.Dial(ctx, Request{Target: "site.test:80", Isolation: "a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		<-time.After(time.Second)
		if s := b.Stats(); s.Spares != 1 {
			t.Errorf("got %+v, want one spare", s)
		}
		b.dial("b")
		if n := b.creates(); n != 1 {
			t.Errorf("%d circuits were built, want 1", n)
		}
	})
}

// TestBoundedBuilds asks for more circuits at once than are built at once, from exits that are silent: all
// dials fail in time, and not for one another's sake.
func TestBoundedBuilds(t *testing.T) {
	var open, most atomic.Int64
	onBed(t, 3, noSpares, func(_ int, e *exit) {
		e.circuit = func(s *link.Stream) {
			n := open.Add(1)
			defer open.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			s.Read(make([]byte, 1<<16))
			s.Read(make([]byte, 1<<16))
		}
	}, func(b *bed) {
		began := time.Now()
		var all sync.WaitGroup
		for i := range 3 * maxBuilding {
			all.Go(func() {
				if _, err := b.Dial(b.t.Context(), Request{Target: "site.test:80", Isolation: strconv.Itoa(i)}); err == nil {
					t.Error("a dial succeeded")
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > dialTimeout {
			t.Errorf("took %v", took)
		}
		if n := most.Load(); n < maxBuilding || n > maxBuilding*maxBeside {
			t.Errorf("%d circuits were being built at once, the bound is %d", n, maxBuilding*maxBeside)
		}
	})
}

// hurried returns a context that ends soon.
func hurried(t *testing.T, after time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), after)
	t.Cleanup(cancel)
	return ctx
}
