package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"torproxy/wire"
)

// pair opens a circuit and returns both its ends.
func (nw *network) pair() (client, relay *Stream) {
	nw.Helper()
	served := make(chan *Stream)
	done := make(chan struct{})
	nw.relay(0, func(c *Config) {
		c.Circuit = func(_ context.Context, s *Stream) {
			served <- s
			<-done
		}
	})
	nw.Cleanup(func() { close(done) })
	client = nw.open(nw.link(nw.client(1), 0))
	if _, err := client.Write([]byte{1}); err != nil { // the peer learns of a stream with its first byte
		nw.Fatal(err)
	}
	relay = <-served
	if _, err := io.ReadFull(relay, make([]byte, 1)); err != nil {
		nw.Fatal(err)
	}
	return client, relay
}

// TestResetCodes: a reset ends both directions at the other end, with its code; what is not in the list
// reads as destroyed.
func TestResetCodes(t *testing.T) {
	for code, want := range map[wire.ResetCode]wire.ResetCode{
		wire.ResetDestroyed: wire.ResetDestroyed, wire.ResetCreate: wire.ResetCreate,
		wire.ResetOverloaded: wire.ResetOverloaded, wire.ResetViolation: wire.ResetViolation,
		4: wire.ResetDestroyed, 1<<62 - 1: wire.ResetDestroyed,
	} {
		t.Run(code.String(), func(t *testing.T) {
			overBoth(t, 2, func(nw *network) {
				client, relay := nw.pair()
				reads, writes := make(chan error, 1), make(chan error, 1)
				go func() { _, err := client.Read(make([]byte, 1)); reads <- err }()
				go func() {
					var err error
					for err == nil {
						_, err = client.Write(make([]byte, 64<<10)) // blocks when the window is full
					}
					writes <- err
				}()
				relay.Reset(code)
				relay.Reset(wire.ResetViolation) // only the first counts
				for _, err := range []error{<-reads, <-writes} {
					if got, ok := ResetCodeOf(err); !ok || got != want {
						nw.Errorf("%v reads as %v, %v", uint64(code), got, err)
					}
				}
				if _, err := relay.Read(make([]byte, 1)); err == nil {
					nw.Error("a stream that was reset can be read")
				}
			})
		})
	}
}

func TestResetCodeOfOtherErrors(t *testing.T) {
	overBoth(t, 2, func(nw *network) {
		client, relay := nw.pair()
		client.SetReadDeadline(time.Now().Add(-time.Second))
		_, err := client.Read(make([]byte, 1))
		if _, ok := ResetCodeOf(err); ok || !errors.Is(err, os.ErrDeadlineExceeded) {
			nw.Error(err)
		}
		client.Reset(wire.ResetCreate)
		_, err = client.Read(make([]byte, 1))
		if _, ok := ResetCodeOf(err); ok {
			nw.Error("an own reset reads as the peer's")
		}
		relay.Link().Close()
		_, err = relay.Read(make([]byte, 1))
		if code, ok := ResetCodeOf(err); ok || code != wire.ResetDestroyed {
			nw.Error("a dead link reads as a reset stream")
		}
	})
}

// TestClientAcceptsNothing: its peer cannot open a stream of any kind to a client.
func TestClientAcceptsNothing(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		_, relay := nw.pair()
		ctx, cancel := context.WithTimeout(nw.Context(), time.Minute)
		defer cancel()
		if _, err := relay.Link().Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
			nw.Errorf("Open: %v", err)
		}
		var limit *quic.StreamLimitReachedError
		if _, err := relay.Link().conn.OpenUniStream(); !errors.As(err, &limit) {
			nw.Errorf("OpenUniStream: %v", err)
		}
	})
}

// TestOneWayStream: a dialler that opens one on a link breaks the protocol.
func TestOneWayStream(t *testing.T) {
	overBoth(t, 2, func(nw *network) {
		nw.relay(0, nil)
		conn, err := nw.rawDial(nw.raw(1), 0, nil)
		if err != nil {
			nw.Fatal(err)
		}
		s, err := conn.OpenUniStreamSync(nw.Context())
		if err != nil {
			nw.Fatal(err)
		}
		s.Write([]byte("x"))
		<-conn.Context().Done()
		var end *quic.ApplicationError
		if err := context.Cause(conn.Context()); !errors.As(err, &end) || end.ErrorCode != quic.ApplicationErrorCode(wire.ResetViolation) {
			nw.Errorf("closed with %v", err)
		}
	})
}

// TestReadCells cuts a sequence of cells at odd places.
func TestReadCells(t *testing.T) {
	overBoth(t, 2, func(nw *network) {
		client, relay := nw.pair()
		const cells = 4 * batchCells
		want := make([]byte, cells*wire.CellSize)
		rand.NewChaCha8([32]byte{1}).Read(want)
		go func() {
			rnd := rand.New(rand.NewPCG(1, 1))
			sizes := []int{1, wire.CellSize - 2, 1, 1, wire.CellSize, 3*wire.CellSize + 5, batchCells * wire.CellSize}
			for rest := want; len(rest) > 0; {
				n := rnd.IntN(9000)
				if len(sizes) > 0 {
					n, sizes = sizes[0], sizes[1:]
				}
				n = min(n, len(rest))
				client.Write(rest[:n])
				rest = rest[n:]
			}
		}()
		var got []byte
		enough := errors.New("enough")
		err := relay.ReadCells(func(cells []byte) error {
			if len(cells) == 0 || len(cells)%wire.CellSize != 0 || len(cells) > batchCells*wire.CellSize {
				nw.Errorf("%d bytes at once", len(cells))
			}
			got = append(got, cells...)
			clear(cells) // they are its to change
			if len(got) == len(want) {
				return enough
			}
			return nil
		})
		if err != enough || !bytes.Equal(got, want) {
			nw.Errorf("%v, %d bytes, equal: %v", err, len(got), bytes.Equal(got, want))
		}
	})
}

// TestReadCellsEnds with the cause, and without the part of a cell that came before it.
func TestReadCellsEnds(t *testing.T) {
	for name, end := range map[string]func(*Stream){
		"reset": func(s *Stream) { s.Reset(wire.ResetOverloaded) },
		"FIN":   func(s *Stream) { s.qs.Close() },
		"link":  func(s *Stream) { s.Link().Close() },
	} {
		for _, sent := range []int{0, 1, wire.CellSize + 1} {
			t.Run(name, func(t *testing.T) {
				inBubble(t, 2, func(nw *network) {
					client, relay := nw.pair()
					client.Write(make([]byte, sent))
					<-time.After(time.Second) // virtual: it has arrived
					calls := 0
					result := make(chan error)
					go func() {
						result <- relay.ReadCells(func(cells []byte) error { calls += len(cells); return nil })
					}()
					<-time.After(time.Second)
					end(client)
					err := <-result
					code, reset := ResetCodeOf(err)
					if calls != sent-sent%wire.CellSize || err == nil || (name == "reset") != reset || name == "FIN" && err != io.EOF {
						nw.Errorf("%d bytes sent, %d delivered, then %v", sent, calls, err)
					}
					if reset && code != wire.ResetOverloaded {
						nw.Errorf("code %v", code)
					}
				})
			})
		}
	}
}

// TestPeek waits for a byte and leaves it.
func TestPeek(t *testing.T) {
	overBoth(t, 2, func(nw *network) {
		client, relay := nw.pair()
		go client.Write([]byte("abc"))
		var b [3]byte
		if n, err := relay.Peek(b[:1]); n != 1 || err != nil || b[0] != 'a' {
			nw.Error(n, err, b)
		}
		if _, err := io.ReadFull(relay, b[:]); err != nil || string(b[:]) != "abc" {
			nw.Error(err, b)
		}
	})
}

// TestBackPressure: a circuit that nobody reads takes no more than its window, and does not hold up others.
func TestBackPressure(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		client, _ := nw.pair()
		client.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := client.Write(make([]byte, 16<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || n > maxStreamWindow+1<<20 {
			nw.Errorf("%d bytes taken, %v", n, err)
		}
		other, err := client.Link().Open(nw.Context())
		if err != nil {
			nw.Fatal(err)
		}
		if _, err := other.Write([]byte("x")); err != nil {
			nw.Error(err)
		}
		other.Reset(wire.ResetDestroyed)
	})
}
