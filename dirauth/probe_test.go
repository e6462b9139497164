package dirauth

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// field is relays that are tested in virtual time.
type field struct {
	*prober
	mu     sync.Mutex
	dead   map[wire.ID]bool
	tries  map[wire.ID][]time.Time
	atOnce int
	most   int // tries that ran at a time
}

// runField runs a prober until the bubble ends.
func runField(t *testing.T, change func(*netdoc.Params)) (f *field, stop func()) {
	w := newTown(1)
	if change != nil {
		change(&w.Params)
	}
	log := slog.New(slog.DiscardHandler)
	f = &field{dead: map[wire.ID]bool{}, tries: map[wire.ID][]time.Time{}}
	f.prober = &prober{roster: newRoster(w.Network, NewMemoryStore(), &gate{}, log), log: log, try: f.tryOne}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		f.run(ctx)
		close(ended)
	}()
	return f, func() {
		cancel()
		<-ended
	}
}

// tryOne takes 10 ms, or all its time if the relay is dead.
func (f *field) tryOne(ctx context.Context, d *netdoc.Descriptor) error {
	f.mu.Lock()
	f.tries[d.ID] = append(f.tries[d.ID], time.Now())
	f.atOnce++
	f.most = max(f.most, f.atOnce)
	dead := f.dead[d.ID]
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.atOnce--
	}()
	if dead {
		<-ctx.Done()
		return errors.New("no answer")
	}
	<-time.After(10 * time.Millisecond)
	return nil
}

func (f *field) kill(id wire.ID, dead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead[id] = dead
}

func (f *field) admit(t *testing.T, i int) *netdoc.Descriptor {
	t.Helper()
	d := describeNow(t, i)
	if got := f.roster.admit(d, time.Now()); got.Result != directory.Added {
		t.Fatal(got)
	}
	return d
}

// listed reports whether a vote made now lists a relay as running.
func (f *field) listed(d *netdoc.Descriptor) bool {
	for _, e := range f.roster.entries(time.Now()) {
		if e.ID == d.ID {
			return e.Flags.Has(netdoc.Running)
		}
	}
	return false
}

func TestNewRelayIsTestedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := runField(t, nil)
		defer stop()
		synctest.Wait()
		await(time.Now().Add(777 * time.Millisecond))
		d := f.admit(t, 1)
		await(time.Now().Add(10 * time.Millisecond))
		if !f.listed(d) {
			t.Error("not listed after its first test")
		}
	})
}

// A relay that dies is out of the next vote that is made, if it dies before the tests for that vote, and
// of the one after that at the latest: of the consensus two rounds after its death.
func TestDeadRelayDropsOut(t *testing.T) {
	for _, offset := range []time.Duration{0, 100 * time.Millisecond, 1249 * time.Millisecond, 2 * time.Second, 4680 * time.Millisecond, 4999 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			f, stop := runField(t, nil)
			defer stop()
			d, alive := f.admit(t, 1), f.admit(t, 2)
			round := f.roster.network.Params.NextRound(time.Now().Add(20 * time.Second))
			died := round.Add(offset)
			await(died)
			f.kill(d.ID, true)
			// The first vote whose consensus may not list it any more is the one for two rounds later.
			validAfter := f.roster.network.Params.NextRound(died.Add(5 * time.Second))
			await(newSchedule(f.roster.network.Params, validAfter).open.Add(-time.Millisecond))
			if f.listed(d) || !f.listed(alive) {
				t.Errorf("died %v into a round, listed: %v; alive, listed: %v", offset, f.listed(d), f.listed(alive))
			}
		})
	}
}

// A relay that comes back and registers again is tested soon; a silent one is forgotten in the end.
func TestReturnAndForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := runField(t, nil)
		defer stop()
		back, gone := f.admit(t, 1), f.admit(t, 2)
		f.kill(back.ID, true)
		f.kill(gone.ID, true)
		await(time.Now().Add(time.Minute))
		if f.listed(back) {
			t.Error("listed while dead")
		}
		f.kill(back.ID, false)
		if got := f.roster.admit(back, time.Now()); got.Result != directory.Known {
			t.Error(got)
		}
		await(time.Now().Add(f.roster.test.retry/4 + attempts*f.roster.test.attempt + 10*time.Millisecond))
		if !f.listed(back) {
			t.Error("not listed after its return")
		}
		await(time.Now().Add(5 * time.Minute))
		if f.roster.descriptor(gone.Digest()) != nil {
			t.Error("a relay that never answered is still known")
		}
		if f.roster.descriptor(back.Digest()) == nil {
			t.Error("a relay that answers was forgotten")
		}
	})
}

// In steady state a relay is tested once per round, so that the answer is there when the vote is made.
func TestTestsAreRegular(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := runField(t, nil)
		defer stop()
		d := f.admit(t, 1)
		await(time.Now().Add(time.Minute))
		f.mu.Lock()
		defer f.mu.Unlock()
		tries := f.tries[d.ID]
		if n := len(tries); n < 12 || n > 14 {
			t.Errorf("%d tests in twelve rounds", n)
		}
		lead := f.roster.test.lead
		for _, at := range tries[1:] {
			if due := at.Add(lead); !due.Equal(newSchedule(f.roster.network.Params, f.roster.network.Params.NextRound(due)).open) {
				t.Errorf("a test began at %v, which is not %v before a vote", at, lead)
			}
		}
	})
}

func TestTestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := runField(t, nil)
		defer stop()
		for i := range 100 {
			d := f.admit(t, i)
			f.kill(d.ID, i%10 == 0)
		}
		await(time.Now().Add(20 * time.Second))
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.most != testsAtOnce {
			t.Errorf("%d tests at a time, want %d", f.most, testsAtOnce)
		}
		if len(f.tries) != 100 {
			t.Errorf("%d relays were tested", len(f.tries))
		}
	})
}

// Hundreds of relays that do not answer do not keep those that do from being tested.
func TestTheDeadWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := runField(t, nil)
		defer stop()
		living := f.admit(t, 0)
		await(time.Now().Add(time.Second))
		for i := 1; i < 300; i++ {
			f.kill(f.admit(t, i).ID, true)
		}
		await(time.Now().Add(time.Minute))
		f.mu.Lock()
		before := len(f.tries[living.ID])
		f.mu.Unlock()
		young := f.admit(t, 1000)
		await(time.Now().Add(30 * time.Second))
		f.mu.Lock()
		n := len(f.tries[living.ID]) - before
		f.mu.Unlock()
		if n < 5 || !f.listed(living) {
			t.Errorf("a relay that runs was tested %d times in six rounds", n)
		}
		if !f.listed(young) {
			t.Error("a new relay was not tested")
		}
	})
}

// A test that began before a relay brought a new descriptor says nothing about the new one.
func TestStaleResult(t *testing.T) {
	r := newTestRoster(nil)
	first := describe(t, 1)
	r.admit(first, validAfter)
	r.tested(first, true, validAfter)
	second := describe(t, 1, newer(time.Second))
	r.admit(second, validAfter)
	r.tested(first, false, validAfter)
	if m := r.members[first.ID]; !m.running || m.due.After(validAfter) {
		t.Errorf("running: %v, next test at %v", m.running, m.due)
	}
}

// Whatever the rounds' length, the next test lies ahead, and not too far.
func TestNextTest(t *testing.T) {
	for _, round := range []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second, time.Minute, time.Hour, 24 * time.Hour} {
		p := newTestPlan(netdoc.Params{Round: netdoc.Duration(round)})
		for i := range 100 {
			now := validAfter.Add(round * time.Duration(i) / 100)
			if ahead := p.next(now).Sub(now); ahead < p.gap || ahead > mostInterval || ahead > 2*round+p.lead {
				t.Errorf("rounds of %v: the next test is %v ahead", round, ahead)
			}
		}
	}
}
