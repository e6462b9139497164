package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/onion"
)

// slowed is a circuit's stream that what the exit writes to it gets through only after a while.
type slowed struct {
	*link.Stream
	by *atomic.Int64
}

func (s slowed) Write(p []byte) (int, error) {
	<-time.After(time.Duration(s.by.Load()))
	return s.Stream.Write(p)
}

// TestSlowCircuit slows circuits down while they are in use. One that has become slow takes no new streams,
// and keeps those that it has; where all are slow, they are not replaced one after the other.
func TestSlowCircuit(t *testing.T) {
	var by atomic.Int64
	onBed(t, 1, noSpares, func(_ int, e *exit) {
		e.serve = func(s *link.Stream, keys *onion.HopKeys) { e.sessionOver(slowed{s, &by}, keys) }
	}, func(b *bed) {
		use := func() {
			b.dial("a").Close()
			<-time.After(10 * time.Second)
		}
		long := b.dial("a")
		first := b.circuitOf("a")
		carries := func() string {
			conn := b.dial("a")
			defer conn.Close()
			return b.circuitOf("a")
		}
		for range 2 * slowRow {
			use()
		}
		by.Store(int64(slowLeast / 2))
		for range 2 * slowRow {
			use()
		}
		if carries() != first {
			t.Error("a circuit that is as quick as it was is not used any more")
		}
		by.Store(int64(2 * slowLeast))
		<-time.After(10 * time.Second)
		for range slowRow {
			use()
		}
		second := carries()
		if second == first {
			t.Errorf("after %d slow answers the circuit is still used", slowRow)
		}
		if _, err := long.Write([]byte("still here")); err != nil {
			t.Errorf("the open stream: %v", err)
		}
		if _, err := io.ReadFull(long, make([]byte, 10)); err != nil {
			t.Errorf("the open stream: %v", err)
		}
		for range slowRow - 1 {
			use()
		}
		if carries() != second {
			t.Errorf("the next circuit, which is as slow, is replaced within %v", slowPause)
		}
	})
}

// TestMuteCircuit has a circuit go mute. Whoever gives up a page, a connection or a name on it, and tries again, is not
// sent there for the next ten minutes; where the circuit answers, it stays.
func TestMuteCircuit(t *testing.T) {
	page := Request{Target: "site.test:80", Isolation: "a", Kind: wire.KindHTTP}
	pipe := Request{Target: "site.test:80", Isolation: "a"}
	question := Request{Target: "site.test", Isolation: "a", Kind: wire.KindResolve}
	giveUp := func(b *bed, req Request, after time.Duration) {
		ctx, cancel := context.WithTimeout(b.t.Context(), after)
		defer cancel()
		open := func() error { _, err := b.Dial(ctx, req); return err }
		if req.Kind == wire.KindResolve {
			open = func() error { _, err := b.Resolve(ctx, req); return err }
		}
		if req.Kind != wire.KindHTTP {
			if err := open(); !errors.Is(err, context.DeadlineExceeded) {
				b.t.Errorf("got %v", err)
			}
			return
		}
		conn := b.early(req)
		conn.Write([]byte("GET"))
		<-ctx.Done()
		conn.Close()
	}
	for name, req := range map[string]Request{"page": page, "pipe": pipe, "question": question} {
		for _, deaf := range []bool{true, false} { // else the exit is only slow to say CONNECTED
			t.Run(fmt.Sprintf("%s, mute %v", name, deaf), func(t *testing.T) {
				var end chan struct{}
				var circuits, streams atomic.Int64
				onBed(t, 1, noSpares, func(_ int, e *exit) {
					mute := make(chan struct{})
					end = make(chan struct{})
					e.serve = func(s *link.Stream, keys *onion.HopKeys) {
						if circuits.Add(1) == 1 {
							e.sessionOver(muted{s, mute, end}, keys)
						} else {
							e.session(s, keys)
						}
					}
					e.answer = func(st *mux.Stream) {
						if streams.Add(1) > 1 {
							echo(st)
							return
						}
						if deaf {
							close(mute)
						}
						silent(st)
					}
				}, func(b *bed) {
					defer close(end)
					giveUp(b, req, 3*time.Second)
					<-time.After(muteLeast + time.Second)
					conn := b.early(page)
					defer conn.Close()
					conn.SetDeadline(time.Now().Add(openTimeout))
					if answer, err := exchange(conn); answer != "hello" {
						t.Errorf("the second attempt got %q, %v", answer, err)
					}
					if n := circuits.Load(); (n == 2) != deaf {
						t.Errorf("%d circuits were built", n)
					}
				})
			})
		}
	}
}
