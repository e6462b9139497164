package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/onion"
)

// mishap is what befalls a request at the first exit that is asked.
type mishap struct {
	befall    func(s *link.Stream, st *mux.Stream)
	reason    wire.Reason // that the application gets; 0: the circuit broke
	elsewhere bool        // another circuit may help
	otherExit bool        // and only through another exit
	takes     time.Duration
}

func mishaps() map[string]mishap {
	all := map[string]mishap{
		"silent": {func(_ *link.Stream, st *mux.Stream) { silent(st) }, wire.ReasonTimeout, true, true, openTimeout},
		"cut":    {func(s *link.Stream, _ *mux.Stream) { s.Reset(wire.ResetDestroyed) }, 0, true, false, 0},
	}
	for r := wire.ReasonDone; r.Valid(); r++ {
		end := func(_ *link.Stream, st *mux.Stream) { st.End(r) }
		m := mishap{befall: end, reason: r}
		switch r {
		case wire.ReasonPolicy, wire.ReasonResourceLimit, wire.ReasonUnsupported, wire.ReasonInternal,
			wire.ReasonShutdown, wire.ReasonNetUnreachable:
			m.elsewhere, m.otherExit = true, true
		}
		all[r.String()] = m
	}
	return all
}

// witness is a network of two exits, of which the first that is asked has a mishap. It notes who was asked,
// and what each was told.
type witness struct {
	mu    sync.Mutex
	asked []int
	told  []string

	otherwise func(*mux.Stream) // what the others do, listen if nil
}

func (w *witness) configure(befall func(*link.Stream, *mux.Stream)) func(int, *exit) {
	return func(i int, e *exit) {
		e.serve = func(s *link.Stream, keys *onion.HopKeys) {
			accept := func(st *mux.Stream) {
				w.mu.Lock()
				w.asked = append(w.asked, i)
				first := len(w.asked) == 1
				w.mu.Unlock()
				go func() {
					switch {
					case first:
						befall(s, st)
					case w.otherwise != nil:
						w.otherwise(st)
					default:
						w.listen(st)
					}
				}()
			}
			session := mux.NewSession(mux.Config{Accept: accept})
			session.Run(s, codec{onion.NewLayer(&keys.Forward, wire.CellSize), onion.NewLayer(&keys.Backward, wire.CellSize)})
		}
	}
}

// listen is echo for one message, which it notes.
func (w *witness) listen(st *mux.Stream) {
	defer st.Close()
	st.Connect()
	b := make([]byte, 100)
	n, err := st.Read(b)
	if err != nil {
		return
	}
	w.mu.Lock()
	w.told = append(w.told, string(b[:n]))
	w.mu.Unlock()
	st.Write(b[:n])
}

// moment is how far the application is when the mishap is known to it. attempt makes the request, up to
// the answer to "hello".
type moment struct {
	name    string
	may     bool // the request may be made elsewhere
	http    bool
	attempt func(b *bed, req Request) (answer string, err error)
}

var moments = []moment{
	{"not early", true, false, func(b *bed, req Request) (string, error) {
		conn, err := b.Dial(b.t.Context(), req)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return exchange(conn)
	}},
	{"early, nothing written", true, false, func(b *bed, req Request) (string, error) {
		conn := b.early(req)
		defer conn.Close()
		<-time.After(2 * openTimeout)
		return exchange(conn)
	}},
	{"early, reading", true, false, func(b *bed, req Request) (string, error) {
		conn := b.early(req)
		defer conn.Close()
		go func() {
			<-time.After(2 * openTimeout)
			conn.Write([]byte("hello"))
		}()
		return read(conn)
	}},
	{"early, copying from a source that is silent", true, false, func(b *bed, req Request) (string, error) {
		conn := b.early(req)
		defer conn.Close()
		r, w := io.Pipe()
		defer w.Close()
		go conn.(io.ReaderFrom).ReadFrom(r)
		go func() {
			<-time.After(2 * openTimeout)
			w.Write([]byte("hello"))
		}()
		return read(conn)
	}},
	{"early, written", false, false, func(b *bed, req Request) (string, error) {
		conn := b.early(req)
		defer conn.Close()
		return exchange(conn)
	}},
	{"early, copied from a source", false, false, func(b *bed, req Request) (string, error) {
		conn := b.early(req)
		defer conn.Close()
		r, w := io.Pipe()
		defer w.Close()
		go conn.(io.ReaderFrom).ReadFrom(r)
		w.Write([]byte("hello"))
		return read(conn)
	}},
	{"HTTP, written", false, true, func(b *bed, req Request) (string, error) {
		req.Kind = wire.KindHTTP
		conn := b.early(req)
		defer conn.Close()
		return exchange(conn)
	}},
	{"HTTP, written, by After", true, true, func(b *bed, req Request) (string, error) {
		req.Kind = wire.KindHTTP
		return again(b, req, b.early(req))
	}},
	{"early, written, by After", true, false, func(b *bed, req Request) (string, error) {
		req.Early = true
		return again(b, req, b.early(req))
	}},
}

// early dials and fails the test unless the connection is there at once.
func (b *bed) early(req Request) net.Conn {
	b.t.Helper()
	if req.Kind == 0 {
		req.Early = true
	}
	conn, err := b.Dial(b.t.Context(), req)
	if err != nil {
		b.t.Fatal(err)
	}
	return conn
}

func exchange(conn net.Conn) (string, error) {
	if _, err := conn.Write([]byte("hello")); err != nil {
		return "", err
	}
	return read(conn)
}

func read(conn net.Conn) (string, error) {
	b := make([]byte, 100)
	n, err := conn.Read(b)
	if n > 0 {
		err = nil
	}
	return string(b[:n]), err
}

// again makes a request as the front door makes a GET.
func again(b *bed, req Request, conn net.Conn) (answer string, err error) {
	for range 10 {
		if answer, err = exchange(conn); err == nil {
			conn.Close()
			return answer, nil
		}
		req.After = conn
		if conn, err = b.Dial(b.t.Context(), req); err != nil {
			return "", err
		}
	}
	return "", errors.New("After never ends")
}

// TestRetryRule checks, for all that can go wrong and at every moment, whether the request is made at another
// exit, and what the application gets: it is as long as none of its bytes has left, or by After, and never else.
func TestRetryRule(t *testing.T) {
	for what, m := range mishaps() {
		for _, at := range moments {
			if at.http && what == "silent" {
				continue // a page takes as long as it takes
			}
			t.Run(what+"/"+at.name, func(t *testing.T) { checkRetry(t, m, at) })
		}
	}
}

func checkRetry(t *testing.T, m mishap, at moment) {
	var w witness
	onBed(t, 2, noSpares, w.configure(m.befall), func(b *bed) {
		answer, err := at.attempt(b, Request{Target: "site.test:80"})
		<-time.After(time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		r := b.Why("")[0]
		if m.elsewhere && at.may {
			if answer != "hello" || err != nil || len(w.asked) != 2 || r.Outcome != OutcomeConnected || r.Err != "" {
				t.Fatalf("got %q, %v; exits %v were asked; %+v", answer, err, w.asked, r)
			}
			if m.otherExit && w.asked[0] == w.asked[1] {
				t.Error("the same exit was asked again")
			}
			return
		}
		end, _ := errors.AsType[*wire.EndError](err)
		switch {
		case len(w.asked) != 1 || answer != "" || len(w.told) != 0:
			t.Fatalf("exits %v were asked, told %q; answer %q, %v", w.asked, w.told, answer, err)
		case m.reason == 0 && !errors.Is(err, circuit.ErrClosed), m.reason != 0 && (end == nil || end.Reason != m.reason):
			t.Errorf("got %v", err)
		case r.Outcome != OutcomeFailed || r.Err != err.Error():
			t.Errorf("got %+v", r)
		}
		if e, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%v is no Error", err)
		} else if remote := end != nil && end.Remote; remote != (e.Hop == 1) {
			t.Errorf("%v is put down to hop %d", err, e.Hop)
		}
	})
}

// TestRetriesAreBounded checks that a request is tried three times in all, however it is made.
func TestRetriesAreBounded(t *testing.T) {
	for _, at := range moments {
		if !at.may {
			continue
		}
		t.Run(at.name, func(t *testing.T) {
			var w witness
			everyone := func(i int, e *exit) {
				e.answer = func(st *mux.Stream) {
					w.mu.Lock()
					w.asked = append(w.asked, i)
					w.mu.Unlock()
					st.End(wire.ReasonInternal)
				}
			}
			onBed(t, maxAttempts+2, noSpares, everyone, func(b *bed) {
				_, err := at.attempt(b, Request{Target: "site.test:80"})
				end, _ := errors.AsType[*wire.EndError](err)
				if end == nil || end.Reason != wire.ReasonInternal || len(w.asked) != maxAttempts {
					t.Errorf("got %v after %d exits", err, len(w.asked))
				}
				seen := map[int]bool{}
				for _, i := range w.asked {
					if seen[i] {
						t.Errorf("exits %v were asked", w.asked)
					}
					seen[i] = true
				}
			})
		})
	}
}

// TestAfterAnswer checks that nothing is tried again that got an answer, or did not fail, or was somebody
// else's.
func TestAfterAnswer(t *testing.T) {
	var w witness
	onBed(t, 2, noSpares, w.configure(func(s *link.Stream, st *mux.Stream) {
		st.Connect()
		st.Write([]byte("half an ans"))
		<-time.After(time.Second)
		s.Reset(wire.ResetDestroyed)
	}), func(b *bed) {
		req := Request{Target: "site.test:80", Kind: wire.KindHTTP}
		conn := b.early(req)
		if answer, err := exchange(conn); answer != "half an ans" {
			t.Fatalf("got %q, %v", answer, err)
		}
		if _, err := io.ReadAll(conn); !errors.Is(err, circuit.ErrClosed) {
			t.Errorf("got %v", err)
		}
		req.After = conn
		if _, err := b.Dial(b.t.Context(), req); err == nil {
			t.Error("an answer that was cut short is asked for again")
		}
		fresh := b.early(Request{Target: "site.test:80", Early: true})
		for name, after := range map[string]Request{
			"one that has not failed": {Target: "site.test:80", After: fresh},
			"another target's":        {Target: "other.test:80", After: conn},
			"a stranger's":            {Target: "site.test:80", After: &net.TCPConn{}},
		} {
			if _, err := b.Dial(b.t.Context(), after); err == nil {
				t.Errorf("went on after %s", name)
			}
		}
		<-time.After(time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.asked) != 2 {
			t.Errorf("%d streams were opened, want 2", len(w.asked))
		}
	})
}

// TestAfterSilence checks what a connection that ends without a byte counts as: an exit that says nothing of
// a page is no use, a destination that says nothing has said all.
func TestAfterSilence(t *testing.T) {
	for kind, want := range map[wire.Kind]int{wire.KindHTTP: 2, wire.KindTCP: 1} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			var w witness
			onBed(t, 2, noSpares, w.configure(func(_ *link.Stream, st *mux.Stream) { st.Connect(); st.Close() }), func(b *bed) {
				req := Request{Target: "site.test:80", Kind: kind, Early: true}
				_, err := again(b, req, b.early(req))
				if (err == nil) != (want == 2) || len(w.asked) != want {
					t.Errorf("%v, and exits %v were asked", err, w.asked)
				}
			})
		})
	}
}

// TestAfterCut breaks the circuit behind the connection and before the first byte of the answer: a request
// that may be made twice is.
func TestAfterCut(t *testing.T) {
	for _, kind := range []wire.Kind{wire.KindHTTP, wire.KindTCP} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			var w witness
			onBed(t, 2, noSpares, w.configure(func(s *link.Stream, st *mux.Stream) {
				st.Connect()
				<-time.After(time.Second)
				s.Reset(wire.ResetDestroyed)
			}), func(b *bed) {
				req := Request{Target: "site.test:80", Kind: kind, Early: true}
				answer, err := again(b, req, b.early(req))
				if answer != "hello" || err != nil || len(w.asked) != 2 {
					t.Errorf("got %q, %v; exits %v were asked", answer, err, w.asked)
				}
				r := b.Why("")
				if len(r) != 1 || r[0].Outcome != OutcomeConnected || r[0].Err != "" || !slices.Contains(whats(r[0]), "break: 0  the circuit broke") {
					t.Errorf("got %+v", r)
				}
			})
		})
	}
}

// TestPageTakesLong asks for a page that is an hour in the making: nobody loses patience but the application.
func TestPageTakesLong(t *testing.T) {
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		e.answer = func(st *mux.Stream) {
			<-time.After(time.Hour)
			echo(st)
		}
	}, func(b *bed) {
		conn := b.early(Request{Target: "site.test:80", Kind: wire.KindHTTP})
		defer conn.Close()
		if answer, err := exchange(conn); answer != "hello" {
			t.Errorf("got %q, %v", answer, err)
		}
	})
}
