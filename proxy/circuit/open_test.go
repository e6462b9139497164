package circuit

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/onion"
)

// serveWith is an exit whose streams are served by serve, each in a goroutine of its own.
func serveWith(serve func(session *mux.Session, st *mux.Stream)) func(*bed, *link.Stream) {
	return func(b *bed, s *link.Stream) {
		keys := b.answer(s, wire.StatusReady)
		if keys == nil {
			return
		}
		var session *mux.Session
		session = mux.NewSession(mux.Config{Accept: func(st *mux.Stream) {
			go func() {
				defer st.Close()
				serve(session, st)
			}()
		}})
		session.Run(s, exitCodec{onion.NewLayer(&keys.Forward, wire.CellSize), onion.NewLayer(&keys.Backward, wire.CellSize)})
	}
}

// pathRoundTrip is that of the bed's only link.
const pathRoundTrip = 20 * time.Millisecond

// TestEarly opens streams without waiting: the answer to what is written is here one round trip later, and
// what the exit says comes by Connected and Read.
func TestEarly(t *testing.T) {
	serve := serveWith(func(_ *mux.Session, st *mux.Stream) {
		if st.Kind() != wire.KindHTTP {
			st.End(wire.ReasonRefused)
			return
		}
		st.Connect()
		io.Copy(st, st)
	})
	onBed(t, serve, func(ctx context.Context, b *bed) {
		c, stop := b.run(ctx)
		began := time.Now()
		conn, err := c.Open(ctx, Request{Kind: wire.KindHTTP, Target: "host.test:80", Early: true})
		if err != nil || time.Since(began) != 0 {
			t.Fatalf("Open took %v, %v", time.Since(began), err)
		}
		waiting, cancel := context.WithTimeout(ctx, pathRoundTrip/2)
		if err := conn.Connected(waiting); err != context.DeadlineExceeded {
			t.Errorf("connected before the exit can have answered: %v", err)
		}
		cancel()
		io.WriteString(conn, "request")
		conn.CloseWrite()
		got, err := io.ReadAll(conn)
		if string(got) != "request" || err != nil || conn.Connected(ctx) != nil {
			t.Errorf("got %q, %v, connected: %v", got, err, conn.Connected(ctx))
		}
		if took := time.Since(began); took != pathRoundTrip/2+pathRoundTrip {
			t.Errorf("the answer took %v", took)
		}
		conn.Close()

		refused, err := c.Open(ctx, Request{Target: "host.test:81", Early: true})
		if err != nil {
			t.Fatal(err)
		}
		var end *wire.EndError
		if _, err := refused.Read(make([]byte, 1)); !errors.As(err, &end) || end.Reason != wire.ReasonRefused || !end.Remote {
			t.Errorf("read: %v", err)
		}
		if err := refused.Connected(ctx); !errors.As(err, &end) || end.Reason != wire.ReasonRefused {
			t.Errorf("connected: %v", err)
		}
		refused.Close()
		stop()
		if err := refused.Connected(ctx); !errors.As(err, &end) {
			t.Errorf("connected behind the circuit's end: %v", err)
		}
		if _, err := c.Open(ctx, Request{Target: "host.test:80", Early: true}); !errors.Is(err, ErrClosed) {
			t.Errorf("open on a closed circuit: %v", err)
		}
	})
}

// TestResolve asks for names and addresses, of exits that answer in every way.
func TestResolve(t *testing.T) {
	answers := []wire.Answer{
		{Addr: netip.MustParseAddr("192.0.2.1"), TTL: time.Minute},
		{Addr: netip.MustParseAddr("2001:db8::1"), TTL: time.Hour / 2},
	}
	name := []wire.Answer{{Name: "host.test", TTL: time.Minute}}
	serve := serveWith(func(_ *mux.Session, st *mux.Stream) {
		if st.Kind() != wire.KindResolve {
			t.Errorf("a stream of kind %v", st.Kind())
		}
		reply := map[string]string{
			"host.test":   string(wire.AppendAnswers(nil, answers)),
			"192.0.2.1":   string(wire.AppendAnswers(nil, name)),
			"nonsense":    "nonsense",
			"empty":       "",
			"long":        strings.Repeat("\x04\x00\x00\x00\x3c\x04abcd", 1+wire.MaxAnswersSize/10),
			"endless":     strings.Repeat("x", 1<<20),
			"2001:db8::1": string(wire.AppendAnswers(nil, name)),
		}
		text, ok := reply[st.Target()]
		switch {
		case ok:
			st.Connect()
			io.WriteString(st, text)
			st.CloseWrite()
		case st.Target() == "cut":
			st.Connect()
			st.Write(wire.AppendAnswers(nil, answers))
			st.End(wire.ReasonReset)
		case st.Target() != "silent":
			st.End(wire.ReasonDNS)
		}
		io.Copy(io.Discard, st)
		<-time.After(time.Minute) // the client ends it
	})
	onBed(t, serve, func(ctx context.Context, b *bed) {
		c, stop := b.run(ctx)
		for host, want := range map[string][]wire.Answer{"host.test": answers, "192.0.2.1": name, "2001:db8::1": name} {
			if got, err := c.Resolve(ctx, host); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %v, %v", host, got, err)
			}
		}
		for host, want := range map[string]wire.Reason{
			"nonsense": wire.ReasonInternal, "empty": wire.ReasonInternal, "long": wire.ReasonInternal,
			"endless": wire.ReasonInternal, "unknown.test": wire.ReasonDNS, "cut": wire.ReasonReset,
		} {
			var end *wire.EndError
			if got, err := c.Resolve(ctx, host); got != nil || !errors.As(err, &end) || end.Reason != want || !end.Remote {
				t.Errorf("%s: %v, %v", host, got, err)
			}
		}
		began := time.Now()
		waiting, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := c.Resolve(waiting, "silent"); err != context.DeadlineExceeded || time.Since(began) != time.Second {
			t.Errorf("a silent exit: %v after %v", err, time.Since(began))
		}
		<-time.After(2 * time.Minute)
		if n := c.Streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
		stop()
		if _, err := c.Resolve(ctx, "host.test"); !errors.Is(err, ErrClosed) {
			t.Errorf("on a closed circuit: %v", err)
		}
	})
}

// TestPushed has the exit push two streams for each stream, one when its reply is over already, and checks
// that each reaches the application of its parent.
func TestPushed(t *testing.T) {
	serve := serveWith(func(session *mux.Session, st *mux.Stream) {
		id, target := st.ID(), st.Target()
		push := func(what string) {
			pushed, err := session.Push(id)
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(pushed, what+" of "+target)
			pushed.CloseWrite()
		}
		st.Connect()
		push("first")
		st.Close()
		<-time.After(time.Second)
		push("second")
	})
	onBed(t, serve, func(ctx context.Context, b *bed) {
		c, stop := b.run(ctx)
		got := make(chan string, 100)
		for _, target := range []string{"a:1", "b:1"} {
			conn, err := c.Open(ctx, Request{Target: target, Pushed: func(pushed *Conn) {
				go func() {
					defer pushed.Close()
					text, err := io.ReadAll(pushed)
					if err != nil || pushed.Connected(ctx) != nil {
						t.Errorf("pushed for %s: %v", target, err)
					}
					got <- target + " takes " + string(text)
				}()
			}})
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
		if _, err := c.Open(ctx, Request{Target: "c:1"}); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		var all []string
		for len(got) > 0 {
			all = append(all, <-got)
		}
		slices.Sort(all)
		want := []string{"a:1 takes first of a:1", "a:1 takes second of a:1", "b:1 takes first of b:1", "b:1 takes second of b:1"}
		if !slices.Equal(all, want) {
			t.Errorf("pushed: %q", all)
		}
		stop()
	})
}

// TestPushersForgotten opens one stream more than the circuit keeps functions for: what is pushed for the
// oldest is refused, what is pushed for the newest arrives.
func TestPushersForgotten(t *testing.T) {
	refused := make(chan uint16, 10)
	serve := serveWith(func(session *mux.Session, st *mux.Stream) {
		st.Connect()
		if st.Target() != "last:1" {
			return
		}
		for _, parent := range []uint16{1, 3, st.ID()} {
			pushed, err := session.Push(parent)
			if err != nil {
				t.Error(err)
				return
			}
			pushed.OnDone(func() {
				if _, err := pushed.Write([]byte("x")); err != nil {
					refused <- parent
				}
			})
		}
		<-time.After(time.Second)
	})
	onBed(t, serve, func(ctx context.Context, b *bed) {
		c, stop := b.run(ctx)
		taken := make(chan string, 10)
		for i := range maxPushers + 1 {
			target := "host:1"
			if i == maxPushers {
				target = "last:1"
			}
			conn, err := c.Open(ctx, Request{Target: target, Pushed: func(*Conn) { taken <- target }})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		<-time.After(time.Second / 2)
		synctest.Wait()
		if len(taken) != 2 || <-taken != "host:1" || <-taken != "last:1" {
			t.Errorf("%d pushed streams arrived", len(taken))
		}
		if len(refused) != 1 || <-refused != 1 {
			t.Errorf("%d pushed streams were refused", len(refused))
		}
		stop()
	})
}
