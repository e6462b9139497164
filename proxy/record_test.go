package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/frontdoor"
	"torproxy/wire"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// whats lists the steps of a record as "what: hop relay result".
func whats(r Record) (all []string) {
	for _, s := range r.Steps {
		all = append(all, fmt.Sprintf("%s: %d %s %s", s.What, s.Hop, s.Relay, s.Result))
	}
	return all
}

// TestWhy follows a request through everything that can happen to it, and checks what is told of it, with
// times.
func TestWhy(t *testing.T) {
	const way = 10 * time.Millisecond // of one packet
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		e.answer = func(st *mux.Stream) {
			<-time.After(time.Second)
			st.Connect()
			<-time.After(2 * time.Second)
			st.Write([]byte("x"))
			<-time.After(3 * time.Second)
			st.End(wire.ReasonReset)
		}
	}, func(b *bed) {
		if all := b.Why(""); len(all) != 0 {
			t.Errorf("before the first request: %+v", all)
		}
		go func() {
			<-time.After(500 * time.Millisecond)
			if all := b.Why("site.test"); len(all) != 1 || all[0].Outcome != OutcomePending || all[0].Took == 0 {
				t.Errorf("while it waits: %+v", all)
			}
		}()
		began := time.Now()
		conn := b.dial("label")
		if _, err := io.ReadAll(conn); err == nil {
			t.Error("no error")
		}
		r := b.Why("SITE.test.")[0]
		if r.Target != "site.test:80" || r.Isolation != "label" || !r.Began.Equal(began) || r.Outcome != OutcomeBroken ||
			r.Err != "proxy: hop 1 of 1, the exit: connection reset" || !slices.Equal(r.Path, []string{"exit"}) {
			t.Errorf("got %+v", r)
		}
		id := b.Circuits()[0].ID
		build := r.Steps[0].Took // of the first circuit, link and all
		want := []Step{
			{StepBuild, id, 0, "", build, "ok"},
			{StepCircuit, id, 0, "", build, "built"},
			{StepOpen, id, 1, "exit", time.Second + 2*way, "ok"},
			{StepFirstByte, id, 1, "exit", 2 * time.Second, "ok"},
			{StepBreak, id, 1, "exit", 5 * time.Second, "connection reset"},
		}
		if !reflect.DeepEqual(r.Steps, want) || build < 2*way || build > 10*way {
			t.Errorf("got  %v\nwant %v", r.Steps, want)
		}
		if r.Took != build+time.Second+2*way {
			t.Errorf("took %v", r.Took)
		}
		conn.Close()
		second := b.dial("label")
		if r := b.Why("site.test")[0]; r.Steps[0].Result != "ready" || r.Outcome != OutcomeConnected {
			t.Errorf("on a circuit that stands: %+v", r)
		}
		second.Close()
		b.NewIdentity()
		if all := b.Why(""); len(all) != 0 {
			t.Errorf("after NewIdentity: %+v", all)
		}
	})
}

// TestWhyFailures checks who is named for what went wrong on the way.
func TestWhyFailures(t *testing.T) {
	key := newKey(t)
	onBed(t, 2, noSpares, func(i int, e *exit) {
		if i == 0 { // its key is another one than the consensus says
			e.ring = onion.NewKeyring(e.id, key, 10)
			return
		}
		e.answer = says(wire.ReasonPolicy)
	}, func(b *bed) {
		for range 20 { // until the exits are drawn in either order
			if _, err := b.Dial(b.t.Context(), Request{Target: "site.test:80", Isolation: fmt.Sprint(time.Now())}); err == nil {
				t.Fatal("connected")
			}
		}
		for _, r := range b.Why("site.test") {
			all := whats(r)
			if slices.Contains(all, "build: 1 exit circuit reset") && slices.Contains(all, "open: 1 exit exit policy") {
				return
			}
			if r.Outcome != OutcomeFailed || r.Err == "" {
				t.Errorf("got %+v", r)
			}
		}
		t.Errorf("no record has both failures: %q", whats(b.Why("")[0]))
	})
}

// TestRecordsBounded checks that the last 256 are kept, newest first, that a long story is cut and that
// nobody writes into another's record.
func TestRecordsBounded(t *testing.T) {
	var p Proxy
	var traces []trace
	for i := range 2*maxRecords + 7 {
		tr := p.records.begin(fmt.Sprintf("h%d.test:%d", i%2, i), "l")
		for range maxSteps + 5 {
			tr.step(Step{What: fmt.Sprint(i)})
		}
		traces = append(traces, tr)
	}
	traces[0].step(Step{What: "late"})
	traces[0].failed(OutcomeFailed, errors.New("late"))
	all := p.Why("")
	if len(all) != maxRecords {
		t.Fatalf("%d records", len(all))
	}
	for i, r := range all {
		n := 2*maxRecords + 6 - i
		if r.Target != fmt.Sprintf("h%d.test:%d", n%2, n) || len(r.Steps) != maxSteps || r.Steps[0].What != fmt.Sprint(n) || r.Err != "" {
			t.Fatalf("record %d is %+v", i, r)
		}
	}
	if n := len(p.Why("h1.test")); n != maxRecords/2 {
		t.Errorf("%d records of one of two hosts", n)
	}
	all[0].Steps[0].What = "changed"
	if p.Why("")[0].Steps[0].What == "changed" {
		t.Error("what Why returns is not the reader's own")
	}
	p.records.forget()
	traces[len(traces)-1].failed(OutcomeFailed, errors.New("late"))
	if n := len(p.Why("")); n != 0 {
		t.Errorf("%d records after all were forgotten", n)
	}
	p.records.begin("a.test:1", "")
	if all := p.Why(""); len(all) != 1 || len(all[0].Steps) != 0 {
		t.Errorf("after a new one: %+v", all)
	}
	trace{}.step(Step{}) // of spares: nobody asked for them
	trace{}.built("1", nil, 0, circuit.ErrClosed)
}

// TestWhyHosts checks which spellings name the same host.
func TestWhyHosts(t *testing.T) {
	var p Proxy
	for _, target := range []string{"Site.test:80", "site.test.:443", "site.test", "[2001:DB8::1]:80", "192.0.2.1:80", "other.test:80"} {
		p.records.begin(target, "")
	}
	for host, want := range map[string]int{
		"site.test": 3, "SITE.TEST.": 3, "2001:db8::1": 1, "[2001:db8:0::1]": 1, "192.0.2.1": 1, "::ffff:192.0.2.1": 1,
		"other.test": 1, "test": 0, "": 6,
	} {
		if got := len(p.Why(host)); got != want {
			t.Errorf("%q: %d records, want %d", host, got, want)
		}
	}
}

// storyOf writes what a Dial on a circuit that stands writes.
func storyOf(r *records, route []*netdoc.Relay) {
	tr := r.begin("site.test:80", "label")
	tr.onPath("1", route, 0, "ready")
	tr.answered(StepOpen, "1", route, time.Millisecond, nil)
	tr.connected(OutcomeConnected)
	tr.answered(StepFirstByte, "1", route, time.Millisecond, nil)
}

var threeHops = []*netdoc.Relay{{Nickname: "a"}, {Nickname: "b"}, {Nickname: "c"}}

// TestRecordCost checks that records take no new memory once the ring is full.
func TestRecordCost(t *testing.T) {
	var r records
	for range maxRecords {
		storyOf(&r, threeHops)
	}
	if n := testing.AllocsPerRun(1000, func() { storyOf(&r, threeHops) }); n > 0 {
		t.Errorf("%v allocations for a record", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	var r records
	b.ReportAllocs()
	for b.Loop() {
		storyOf(&r, threeHops)
	}
}

// TestErrorsNameNobody checks that what a page may see of a real failure has no names in it, and Why has.
func TestErrorsNameNobody(t *testing.T) {
	onBed(t, 1, noSpares, func(_ int, e *exit) { e.ring = onion.NewKeyring(e.id, newKey(t), 10) }, func(b *bed) {
		_, err := b.Dial(b.t.Context(), Request{Target: "site.test:80"})
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Hop != 1 || e.Hops != 1 || e.ProxyStatus() != "hop 1 of 1: circuit reset" {
			t.Errorf("got %v", err)
		}
		if r := b.Why("")[0]; r.Steps[0].Relay != "exit" {
			t.Errorf("got %+v", r)
		}
	})
}

// startingDoor is a front door's client that is as far as its Progress says, and whose dials fail.
type startingDoor struct {
	frontdoor.Backend
	Progress
}

func (d startingDoor) Status() frontdoor.Status {
	return frontdoor.Status{Bootstrap: frontdoor.Bootstrap{Percent: d.Percent, Summary: d.Summary}}
}

// TestPageReadsNoNames checks what a page is told of a client that cannot build circuits: the user is told by
// which relay, the page is not.
func TestPageReadsNoNames(t *testing.T) {
	door, failed := startingDoor{}, error(nil)
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		e.name, e.ring = "alice", onion.NewKeyring(e.id, newKey(t), 10)
	}, func(b *bed) {
		_, failed = b.Dial(b.t.Context(), Request{Target: "site.test:80"})
		door.Progress = b.Progress()
	})
	if !strings.Contains(door.Summary, "alice") || failed == nil {
		t.Fatalf("the user is told %q; the dial: %v", door.Summary, failed)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := frontdoor.New(frontdoor.Config{
		Backend: door, Dial: func(context.Context, frontdoor.Request) (net.Conn, error) { return nil, failed },
	})
	var serving sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	serving.Go(func() { front.Serve(ctx, l) })
	defer serving.Wait()
	defer stop()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: l.Addr().String()}),
	}}
	resp, err := c.Get("http://site.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusBadGateway || !strings.Contains(string(body), "still starting: 75 %") {
		t.Errorf("%s, %v: %q", resp.Status, err, body)
	}
	if told := string(body) + fmt.Sprint(resp.Header); strings.Contains(told, "alice") {
		t.Errorf("a page is told %q", told)
	}
}
