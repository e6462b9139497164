package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
)

// answering is an exit that answers lookups.
func answering(answers ...wire.Answer) func(*mux.Stream) {
	return func(st *mux.Stream) {
		defer st.Close()
		if st.Kind() != wire.KindResolve {
			st.End(wire.ReasonUnsupported)
			return
		}
		st.Connect()
		st.Write(wire.AppendAnswers(nil, answers))
	}
}

func addressed(addr string) wire.Answer {
	return wire.Answer{Addr: netip.MustParseAddr(addr), TTL: time.Minute}
}

// TestResolve checks what an application gets of an exit's answers: addresses, IPv4 first, each once.
func TestResolve(t *testing.T) {
	said := []wire.Answer{
		addressed("2001:db8::1"), addressed("192.0.2.2"), {Name: "other.test", TTL: time.Minute},
		addressed("192.0.2.1"), addressed("192.0.2.2"), addressed("2001:db8::2"),
	}
	onBed(t, 1, noSpares, func(_ int, e *exit) { e.answer = answering(said...) }, func(b *bed) {
		got, err := b.Resolve(b.t.Context(), Request{Target: "site.test"})
		want := []netip.Addr{said[1].Addr, said[3].Addr, said[0].Addr, said[5].Addr}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, %v; want %v", got, err, want)
		}
		name, err := b.ResolveAddr(b.t.Context(), Request{Target: "192.0.2.1"})
		if err != nil || name != "other.test" {
			t.Errorf("got %q, %v", name, err)
		}
		r := b.Why("site.test")[0]
		if r.Outcome != OutcomeResolved || r.Steps[len(r.Steps)-1].What != StepResolve || r.Took == 0 {
			t.Errorf("got %+v", r)
		}
		if s := b.Stats(); len(s.Dials) != 0 {
			t.Errorf("lookups count as dials: %v", s.Dials)
		}
	})
}

// TestResolveSpecial has an exit answer with addresses that only networks of somebody's own lead to.
func TestResolveSpecial(t *testing.T) {
	special := []string{"127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1"}
	for _, private := range []bool{true, false} {
		for _, public := range []string{"", "93.184.216.34"} {
			cfg := noSpares
			if !private {
				cfg.Network = &netdoc.Network{Authorities: []netdoc.Authority{{Addresses: []netip.AddrPort{netip.MustParseAddrPort("93.184.216.1:1")}}}}
			}
			onBed(t, 1, cfg, func(_ int, e *exit) {
				var said []wire.Answer
				for _, addr := range special {
					said = append(said, addressed(addr))
				}
				if public != "" {
					said = append(said, addressed(public))
				}
				e.answer = answering(said...)
			}, func(b *bed) {
				got, err := b.Resolve(b.t.Context(), Request{Target: "site.test"})
				end, _ := errors.AsType[*wire.EndError](err)
				switch {
				case private && len(got) < len(special)-1:
					t.Errorf("in a private network: %v, %v", got, err)
				case !private && public == "" && (end == nil || end.Reason != wire.ReasonDNS):
					t.Errorf("special addresses alone: %v, %v", got, err)
				case !private && public != "" && (len(got) != 1 || got[0].String() != public):
					t.Errorf("special addresses and one other: %v, %v", got, err)
				}
			})
		}
	}
}

// TestResolveHere checks what costs no circuit: addresses are their own answer, and nonsense is refused.
func TestResolveHere(t *testing.T) {
	onBed(t, 1, noSpares, nil, func(b *bed) {
		for target, want := range map[string]string{
			"192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1", "[2001:db8::1]": "2001:db8::1",
			"::ffff:192.0.2.1": "192.0.2.1", "fe80::1%eth0": "fe80::1",
		} {
			got, err := b.Resolve(b.t.Context(), Request{Target: target})
			if err != nil || len(got) != 1 || got[0].String() != want {
				t.Errorf("%s: got %v, %v", target, got, err)
			}
		}
		for _, target := range []string{"", "site.test:80", "site test", "bücher.test", "[::1", "192.0.2.1:80", "a\n"} {
			if got, err := b.Resolve(b.t.Context(), Request{Target: target}); err == nil {
				t.Errorf("%q resolves to %v", target, got)
			}
		}
		for _, target := range []string{"", "site.test", "192.0.2.1:80"} {
			if got, err := b.ResolveAddr(b.t.Context(), Request{Target: target}); err == nil {
				t.Errorf("%q has the name %v", target, got)
			}
		}
		if n := b.creates(); n != 0 {
			t.Errorf("%d circuits were built", n)
		}
	})
}

// TestResolveRetries checks for all that can go wrong whether another exit is asked, and what the
// application gets.
func TestResolveRetries(t *testing.T) {
	all := mishaps()
	nothing := func(_ *link.Stream, st *mux.Stream) { answering()(st) }
	nonsense := func(_ *link.Stream, st *mux.Stream) {
		st.Connect()
		st.Write([]byte("nonsense"))
		st.Close()
	}
	unasked := func(_ *link.Stream, st *mux.Stream) { answering(wire.Answer{Name: "a.test", TTL: time.Minute})(st) }
	all["no answer"] = mishap{nothing, wire.ReasonInternal, true, true, 0}
	all["nonsense"] = mishap{nonsense, wire.ReasonInternal, true, true, 0}
	all["a name for a name"] = mishap{unasked, wire.ReasonDNS, false, false, 0}
	for what, m := range all {
		t.Run(what, func(t *testing.T) {
			w := witness{otherwise: answering(addressed("192.0.2.1"))}
			onBed(t, 2, noSpares, w.configure(m.befall), func(b *bed) {
				began := time.Now()
				got, err := b.Resolve(b.t.Context(), Request{Target: "site.test"})
				w.mu.Lock()
				defer w.mu.Unlock()
				if m.elsewhere {
					if err != nil || len(got) != 1 || len(w.asked) != 2 || m.otherExit && w.asked[0] == w.asked[1] || time.Since(began) < m.takes {
						t.Errorf("got %v, %v after %v; exits %v were asked", got, err, time.Since(began), w.asked)
					}
					return
				}
				end, _ := errors.AsType[*wire.EndError](err)
				if e, ok := errors.AsType[*Error](err); !ok || end == nil || end.Reason != m.reason || len(w.asked) != 1 || e.Hop != 1 {
					t.Errorf("got %v, %v; exits %v were asked", got, err, w.asked)
				}
			})
		})
	}
}

// TestResolveIsolates checks that lookups share circuits with the connections of their label, and with no
// others.
func TestResolveIsolates(t *testing.T) {
	var asked atomic.Int64
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		e.answer = func(st *mux.Stream) {
			if st.Kind() == wire.KindTCP {
				echo(st)
				return
			}
			asked.Add(1)
			answering(addressed("192.0.2.1"))(st)
		}
	}, func(b *bed) {
		defer b.dial("a").Close()
		for i, label := range []string{"a", "b", "b", "c"} {
			if _, err := b.Resolve(b.t.Context(), Request{Target: "site.test", Isolation: label}); err != nil {
				t.Error(err)
			}
			want := []int64{1, 2, 2, 3}[i]
			if n := b.creates(); n != want {
				t.Errorf("%d circuits were built for %q, want %d", n, label, want)
			}
		}
		if n := asked.Load(); n != 4 {
			t.Errorf("the exit was asked %d times", n)
		}
	})
}

// TestIsolateDestinations checks what counts as the same destination.
func TestIsolateDestinations(t *testing.T) {
	onBed(t, 1, Config{Spares: -1, IsolateDestinations: true}, nil, func(b *bed) {
		for i, target := range []string{
			"site.test:80", "SITE.test.:443", "www.site.test:80", "198.41.0.4:80", "[::ffff:198.41.0.4]:443", "[2001:500:2::c]:80", "[2001:500:2:0:0::c]:80",
		} {
			conn, err := b.Dial(b.t.Context(), Request{Target: target})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			want := []int64{1, 1, 2, 3, 3, 4, 4}[i]
			if n := b.creates(); n != want {
				t.Errorf("%d circuits with %s, want %d", n, target, want)
			}
		}
	})
}

// selectorsOf returns a selector of each exit.
func selectorsOf(t *testing.T, b *bed) (all route.Selectors) {
	t.Helper()
	for _, e := range b.exits {
		s, err := route.ParseSelector(e.id.String())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// TestChoice checks that a request goes through an exit of its choice only, and shares its circuit with its
// like only, and what is said when there is none.
func TestChoice(t *testing.T) {
	onBed(t, 3, Config{Spares: 2}, nil, func(b *bed) {
		<-time.After(time.Second) // spares stand
		ids := selectorsOf(t, b)
		exitOf := func(req Request) (circuit string, exit wire.ID) {
			t.Helper()
			req.Target = "site.test:80"
			conn, err := b.Dial(b.t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, c := range b.Circuits() {
				if len(c.Streams) > 0 {
					return c.ID, c.Route[0].ID
				}
			}
			t.Fatal("no circuit")
			return
		}
		used := map[string]string{}
		for i, req := range []Request{
			{}, {Exit: ids[:1]}, {Exit: ids[1:2]}, {Exit: ids[2:]}, {Exclude: ids[:1]}, {Exclude: ids[1:]}, {Exit: ids[:2], Exclude: ids[:1]},
			{Exit: ids[:1], Isolation: "other"},
		} {
			circuit, exit := exitOf(req)
			for j, e := range b.exits {
				in := len(req.Exit) == 0 || slices.Contains(req.Exit, ids[j])
				if allowed := in && !slices.Contains(req.Exclude, ids[j]); e.id == exit && !allowed {
					t.Errorf("request %d goes through exit %d", i, j)
				}
			}
			if by, shared := used[circuit]; shared {
				t.Errorf("request %d shares the circuit of %s", i, by)
			}
			used[circuit] = fmt.Sprint("request ", i)
			if again, _ := exitOf(req); again != circuit {
				t.Errorf("request %d made twice uses two circuits", i)
			}
		}
		_, err := b.Dial(b.t.Context(), Request{Target: "site.test:80", Exclude: ids})
		if e, ok := errors.AsType[*Error](err); !ok || e.Reason != reasonNoRoute || b.Why("")[0].Outcome != OutcomeFailed {
			t.Errorf("got %v", err)
		}
	})
}
