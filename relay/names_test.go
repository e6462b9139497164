package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// register is a resolver that takes a while and counts what it is asked. Names that begin with "no" do not
// exist, those that begin with "bad" cannot be looked up now.
type register struct {
	mu    sync.Mutex
	asked map[string]int
	took  time.Duration
}

func (r *register) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if err := r.ask(ctx, network+" "+host); err != nil {
		return nil, err
	}
	switch host[:2] {
	case "no":
		return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	case "ba":
		return nil, &net.DNSError{Err: "server misbehaving", IsTemporary: true}
	}
	return slices.Repeat([]netip.Addr{netip.MustParseAddr("198.41.0.4")}, 100), nil
}

func (r *register) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return []string{"host.test."}, r.ask(ctx, addr)
}

func (r *register) ask(ctx context.Context, question string) error {
	r.mu.Lock()
	r.asked[question]++
	r.mu.Unlock()
	select {
	case <-time.After(r.took):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *register) count(question string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[question]
}

// inNames runs f in a bubble with a register and a function that begins another circuit's names.
func inNames(t *testing.T, f func(t *testing.T, r *register, kept *atomic.Int64, begin func() *names)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &register{asked: map[string]int{}, took: 30 * time.Millisecond}
		var kept atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		var all []*names
		f(t, r, &kept, func() *names {
			n := newNames(ctx, r, &kept)
			all = append(all, n)
			return n
		})
		cancel()
		for _, n := range all {
			n.close()
		}
		if left := kept.Load(); left != 0 {
			t.Errorf("%d answers are counted when all circuits are gone", left)
		}
	})
}

// TestNamesLife checks exactly how long which answers are kept.
func TestNamesLife(t *testing.T) {
	for host, life := range map[string]time.Duration{"www.test": nameLife, "no.test": missLife, "bad.test": 0} {
		inNames(t, func(t *testing.T, r *register, _ *atomic.Int64, begin func() *names) {
			n := begin()
			ask := func() time.Duration {
				began := time.Now()
				addrs, reason := n.addresses(t.Context(), "ip4", host)
				if ok := host == "www.test"; (reason == 0) != ok || len(addrs) > maxAnswers {
					t.Errorf("%s: %v, %v", host, addrs, reason)
				}
				return time.Since(began)
			}
			ask()
			if life > 0 {
				<-time.After(life - 1)
				if took := ask(); took != 0 {
					t.Errorf("%s: asked again, for %v, before its time was over", host, took)
				}
				<-time.After(1)
			}
			if took := ask(); took != r.took {
				t.Errorf("%s: after its time the lookup took %v, want %v", host, took, r.took)
			}
			if got := r.count("ip4 " + host + "."); got != 2 {
				t.Errorf("%s: asked %d times, want 2", host, got)
			}
		})
	}
}

// TestNamesAreNotShared asks the same in two circuits: the second learns nothing of the first, neither
// afterwards nor while its lookup runs.
func TestNamesAreNotShared(t *testing.T) {
	inNames(t, func(t *testing.T, r *register, _ *atomic.Int64, begin func() *names) {
		a, b := begin(), begin()
		began := time.Now()
		a.addresses(t.Context(), "ip4", "www.test")
		go a.addresses(t.Context(), "ip4", "two.test")
		<-time.After(r.took / 2)
		b.addresses(t.Context(), "ip4", "www.test")
		b.addresses(t.Context(), "ip4", "two.test")
		if took, want := time.Since(began), r.took+r.took/2+2*r.took; took != want {
			t.Errorf("both took %v, want %v", took, want)
		}
	})
}

// TestNamesJoin asks the same many times at once: one lookup serves all, also when the one who asked
// first gives up.
func TestNamesJoin(t *testing.T) {
	inNames(t, func(t *testing.T, r *register, _ *atomic.Int64, begin func() *names) {
		n := begin()
		hasty, cancel := context.WithTimeout(t.Context(), r.took/2)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if _, reason := n.addresses(hasty, "ip4", "www.test"); reason != wire.ReasonTimeout {
				t.Errorf("the hasty one got %v", reason)
			}
		})
		synctest.Wait()
		for range 20 {
			all.Go(func() {
				if addrs, reason := n.addresses(t.Context(), "ip4", "WWW.test."); len(addrs) == 0 || reason != 0 {
					t.Errorf("got %v, %v", addrs, reason)
				}
			})
		}
		all.Wait()
		if got := r.count("ip4 www.test."); got != 1 {
			t.Errorf("asked %d times, want once", got)
		}
	})
}

// TestNamesBounds checks that a circuit keeps so many answers, the newest, and all circuits together so many.
func TestNamesBounds(t *testing.T) {
	inNames(t, func(t *testing.T, r *register, kept *atomic.Int64, begin func() *names) {
		n := begin()
		for i := range maxNames + 1 {
			n.addresses(t.Context(), "ip4", fmt.Sprintf("www%d.test", i))
		}
		if got := kept.Load(); got != maxNames {
			t.Errorf("%d answers are kept, want %d", got, maxNames)
		}
		for _, again := range []struct {
			i, asked int
		}{{1, 1}, {maxNames, 1}, {0, 2}} {
			host := fmt.Sprintf("www%d.test", again.i)
			n.addresses(t.Context(), "ip4", host)
			if got := r.count("ip4 " + host + "."); got != again.asked {
				t.Errorf("%s was asked for %d times, want %d", host, got, again.asked)
			}
		}
		var asking sync.WaitGroup
		crowded := begin()
		for i := range maxNames + 10 {
			asking.Go(func() {
				if _, reason := crowded.addresses(t.Context(), "ip4", fmt.Sprintf("www%d.test", i)); reason != 0 {
					t.Error(reason)
				}
			})
		}
		asking.Wait()
		if got := kept.Load(); got != 2*maxNames {
			t.Errorf("%d answers are kept, want %d", got, 2*maxNames)
		}
		kept.Add(maxKept)
		late := begin()
		if _, reason := late.addresses(t.Context(), "ip4", "www.test"); reason != 0 || len(late.answers) != 0 {
			t.Errorf("with no room: %v, %d kept", reason, len(late.answers))
		}
		kept.Add(-maxKept)
	})
}

// TestNamesEnd ends a circuit while it looks something up.
func TestNamesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := newNames(ctx, &register{asked: map[string]int{}, took: never}, new(atomic.Int64))
		began := time.Now()
		time.AfterFunc(time.Second, cancel)
		if _, reason := n.addresses(t.Context(), "ip4", "www.test"); reason != wire.ReasonTimeout || time.Since(began) != time.Second {
			t.Errorf("%v after %v", reason, time.Since(began))
		}
		n.close()
	})
}

// TestSystemResolver checks the resolver that an exit has when it is given none: each circuit its own, and
// names that the machine itself knows.
func TestSystemResolver(t *testing.T) {
	d := newDialer(&Config{})
	a, b := d.names(t.Context()), d.names(t.Context())
	defer a.close()
	defer b.close()
	if a.resolver == b.resolver || a.resolver == Resolver(net.DefaultResolver) {
		t.Error("two circuits share a resolver")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.resolver.LookupNetIP(gone, "ip4", "www.example."); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
