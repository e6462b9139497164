package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/onion"
)

const roundTrip = 20 * time.Millisecond // of the bed's network

// TestEarly checks what Early is for: the first byte comes one round trip after the dial, and two without.
func TestEarly(t *testing.T) {
	onBed(t, 1, Config{}, nil, func(b *bed) {
		<-time.After(time.Second) // circuits stand
		for _, test := range []struct {
			req  Request
			want time.Duration
		}{
			{Request{Target: "site.test:80"}, 2 * roundTrip},
			{Request{Target: "site.test:80", Early: true}, roundTrip},
			{Request{Target: "site.test:80", Kind: wire.KindHTTP}, roundTrip},
		} {
			began := time.Now()
			conn, err := b.Dial(b.t.Context(), test.req)
			if err != nil {
				t.Fatal(err)
			}
			if answer, err := exchange(conn); answer != "hello" || err != nil || time.Since(began) != test.want {
				t.Errorf("%+v: %q after %v, want it after %v; %v", test.req, answer, time.Since(began), test.want, err)
			}
			conn.Close()
		}
	})
}

// TestEarlyShown checks what is shown of a stream while its exit has not answered.
func TestEarlyShown(t *testing.T) {
	onBed(t, 1, noSpares, nil, func(b *bed) {
		conn := b.early(Request{Target: "site.test:80"})
		defer conn.Close()
		shown := func() []StreamInfo { return b.Circuits()[0].Streams }
		if s := shown(); len(s) != 1 || s[0].Target != "site.test:80" || s[0].Took != 0 {
			t.Errorf("before the answer: %+v", s)
		}
		<-time.After(time.Second)
		if s := shown(); len(s) != 1 || s[0].Took != roundTrip {
			t.Errorf("behind the answer: %+v", s)
		}
	})
}

// TestMoveKeeps checks that a connection takes along what the application has set before it moved: the
// half close and the deadlines.
func TestMoveKeeps(t *testing.T) {
	refuse := func(_ *link.Stream, st *mux.Stream) {
		<-time.After(time.Second)
		st.End(wire.ReasonInternal)
	}
	t.Run("half close", func(t *testing.T) {
		var w witness
		onBed(t, 2, noSpares, w.configure(refuse), func(b *bed) {
			conn := b.early(Request{Target: "site.test:80"})
			defer conn.Close()
			if err := closeWrite(conn); err != nil {
				t.Error(err)
			}
			_, err := conn.Read(make([]byte, 1))
			if err != io.EOF || len(w.asked) != 2 { // the second exit reads to the end, and closes
				t.Errorf("got %v after exits %v", err, w.asked)
			}
		})
	})
	t.Run("deadlines", func(t *testing.T) {
		var w witness
		onBed(t, 2, noSpares, w.configure(refuse), func(b *bed) {
			began := time.Now()
			conn := b.early(Request{Target: "site.test:80"})
			defer conn.Close()
			conn.SetDeadline(began.Add(3 * time.Second))
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 3*time.Second {
				t.Errorf("got %v after %v", err, time.Since(began))
			}
			<-time.After(time.Millisecond) // of two timers for one moment either may be the first
			if _, err := conn.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("wrote: %v", err)
			}
			if len(w.asked) != 2 {
				t.Errorf("exits %v were asked", w.asked)
			}
			conn.SetDeadline(time.Time{})
			if answer, err := exchange(conn); answer != "hello" {
				t.Errorf("behind the deadline: %q, %v", answer, err)
			}
		})
	})
}

func closeWrite(c net.Conn) error { return c.(interface{ CloseWrite() error }).CloseWrite() }

// TestWriteWaitsForMove writes while the connection looks for another circuit: it goes to that one, whole.
func TestWriteWaitsForMove(t *testing.T) {
	var w witness
	slow := func(i int, e *exit) {
		w.configure(func(_ *link.Stream, st *mux.Stream) { st.End(wire.ReasonInternal) })(i, e)
		create := e.circuit
		e.circuit = func(s *link.Stream) {
			<-time.After(time.Second)
			create(s)
		}
	}
	onBed(t, 2, noSpares, slow, func(b *bed) {
		conn := b.early(Request{Target: "site.test:80"})
		defer conn.Close()
		<-time.After(500 * time.Millisecond) // refused, and the next circuit on its way
		conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		began := time.Now()
		if _, err := conn.Write([]byte("hello")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 100*time.Millisecond {
			t.Errorf("during the move: %v after %v", err, time.Since(began))
		}
		conn.SetWriteDeadline(time.Time{})
		if answer, err := exchange(conn); answer != "hello" || err != nil {
			t.Errorf("got %q, %v", answer, err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if !slices.Equal(w.told, []string{"hello"}) {
			t.Errorf("the exits were told %q", w.told)
		}
	})
}

// TestDeadlineMoves sets a read's deadline while it waits for the exit's answer, as net/http does to end it.
func TestDeadlineMoves(t *testing.T) {
	onBed(t, 1, noSpares, func(_ int, e *exit) { e.answer = silent }, func(b *bed) {
		conn := b.early(Request{Target: "site.test:80", Kind: wire.KindHTTP})
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(time.Hour))
		began := time.Now()
		go func() {
			<-time.After(time.Second)
			conn.SetReadDeadline(time.Unix(1, 0))
		}()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

// TestCloseEarly closes a connection whose exit has not answered: reads end, the record says who gave up,
// nothing is left behind, and what was written before is delivered.
func TestCloseEarly(t *testing.T) {
	t.Run("unanswered", func(t *testing.T) {
		onBed(t, 2, noSpares, func(_ int, e *exit) { e.answer = silent }, func(b *bed) {
			conn := b.early(Request{Target: "site.test:80"})
			began := time.Now()
			go func() {
				<-time.After(time.Second)
				conn.Close()
			}()
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) || time.Since(began) != time.Second {
				t.Errorf("got %v after %v", err, time.Since(began))
			}
			if _, err := conn.Write([]byte("x")); err == nil {
				t.Error("wrote behind Close")
			}
			<-time.After(time.Second)
			if r := b.Why("")[0]; r.Outcome != OutcomeGivenUp {
				t.Errorf("got %+v", r)
			}
			if s := b.Circuits()[0].Streams; len(s) != 0 {
				t.Errorf("streams are left: %+v", s)
			}
			if s := b.Stats(); s.Dials[DialGivenUp] != 1 || len(s.Dials) != 1 {
				t.Errorf("counted %v", s.Dials)
			}
			if err := conn.Close(); err != nil {
				t.Errorf("the second Close: %v", err)
			}
		})
	})
	t.Run("written", func(t *testing.T) {
		sent := bytes.Repeat([]byte("data "), 10000)
		var got atomic.Pointer[[]byte]
		onBed(t, 1, noSpares, func(_ int, e *exit) {
			e.answer = func(st *mux.Stream) {
				defer st.Close()
				all, _ := io.ReadAll(st)
				got.Store(&all)
			}
		}, func(b *bed) {
			conn := b.early(Request{Target: "site.test:80"})
			if _, err := conn.Write(sent); err != nil {
				t.Error(err)
			}
			closeWrite(conn)
			conn.Close()
			b.NewIdentity() // the circuit goes with its last stream
			<-time.After(time.Second)
			if all := got.Load(); all == nil || !bytes.Equal(*all, sent) {
				t.Error("not all arrived")
			}
		})
	})
	t.Run("moving", func(t *testing.T) {
		onBed(t, 3, noSpares, func(_ int, e *exit) { e.answer = says(wire.ReasonPolicy) }, func(b *bed) {
			conn := b.early(Request{Target: "site.test:80"})
			<-time.After(roundTrip + time.Millisecond) // refused: it looks for another circuit
			conn.Close()
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v", err)
			}
			<-time.After(time.Second)
			for _, c := range b.Circuits() {
				if len(c.Streams) != 0 {
					t.Errorf("streams are left: %+v", c.Streams)
				}
			}
		})
	})
}

// TestStopEarly stops the proxy under connections that wait, move and stand.
func TestStopEarly(t *testing.T) {
	for name, answer := range map[string]func(*mux.Stream){"waiting": silent, "moving": says(wire.ReasonPolicy), "standing": echo} {
		t.Run(name, func(t *testing.T) {
			onBed(t, 4, noSpares, func(_ int, e *exit) { e.answer = answer }, func(b *bed) {
				conn := b.early(Request{Target: "site.test:80"})
				<-time.After(roundTrip + time.Millisecond)
				began := time.Now()
				b.stop()
				if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
					t.Errorf("got %v", err)
				}
				<-b.ended
				if took := time.Since(began); took > time.Second {
					t.Errorf("took %v", took)
				}
				conn.Close()
			})
		})
	}
}

// TestCut breaks the circuit under a connection that stands: an error at once, no end of file, never another
// circuit; the next request works.
func TestCut(t *testing.T) {
	for name, req := range map[string]Request{
		"dialled": {Target: "site.test:80"}, "early": {Target: "site.test:80", Early: true}, "HTTP": {Target: "site.test:80", Kind: wire.KindHTTP},
	} {
		t.Run(name, func(t *testing.T) {
			var w witness
			onBed(t, 2, noSpares, w.configure(func(s *link.Stream, st *mux.Stream) {
				st.Connect()
				st.Write([]byte("half of it"))
				<-time.After(time.Second)
				s.Reset(wire.ResetDestroyed)
			}), func(b *bed) {
				conn, err := b.Dial(b.t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				var got bytes.Buffer
				_, err = conn.(io.WriterTo).WriteTo(&got)
				e, ok := errors.AsType[*Error](err)
				if got.String() != "half of it" || !ok || !errors.Is(err, circuit.ErrClosed) || errors.Is(err, io.EOF) ||
					e.ProxyStatus() != "hop 0 of 1: the circuit broke" || e.Timeout() {
					t.Errorf("got %q, %v", got.String(), err)
				}
				if _, err := conn.Write([]byte("x")); !errors.Is(err, circuit.ErrClosed) {
					t.Errorf("wrote: %v", err)
				}
				r := b.Why("")[0]
				if r.Outcome != OutcomeBroken || r.Err != err.Error() || r.Steps[len(r.Steps)-1].What != StepBreak {
					t.Errorf("got %+v", r)
				}
				next := b.dial("")
				defer next.Close()
				if answer, err := exchange(next); answer != "hello" {
					t.Errorf("the next one: %q, %v", answer, err)
				}
			})
		})
	}
}

// TestLostCircuits checks after which failures a circuit takes no more streams: when it would fail the next
// as well. What an exit says of one destination is no reason.
func TestLostCircuits(t *testing.T) {
	for what, m := range mishaps() {
		t.Run(what, func(t *testing.T) {
			var w witness
			onBed(t, 1, noSpares, w.configure(m.befall), func(b *bed) {
				ctx, cancel := context.WithTimeout(b.t.Context(), openTimeout+time.Second)
				defer cancel()
				if conn, err := b.Dial(ctx, Request{Target: "site.test:80"}); err == nil {
					conn.Close()
				}
				<-time.After(time.Second)
				b.dial("").Close()
				want := int64(1)
				if what == "silent" || what == "cut" || what == wire.ReasonShutdown.String() {
					want = 2
				}
				if n := b.creates(); n != want {
					t.Errorf("%d circuits were built for this request and the next, want %d", n, want)
				}
				if left := len(b.Circuits()); left != 1 {
					t.Errorf("%d circuits are left", left)
				}
			})
		})
	}
}

// TestPushed opens streams from the exit: the application gets them as connections of the same circuit, which
// stays as long as they do.
func TestPushed(t *testing.T) {
	onBed(t, 1, noSpares, pushing, func(b *bed) {
		var pushed = make(chan net.Conn, 1)
		conn := b.early(Request{Target: "site.test:80", Kind: wire.KindHTTP, Pushed: func(c net.Conn) { pushed <- c }})
		if answer, err := exchange(conn); answer != "hello" {
			t.Fatalf("got %q, %v", answer, err)
		}
		conn.Close()
		p := <-pushed
		b.NewIdentity()
		<-time.After(time.Second)
		if c := b.Circuits(); len(c) != 1 || c[0].State != "closing" || len(c[0].Streams) != 1 {
			t.Errorf("circuits: %+v", c)
		}
		if got, err := io.ReadAll(p); string(got) != "unasked for" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		p.Close()
		<-time.After(time.Second)
		if c := b.Circuits(); len(c) != 0 {
			t.Errorf("circuits: %+v", c)
		}
	})
}

// pushing makes an exit whose every reply leads to another two seconds later.
func pushing(_ int, e *exit) {
	e.serve = func(s *link.Stream, keys *onion.HopKeys) {
		var session *mux.Session
		session = mux.NewSession(mux.Config{Accept: func(st *mux.Stream) {
			go func() {
				defer st.Close()
				st.Connect()
				io.CopyN(st, st, 5)
				p, err := session.Push(st.ID())
				if err != nil {
					return
				}
				<-time.After(2 * time.Second)
				p.Write([]byte("unasked for"))
				p.Close()
			}()
		}})
		session.Run(s, codec{onion.NewLayer(&keys.Forward, wire.CellSize), onion.NewLayer(&keys.Backward, wire.CellSize)})
	}
}

// TestEarlyRace writes, reads, sets deadlines and closes while the exits refuse one after the other.
func TestEarlyRace(t *testing.T) {
	onBed(t, 4, noSpares, func(_ int, e *exit) { e.answer = says(wire.ReasonInternal) }, func(b *bed) {
		var all sync.WaitGroup
		for i := range 20 {
			conn := b.early(Request{Target: "site.test:80", Isolation: string(rune('a' + i%5))})
			delay := time.Duration(i) * 7 * time.Millisecond
			all.Go(func() { io.Copy(io.Discard, conn) })
			all.Go(func() { <-time.After(delay); conn.Write([]byte("x")) })
			all.Go(func() { <-time.After(delay + time.Millisecond); conn.SetDeadline(time.Now().Add(time.Hour)) })
			all.Go(func() { <-time.After(2*delay + 50*time.Millisecond); conn.Close() })
		}
		all.Wait()
		<-time.After(time.Second)
		for _, c := range b.Circuits() {
			if len(c.Streams) != 0 {
				t.Errorf("streams are left: %+v", c.Streams)
			}
		}
	})
}

// TestPrematurelyGivenUp cancels a Dial that is early while it waits for its circuit.
func TestPrematurelyGivenUp(t *testing.T) {
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		e.circuit = func(s *link.Stream) { io.Copy(io.Discard, s) } // no CREATED
	}, func(b *bed) {
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Second)
		defer cancel()
		go func() {
			<-time.After(time.Second / 2)
			cancel()
		}()
		_, err := b.Dial(ctx, Request{Target: "site.test:80", Early: true})
		if r := b.Why("")[0]; !errors.Is(err, context.Canceled) || r.Outcome != OutcomeGivenUp {
			t.Errorf("got %v, %+v", err, r)
		}
	})
}
