package mux

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"torproxy/wire"
)

func asEnd(t *testing.T, err error) *wire.EndError {
	t.Helper()
	var e *wire.EndError
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, not an END", err)
	}
	return e
}

// read reads what is there; it must not block.
func read(t *testing.T, st *Stream) string {
	t.Helper()
	p := make([]byte, 1<<20)
	n, err := st.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(p[:n])
}

func TestOpenSendsBeginThenData(t *testing.T) {
	h := newClient(t)
	st := h.open()
	h.write(st, []byte("hello"))
	h.want(h.sent(), "BEGIN 1 +8", "DATA 1 +5")
	h.open()
	h.open()
	h.want(h.sent(), "BEGIN 3 +8", "BEGIN 5 +8")
}

func TestExitSaysNothingBeforeConnected(t *testing.T) {
	h := newExit(t)
	st := h.begun(1)
	h.write(st, []byte("banner"))
	st.CloseWrite()
	h.gets(bulk(1, wire.InitialCredit))
	for len(read(t, st)) > 0 && st.in.size > 0 {
	}
	h.want(h.sent())
	st.Connect()
	st.Connect() // once is enough
	h.want(h.sent(), "CONNECTED 1 +0", "WINDOW 1 262144", "DATA 1 +6", "FIN 1 +0")
}

func TestEndBeforeConnected(t *testing.T) {
	h := newExit(t)
	st := h.begun(1)
	st.End(wire.ReasonRefused)
	st.Connect()
	h.want(h.sent(), "END 1 refused by the destination")
	if e := asEnd(t, st.Connected(t.Context())); e.Remote {
		t.Fatal("the exit's own END is reported as the peer's")
	}
}

func TestOpenRefusesTargets(t *testing.T) {
	h := newClient(t)
	for _, target := range []string{"", strings.Repeat("x", wire.MaxTarget+1), "a b:80", "h\u00f6st:80", "host:80\n"} {
		if _, err := h.s.Open(wire.KindTCP, target); err == nil {
			t.Errorf("target %q accepted", target)
		}
	}
	if _, err := newExit(t).s.Open(wire.KindTCP, "host:80"); err == nil {
		t.Error("the exit could open a stream")
	}
	h.want(h.sent())
	if n := h.s.Streams(); n != 0 {
		t.Errorf("%d streams", n)
	}
}

func TestStreamNumbersRunOut(t *testing.T) {
	c, e := newClient(t), newExit(t)
	c.s.next = 0xfffd
	for range 2 {
		st := c.open()
		e.gets(cellsOf(c.sentMessages()...))
		st.Close()
		e.gets(cellsOf(c.sentMessages()...))
		c.gets(cellsOf(e.sentMessages()...))
	}
	if _, err := c.s.Open(wire.KindTCP, "host:80"); err != ErrExhausted {
		t.Fatal(err)
	}
	if c.s.Streams() != 0 || e.s.Streams() != 0 || e.s.last != 0xffff {
		t.Fatalf("%d and %d streams, last %d", c.s.Streams(), e.s.Streams(), e.s.last)
	}
}

// The client never begins more streams than the exit takes; one that does is refused stream by stream, and
// one that does not even answer the refusals loses its circuit.
func TestStreamLimit(t *testing.T) {
	c, e := newClient(t), newExit(t)
	var streams []*Stream
	for range wire.MaxStreams {
		streams = append(streams, c.open())
	}
	if _, err := c.s.Open(wire.KindTCP, "host:80"); err != ErrBusy {
		t.Fatal(err)
	}
	e.gets(cellsOf(c.sentMessages()...))
	if n := e.s.Streams(); n != wire.MaxStreams || len(e.accepted) != n {
		t.Fatalf("exit has %d streams, accepted %d", n, len(e.accepted))
	}
	e.gets(cellOf(begin(1001)))
	e.want(e.sent(), "END 1001 resource limit")
	e.gets(cellOf(data(1001, 5), fin(1001), end(1001, wire.ReasonDone)))
	if len(e.accepted) != wire.MaxStreams || e.s.Streams() != wire.MaxStreams {
		t.Fatal("a refused stream was handed out or kept")
	}
	// The circuit goes on, and room comes back as soon as the client knows of it.
	streams[7].Close()
	c.gets(cellsOf(func() []msg { e.gets(cellsOf(c.sentMessages()...)); return e.sentMessages() }()...))
	c.s.next = 1003 // above the number that was refused
	c.open()
	e.gets(cellsOf(c.sentMessages()...))
	if len(e.accepted) != wire.MaxStreams+1 {
		t.Fatal("the room of a closed stream did not come back")
	}
	for id := uint16(2001); ; id += 2 {
		if e.s.Streams() == maxLingering {
			e.refuses(cellOf(begin(id)))
			break
		}
		e.gets(cellOf(begin(id)))
		e.sent()
	}
}

func TestHalfClose(t *testing.T) {
	c, e := newClient(t), newExit(t)
	st := c.open()
	c.write(st, []byte("request"))
	st.CloseWrite()
	out := c.sentMessages()
	e.gets(cellsOf(out...))
	peer := e.accepted[0]
	if got := read(t, peer); got != "request" {
		t.Fatalf("read %q", got)
	}
	if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if _, err := st.Write([]byte("x")); err != ErrWriteClosed {
		t.Fatal(err)
	}
	if err := st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	peer.Connect()
	e.write(peer, []byte("answer"))
	c.gets(cellsOf(e.sentMessages()...))
	if got := read(t, st); got != "answer" {
		t.Fatalf("read %q", got)
	}
	peer.CloseWrite()
	in := e.sentMessages()
	e.want([]string{in[0].String(), in[1].String()}, "FIN 1 +0", "END 1 done")
	c.gets(cellsOf(in...))
	if _, err := st.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if err := st.CloseWrite(); err != nil {
		t.Fatal("CloseWrite after the end:", err)
	}
	out = c.sentMessages()
	c.want([]string{out[0].String()}, "END 1 done")
	e.gets(cellsOf(out...))
	if c.s.Streams()+e.s.Streams() != 0 {
		t.Fatal("the stream is not forgotten")
	}
}

// A WINDOW that crosses the last FIN is why FIN both ways does not close a stream.
func TestWindowCrossesFin(t *testing.T) {
	h := newClient(t)
	st := h.connected()
	st.CloseWrite()
	h.sent()
	h.gets(cellOf(fin(1), window(1, 5)))
	h.want(h.sent(), "END 1 done")
	h.gets(cellOf(window(1, 5), end(1, wire.ReasonDone)))
	h.refuses(cellOf(window(1, 5)))
}

// After END of its own a side takes what the peer had under way, and gives none of it to anybody.
func TestCloseWhilePeerSends(t *testing.T) {
	h := newClient(t)
	st := h.connected()
	h.gets(cellOf(data(1, 100)))
	st.Close()
	if h.s.unread != 0 {
		t.Fatal("a closed stream still holds bytes")
	}
	h.want(h.sent(), "END 1 done")
	h.gets(append(bulk(1, wire.InitialCredit-100), cellOf(window(1, 7), fin(1))...))
	h.want(h.sent())
	if in, _ := h.s.Bytes(); in != 100 || h.s.unread != 0 {
		t.Fatalf("%d bytes counted, %d held", in, h.s.unread)
	}
	if _, err := st.Read(make([]byte, 1)); asEnd(t, err).Remote {
		t.Fatal(err)
	}
	if _, err := st.Write([]byte("x")); asEnd(t, err).Remote {
		t.Fatal(err)
	}
	h.gets(cellOf(end(1, wire.ReasonReset)))
	if h.s.Streams() != 0 {
		t.Fatal("not forgotten")
	}
}

// Both sides end at the same moment: one END each, whatever the order.
func TestEndsCross(t *testing.T) {
	c, e := newClient(t), newExit(t)
	st := c.open()
	e.gets(cellsOf(c.sentMessages()...))
	e.accepted[0].Connect()
	c.gets(cellsOf(e.sentMessages()...))
	st.End(wire.ReasonReset)
	e.accepted[0].End(wire.ReasonTimeout)
	st.Close()
	out, in := c.sentMessages(), e.sentMessages()
	e.gets(cellsOf(out...))
	c.gets(cellsOf(in...))
	c.want(c.sent())
	e.want(e.sent())
	if c.s.Streams()+e.s.Streams() != 0 {
		t.Fatal("the stream is not forgotten")
	}
	c.refuses(cellOf(end(1, wire.ReasonTimeout)))
}

// What arrived before the peer's END can be read; then the reason says how the stream ended.
func TestReadAfterEnd(t *testing.T) {
	for _, c := range []struct {
		reason wire.Reason
		clean  bool
	}{{wire.ReasonDone, true}, {wire.ReasonReset, false}, {wire.ReasonTimeout, false}} {
		h := newClient(t)
		st := h.connected()
		h.gets(cellOf(data(1, 10), end(1, c.reason)))
		h.sent()
		if h.s.Streams() != 0 || h.s.unread != 10 {
			t.Fatalf("%d streams, %d unread", h.s.Streams(), h.s.unread)
		}
		if got := read(t, st); len(got) != 10 {
			t.Fatalf("read %q", got)
		}
		checkInvariants(t, h.s)
		if len(h.s.leftover) != 0 {
			t.Fatal("a stream read to its end is kept")
		}
		_, err := st.Read(make([]byte, 1))
		if c.clean != (err == io.EOF) {
			t.Fatalf("%v: %v", c.reason, err)
		}
		_, err = st.Write([]byte("x"))
		if e := asEnd(t, err); !e.Remote || e.Reason != c.reason {
			t.Fatalf("%v: %v", c.reason, err)
		}
	}
}

func TestConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newClient(t)
		st := h.open()
		h.sent()
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 2)
		go func() { result <- st.Connected(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-result; err != context.Canceled {
			t.Fatal(err)
		}
		go func() { result <- st.Connected(t.Context()) }()
		go func() { result <- st.Connected(t.Context()) }()
		synctest.Wait()
		h.gets(cellOf(connected(1)))
		if err := errors.Join(<-result, <-result); err != nil {
			t.Fatal(err)
		}
		h.gets(cellOf(end(1, wire.ReasonReset)))
		if err := st.Connected(t.Context()); err != nil {
			t.Fatal("the stream was connected:", err)
		}

		refused := h.open()
		h.sent()
		go func() { result <- refused.Connected(t.Context()) }()
		synctest.Wait()
		h.gets(cellOf(end(3, wire.ReasonDNS)))
		if e := asEnd(t, <-result); e.Reason != wire.ReasonDNS || !e.Remote {
			t.Fatal(e)
		}

		broken := h.open()
		go func() { result <- broken.Connected(t.Context()) }()
		synctest.Wait()
		h.s.Close(nil)
		if err := <-result; err != ErrClosed {
			t.Fatal(err)
		}
	})
}

func TestOnDoneOnce(t *testing.T) {
	calls := 0
	count := func() { calls++ }
	h := newExit(t)
	peerEnds, crossing, broken := h.begun(1), h.begun(3), h.begun(5)
	for _, st := range []*Stream{peerEnds, crossing, broken} {
		st.OnDone(func() { t.Fatal("replaced") })
		st.OnDone(count)
	}
	h.gets(cellOf(fin(1), fin(3), fin(5)))
	crossing.Close()
	h.sent()
	if calls != 0 {
		t.Fatal("called before the peer's END")
	}
	h.gets(cellOf(end(1, wire.ReasonDone)))
	if calls != 1 {
		t.Fatalf("%d calls after the peer's END", calls)
	}
	h.gets(cellOf(end(3, wire.ReasonDone)))
	if calls != 2 {
		t.Fatalf("%d calls after the ENDs crossed", calls)
	}
	h.sent()
	peerEnds.Close()
	h.s.Close(nil)
	h.s.Close(errors.New("again"))
	if calls != 3 {
		t.Fatalf("%d calls after the circuit broke", calls)
	}
	peerEnds.OnDone(count)
	broken.OnDone(count)
	if calls != 5 {
		t.Fatalf("%d calls: late registrations must be called at once", calls)
	}
}

// OnDone's function may use the stream and the session.
func TestOnDoneMayCallBack(t *testing.T) {
	h := newExit(t)
	st := h.begun(1)
	st.OnDone(func() {
		st.Close()
		h.s.Close(nil)
	})
	if err := h.s.receive(cellOf(end(1, wire.ReasonDone))); err != nil {
		t.Fatal(err)
	}
	if h.s.Streams() != 0 {
		t.Fatal("not closed")
	}
}
