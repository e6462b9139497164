package relay

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/mux"
	"torproxy/wire/onion"
)

// sessionFrom builds a circuit from a node and serves its streams until the end of the test.
func (b *bed) sessionFrom(from *link.Node, path ...int) *mux.Session {
	b.t.Helper()
	packet, h := b.create(path...)
	stream := b.openFrom(from, path[0])
	created := make([]byte, wire.CreatedSize)
	_, err := stream.Write(packet)
	if err == nil {
		_, err = io.ReadFull(stream, created)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	keys, err := h.Finish(created)
	if err != nil {
		b.t.Fatal(err)
	}
	s := mux.NewSession(mux.Config{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(stream, onion.NewClient(keys, wire.CellSize))
	}()
	b.done = append(b.done, func() { s.Close(nil); <-ended })
	return s
}

// ask opens a stream and waits for the answer.
func (b *bed) ask(s *mux.Session, kind wire.Kind, target string) (*mux.Stream, error) {
	b.t.Helper()
	st, err := s.Open(kind, target)
	if err != nil {
		b.t.Fatal(err)
	}
	return st, st.Connected(b.t.Context())
}

// wantEnd reports an error that is not an END by the relay with this reason.
func wantEnd(t *testing.T, what string, err error, want wire.Reason) {
	t.Helper()
	if end, ok := errors.AsType[*wire.EndError](err); !ok || !end.Remote || end.Reason != want {
		t.Errorf("%s: %v, want END: %v", what, err, want)
	}
}

func TestEcho(t *testing.T) {
	onBed(t, 2, nil, func(b *bed) {
		s := b.sessionFrom(b.master, 0)
		st, err := b.ask(s, wire.KindEcho, wire.EchoTarget)
		if err != nil {
			t.Fatal(err)
		}
		sent := bytes.Repeat([]byte("measure for measure "), echoBytes/20)
		go func() {
			st.Write(sent)
			st.CloseWrite()
		}()
		if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes of %d came back, or others: %v", len(got), len(sent), err)
		}
		st.Close()
	})
}

// The echo serves authorities only, at the first hop only.
func TestEchoIsForAuthorities(t *testing.T) {
	onBed(t, 2, nil, func(b *bed) {
		for name, tt := range map[string]struct {
			from   *link.Node
			path   []int
			kind   wire.Kind
			target string
		}{
			"a client":                     {b.client, []int{0}, wire.KindEcho, wire.EchoTarget},
			"an authority, two hops":       {b.master, []int{0, 1}, wire.KindEcho, wire.EchoTarget},
			"an authority, another target": {b.master, []int{0}, wire.KindEcho, "echo:1"},
			"another kind":                 {b.master, []int{0}, wire.KindDirectory, wire.EchoTarget},
		} {
			_, err := b.ask(b.sessionFrom(tt.from, tt.path...), tt.kind, tt.target)
			wantEnd(t, name, err, wire.ReasonUnsupported)
		}
	})
}

func TestEchoIsBounded(t *testing.T) {
	onBed(t, 1, nil, func(b *bed) {
		s := b.sessionFrom(b.master, 0)
		open := make([]*mux.Stream, maxEchoes)
		for i := range open {
			var err error
			if open[i], err = b.ask(s, wire.KindEcho, wire.EchoTarget); err != nil {
				t.Fatal(err)
			}
		}
		_, err := b.ask(s, wire.KindEcho, wire.EchoTarget)
		wantEnd(t, "one echo too many", err, wire.ReasonResourceLimit)
		began := time.Now()
		_, err = open[0].Read(make([]byte, 1))
		wantEnd(t, "an echo that is not used", err, wire.ReasonResourceLimit)
		if took := time.Since(began); took > echoTime+time.Second || took < echoTime-time.Second {
			t.Errorf("it ended after %v, want about %v", took, echoTime)
		}
		st, err := b.ask(s, wire.KindEcho, wire.EchoTarget)
		if err != nil {
			t.Fatal(err)
		}
		go st.Write(make([]byte, echoBytes+1<<20))
		n, err := io.Copy(io.Discard, st)
		wantEnd(t, "too many bytes", err, wire.ReasonResourceLimit)
		if n > echoBytes {
			t.Errorf("%d bytes came back", n)
		}
	})
}

// A link of an authority counts as its own, and yet no circuit is extended to it.
func TestNoCircuitToAnAuthority(t *testing.T) {
	onBed(t, 1, nil, func(b *bed) {
		first := b.openFrom(b.master, 0) // the relay has a live link to it
		defer first.Reset(wire.ResetDestroyed)
		key, err := onion.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		packet, h, err := onion.Create([]onion.Hop{
			{ID: b.ids[0], OnionKey: b.relays[0].keys.published()[0].Public}, {ID: b.master.ID(), OnionKey: key.Public()},
		}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		_, created, err := b.send(0, packet)
		if err != nil {
			t.Fatal(err)
		}
		if said, ok := errors.AsType[*onion.HopError](second(h.Finish(created))); !ok || said.Status != wire.StatusUnknownNext {
			t.Errorf("got %v, want %v", said, wire.StatusUnknownNext)
		}
	})
}

func second[T any](_ T, err error) error { return err }
