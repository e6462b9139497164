package proxy

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"torproxy/proxy/need"
	"torproxy/proxy/route"
)

// onePath is the round trip of a bed's circuits: an answer from an exit takes exactly that long.
const onePath = 20 * time.Millisecond

// warm dials with several labels at once and checks that none waited for a circuit.
func (b *bed) warm(when string, labels ...string) {
	b.t.Helper()
	var all sync.WaitGroup
	for _, l := range labels {
		all.Go(func() {
			began := time.Now()
			b.dial(l).Close()
			// A circuit takes a round trip more. QUIC paces packets of one moment by milliseconds.
			if took := time.Since(began); took < onePath || took >= 2*onePath {
				b.t.Errorf("%s: the dial of %q took %v, want one round trip, %v", when, l, took, onePath)
			}
		})
	}
	all.Wait()
}

// labels returns n labels that no others are equal to.
func labels(name string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint(name, i)
	}
	return all
}

// TestWarm checks that isolated first requests do not wait for circuits: as many at once as a browser opens
// with, then as many as lately, and one after the other; nor does a label whose circuit is past its time, or
// anybody when spares are replaced.
func TestWarm(t *testing.T) {
	onBed(t, 4, Config{}, nil, func(b *bed) {
		<-time.After(5 * time.Second)
		b.warm("a browser opens", labels("browser", defaultSpares)...)
		<-time.After(10 * time.Second)
		b.warm("it opens again", labels("again", defaultSpares)...)
		<-time.After(20 * time.Second)
		// Six are ready and the seventh to ninth wait: what came once at once is ready the next time.
		for _, l := range labels("more", 9) {
			b.dial(l).Close()
		}
		<-time.After(20 * time.Second)
		b.warm("as many as lately", labels("lately", 9)...)
		<-time.After(20 * time.Second)
		for i := range 100 {
			<-time.After(30 * time.Second)
			b.warm("all the time", "the same", fmt.Sprint("another ", i))
		}
		if n := b.Stats().Circuits; n > 9+20+20 {
			t.Errorf("%d circuits stand", n)
		}
	})
}

// TestIdle checks that a client which nobody uses drops to one circuit and then builds none for as long as
// that stands; the first request finds it, and after it all is as before.
func TestIdle(t *testing.T) {
	onBed(t, 3, Config{}, nil, func(b *bed) {
		b.dial("a").Close()
		<-time.After(time.Minute)
		if n := b.Stats().Spares; n < defaultSpares {
			t.Errorf("%d spares in use, want %d", n, defaultSpares)
		}
		<-time.After(time.Hour + spareLifetime + time.Minute)
		before := b.creates()
		if s := b.Stats(); s.Circuits != 1 || s.Spares != 1 {
			t.Errorf("when idle %d circuits stand, %d of them spares; want one", s.Circuits, s.Spares)
		}
		<-time.After(time.Hour)
		if built := b.creates() - before; built != 0 {
			t.Errorf("in an idle hour %d circuits were built", built)
		}
		if b.Progress().Percent != percentReady {
			t.Errorf("when idle: %+v", b.Progress())
		}
		b.warm("the first request after hours", "b")
		<-time.After(time.Second)
		b.warm("and the next", labels("c", defaultSpares)...)
	})
}

// TestPredictedPorts checks that a spare is there for a port that was used lately, though few exits lead
// there; and that the summary tells which ports none leads to.
func TestPredictedPorts(t *testing.T) {
	onBed(t, 4, Config{}, func(i int, e *exit) {
		e.policy = policy(t, []string{"accept *:22", "accept *:443"}[min(i, 1)])
	}, func(b *bed) {
		<-time.After(time.Second)
		if got := b.Progress().Summary; got != "ready; no exit of this network leads to port 80" {
			t.Errorf("the summary is %q", got)
		}
		if _, err := b.Dial(b.t.Context(), Request{Target: "host.test:25"}); err == nil {
			t.Error("an exit leads to port 25")
		}
		if got := b.Progress().Summary; got != "ready; no exit of this network leads to port 80, 25" {
			t.Errorf("when port 25 was asked for in vain the summary is %q", got)
		}
		ssh := func(isolation string) time.Duration {
			began := time.Now()
			conn, err := b.Dial(b.t.Context(), Request{Target: "host.test:22", Isolation: isolation})
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			return time.Since(began)
		}
		if took := ssh("a"); took < 2*onePath { // building takes one path, and asking the exit another
			t.Error("a circuit to port 22 stood before anybody had asked for one")
		}
		<-time.After(time.Second)
		if took := ssh("b"); took >= 2*onePath {
			t.Errorf("the next dial took %v", took)
		}
		if strings.Contains(b.Progress().Summary, "22") {
			t.Errorf("the summary is %q", b.Progress().Summary)
		}
	})
}

// TestKeeperBounds checks the rate at which spares are built, whatever is missing.
func TestKeeperBounds(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	k := &keeper{tokens: aheadBurst, filled: now, rests: map[need.Kind]rest{}}
	built := 0
	for range 600 { // ten minutes
		for k.token(now) {
			built++
		}
		now = now.Add(time.Second)
	}
	if want := aheadBurst + int(10*time.Minute/aheadRefill); built > want || built < want-1 {
		t.Errorf("%d spares in ten minutes, want %d", built, want)
	}
	r := rest{}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 100, 100} {
		if r = r.longer(now); r.until.Sub(now) != want*retryMin {
			t.Errorf("a rest of %v, want %v", r.until.Sub(now), want*retryMin)
		}
	}
}

// TestManyUnused checks that circuits which come too late for whoever wanted them do not pile up.
func TestManyUnused(t *testing.T) {
	onBed(t, 3, noSpares, slowFirst(1000, time.Second), func(b *bed) {
		for _, l := range labels("hurry", 3*maxUnused) {
			go b.Dial(hurried(b.t, 500*time.Millisecond), Request{Target: "site.test:80", Isolation: l})
		}
		<-time.After(time.Minute)
		if n := b.Stats().Circuits; n != maxUnused {
			t.Errorf("%d unused circuits stand, want the bound, %d", n, maxUnused)
		}
	})
}

// TestChosenSpares checks that a spare which was built for one choice of relays goes to nobody of another, and
// does not count as his.
func TestChosenSpares(t *testing.T) {
	var exits route.Selectors
	onBed(t, 1, Config{Spares: 1}, func(_ int, e *exit) {
		exits, _ = route.ParseSelectors(e.id.String())
	}, func(b *bed) {
		chosen := Request{Target: "site.test:80", Exit: exits}
		for i := range 3 {
			chosen.Isolation = fmt.Sprint("chosen ", i)
			conn, err := b.Dial(b.t.Context(), chosen)
			if err != nil {
				b.t.Fatal(err)
			}
			conn.Close()
			<-time.After(time.Second)
		}
		key := choice{exit: exits}.key()
		spares := map[string]int{}
		b.pool.mu.Lock()
		for _, h := range b.pool.circuits {
			if h.spare() {
				spares[h.choice]++
			}
		}
		b.pool.mu.Unlock()
		if spares[key] == 0 || spares[""] == 0 {
			b.t.Fatalf("spares by choice: %v, want some of each", spares)
		}
		for _, of := range []string{"", key} {
			for n := 0; ; n++ {
				h, _ := b.pool.take(b.pool.labelled(fmt.Sprint("another ", n), of), of, anyExit)
				if h == nil {
					if n != spares[of] {
						b.t.Errorf("choice %q got %d spares, has %d", of, n, spares[of])
					}
					break
				}
				if h.choice != of {
					b.t.Errorf("choice %q got a spare of %q", of, h.choice)
				}
				defer b.pool.release(h)
			}
		}
	})
}

// TestUsualChoice checks that what the configuration chooses holds for all, spares and the outlook included,
// and that a request may be more particular.
func TestUsualChoice(t *testing.T) {
	ids := make(route.Selectors, 3)
	name := func(i int, e *exit) {
		var err error
		if ids[i], err = route.ParseSelector(e.id.String()); err != nil {
			t.Fatal(err)
		}
	}
	onBed(t, 3, Config{Exit: ids[:2], Exclude: ids[1:2]}, name, func(b *bed) {
		<-time.After(5 * time.Second)
		b.warm("the start", labels("early", defaultSpares)...)
		for i, want := range []bool{true, false, false} {
			if used := b.exits[i].creates.Load() > 0; used != want {
				b.t.Errorf("exit %d is used: %v", i, used)
			}
		}
		b.dial("early0").Close()
		conn, err := b.Dial(b.t.Context(), Request{Target: "site.test:80", Exit: ids[2:]})
		if err != nil || b.exits[2].creates.Load() == 0 {
			b.t.Fatalf("an exit of the request's own: %v", err)
		}
		conn.Close()
		for _, req := range []Request{{Exit: ids[1:2]}, {Exclude: ids[:1]}} {
			req.Target = "site.test:80"
			_, err := b.Dial(b.t.Context(), req)
			if e, ok := errors.AsType[*Error](err); !ok || e.Reason != reasonNoRoute {
				b.t.Errorf("%+v: %v", req, err)
			}
		}
	})
	nobody, err := route.ParseSelectors("nobody")
	if err != nil {
		t.Fatal(err)
	}
	onBed(t, 1, Config{Exit: nobody}, nil, func(b *bed) {
		<-time.After(5 * time.Second)
		if p := b.Progress(); p.Percent != percentRelays || !strings.Contains(p.Summary, "nobody") {
			b.t.Errorf("got %+v", p)
		}
	})
}

// TestManyKinds wants more circuits of different kinds than are kept: their number is bounded, and once it is
// reached nothing more is built.
func TestManyKinds(t *testing.T) {
	onBed(t, 4, Config{}, func(i int, e *exit) {
		e.policy = policy(t, fmt.Sprintf("accept *:%d", 20+i))
	}, func(b *bed) {
		for port := 20; port < 24; port++ {
			for _, l := range labels("many", need.Most) {
				conn, err := b.Dial(b.t.Context(), Request{Target: fmt.Sprintf("host.test:%d", port), Isolation: l})
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			}
		}
		<-time.After(5 * time.Minute)
		if n := b.Stats().Spares; n != maxUnused {
			t.Errorf("%d spares stand, want the bound, %d", n, maxUnused)
		}
		before := b.creates()
		<-time.After(time.Minute)
		if n := b.creates() - before; n != 0 {
			t.Errorf("%d circuits were built in a minute in which nothing was wanted", n)
		}
	})
}
