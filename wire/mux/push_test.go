package mux

import (
	"errors"
	"io"
	"slices"
	"testing"

	"torproxy/wire"
)

// push pushes a stream for parent, which must do.
func (h *half) push(parent uint16) *Stream {
	h.Helper()
	st, err := h.s.Push(parent)
	if err != nil {
		h.Fatal(err)
	}
	return st
}

// pushed returns the client's end of a stream that the exit has pushed for stream 1.
func (h *half) pushed(id uint16) *Stream {
	h.Helper()
	h.gets(cellOf(push(id, 1)))
	return h.accepted[len(h.accepted)-1]
}

// ready is a side whose stream 1 is connected.
func (h *half) ready() *half {
	if h.s.exit() {
		h.begun(1).Connect()
		h.sent()
	} else {
		h.connected()
	}
	return h
}

// pushedStates are those of stream 2, which the exit pushes for stream 1.
var pushedStates = []state{
	{"client: nothing pushed", newClient, func(h *half) { h.ready() }, []wire.Command{PUSH}},
	{"client: parent not begun", newClient, func(h *half) {}, nil},
	{"client: parent's BEGIN not yet sent", newClient, func(h *half) { h.open() }, nil},
	{"client: parent not connected", newClient, func(h *half) { h.open(); h.sent() }, nil},
	{"client: parent refused, own END due", newClient, func(h *half) { h.open(); h.sent(); h.gets(cellOf(end(1, unreachable))) }, nil},
	{"client: parent's END due", newClient, func(h *half) { h.connected().Close() }, []wire.Command{PUSH}},
	{"client: parent's END received", newClient, func(h *half) { h.connected(); h.gets(cellOf(end(1, done))) }, []wire.Command{PUSH}},
	{"client: parent closed", newClient, func(h *half) { h.connected(); h.gets(cellOf(end(1, done))); h.sent() }, []wire.Command{PUSH}},
	{"client: pushed", newClient, func(h *half) { h.ready().pushed(2) }, []wire.Command{DATA, FIN, END}},
	{"client: FIN received", newClient, func(h *half) { h.ready().pushed(2); h.gets(cellOf(fin(2))) }, []wire.Command{END}},
	{"client: FIN received, END sent", newClient, func(h *half) { h.ready().pushed(2); h.gets(cellOf(fin(2))); h.sent() }, []wire.Command{END}},
	{"client: END due", newClient, func(h *half) { h.ready().pushed(2).Close() }, []wire.Command{DATA, FIN, END}},
	{"client: END sent", newClient, func(h *half) { h.ready().pushed(2).Close(); h.sent() }, []wire.Command{DATA, FIN, END}},
	{"client: END sent, FIN after it", newClient, func(h *half) {
		h.ready().pushed(2).Close()
		h.sent()
		h.gets(cellOf(fin(2)))
	}, []wire.Command{END}},
	{"client: END received, own END due", newClient, func(h *half) { h.ready().pushed(2); h.gets(cellOf(end(2, reset))) }, nil},
	{"client: closed", newClient, func(h *half) { h.ready().pushed(2); h.gets(cellOf(end(2, done))); h.sent() }, nil},

	{"exit: nothing pushed", newExit, func(h *half) { h.ready() }, nil},
	{"exit: PUSH not yet sent", newExit, func(h *half) { h.ready().push(1) }, nil},
	{"exit: PUSH sent", newExit, func(h *half) { h.ready().push(1); h.sent() }, []wire.Command{WINDOW, END}},
	{"exit: DATA sent", newExit, func(h *half) { st := h.ready().push(1); h.write(st, []byte("x")); h.sent() }, []wire.Command{WINDOW, END}},
	{"exit: FIN and END sent", newExit, func(h *half) { h.ready().push(1).CloseWrite(); h.sent() }, []wire.Command{WINDOW, END}},
	{"exit: END due", newExit, func(h *half) { st := h.ready().push(1); h.sent(); st.End(reset) }, []wire.Command{WINDOW, END}},
	{"exit: END sent", newExit, func(h *half) { h.ready().push(1).End(reset); h.sent() }, []wire.Command{WINDOW, END}},
	{"exit: END received, own END due", newExit, func(h *half) { h.ready().push(1); h.sent(); h.gets(cellOf(end(2, done))) }, nil},
	{"exit: closed", newExit, func(h *half) { h.ready().push(1); h.sent(); h.gets(cellOf(end(2, done))); h.sent() }, nil},
}

// TestPush follows one stream from PUSH to the last END, message by message.
func TestPush(t *testing.T) {
	exit, client := newExit(t).ready(), newClient(t).ready()
	there := exit.push(1)
	exit.write(there, []byte("pushed"))
	there.CloseWrite()
	exit.want(exit.sent(), "PUSH 2 of 1", "DATA 2 +6", "FIN 2 +0", "END 2 done")

	client.gets(cellOf(push(2, 1), data(2, 6), fin(2)))
	here := client.accepted[0]
	if here.ID() != 2 || here.Connected(t.Context()) != nil {
		t.Fatalf("stream %d is not connected", here.ID())
	}
	client.want(client.sent(), "END 2 done")
	client.gets(cellOf(end(2, done)))
	exit.gets(cellOf(end(2, done)))
	if got, err := io.ReadAll(here); string(got) != "xxxxxx" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	for _, h := range []*half{client, exit} {
		if h.s.Pushes() != 0 || h.s.Streams() != 1 {
			t.Errorf("%d pushed streams are left, %d others", h.s.Pushes(), h.s.Streams())
		}
	}
}

// TestPushGoesOneWay checks what the sides that cannot write and cannot read are told.
func TestPushGoesOneWay(t *testing.T) {
	client := newClient(t).ready()
	here := client.pushed(2)
	if _, err := here.Write([]byte("x")); !errors.Is(err, ErrWriteClosed) {
		t.Errorf("write at the client: %v", err)
	}
	if err := here.CloseWrite(); err != nil {
		t.Errorf("CloseWrite at the client: %v", err)
	}
	client.want(client.sent())
	exit := newExit(t).ready()
	if _, err := exit.push(1).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read at the exit: %v", err)
	}
}

// TestPushParents checks which streams the exit may push for, and that a push it makes behind CONNECTED is
// sent behind it.
func TestPushParents(t *testing.T) {
	exit := newExit(t)
	parent := exit.begun(3)
	for _, id := range []uint16{0, 2, 3, 5} {
		st, err := exit.s.Push(id)
		if err == nil {
			t.Errorf("stream %d pushed for %d", st.ID(), id)
		}
		if begun := id == 3; errors.Is(err, ErrParent) != begun {
			t.Errorf("push for stream %d: %v", id, err)
		}
	}
	parent.Connect()
	exit.push(3)
	exit.want(exit.sent(), "CONNECTED 3 +0", "PUSH 2 of 3")
	exit.gets(cellOf(end(3, done)))
	exit.want(exit.sent(), "END 3 done")
	exit.push(3) // its parent is over, its reply was not
	exit.want(exit.sent(), "PUSH 4 of 3")
	if _, err := newClient(t).ready().s.Push(1); err == nil {
		t.Error("the client pushed a stream")
	}
	exit.s.Close(nil)
	if _, err := exit.s.Push(3); !errors.Is(err, ErrClosed) {
		t.Errorf("push on a closed circuit: %v", err)
	}
	if exit.s.Pushes() != 0 || exit.s.Streams() != 0 {
		t.Errorf("a closed circuit has %d pushed streams and %d others", exit.s.Pushes(), exit.s.Streams())
	}
}

// TestPushUnwanted: a client that has no use for pushed streams says so, once for each.
func TestPushUnwanted(t *testing.T) {
	h := newClient(t)
	h.s.cfg.Pushed = nil
	h.ready()
	h.gets(cellOf(push(2, 1), data(2, 10), push(6, 1), fin(6), end(6, done)))
	h.want(h.sent(), "END 2 unsupported", "END 6 unsupported")
	h.gets(cellOf(data(2, 10), fin(2), end(2, done)))
	h.want(h.sent())
	if h.s.Pushes() != 0 || h.s.unread != 0 {
		t.Errorf("%d pushed streams and %d bytes are left", h.s.Pushes(), h.s.unread)
	}
}

// TestPushLimit fills a circuit with pushed streams: one more is ErrBusy at the exit and a violation at the
// client, they take no place from the client's own streams, and the place of a closed one is free at once.
func TestPushLimit(t *testing.T) {
	exit, client := newExit(t).ready(), newClient(t).ready()
	for i := range wire.MaxPushes {
		exit.push(1)
		client.pushed(uint16(2 * (i + 1)))
	}
	exit.sent()
	if _, err := exit.s.Push(1); err != ErrBusy {
		t.Errorf("one too many: %v", err)
	}
	for range wire.MaxStreams - 1 {
		client.open()
	}
	if n := client.s.Streams(); n != wire.MaxStreams {
		t.Errorf("%d streams", n)
	}
	client.accepted[9].Close()
	client.gets(cellOf(end(20, done))) // crosses the client's own END
	client.sent()
	client.pushed(2 * (wire.MaxPushes + 1))
	client.refuses(cellOf(push(2*(wire.MaxPushes+2), 1)))

	exit.gets(cellOf(end(20, done)))
	if _, err := exit.s.Push(1); err != ErrBusy {
		t.Errorf("before its own END is sent: %v", err)
	}
	exit.want(exit.sent(), "END 20 done")
	exit.push(1)
}

func TestPushNumbersRunOut(t *testing.T) {
	exit := newExit(t).ready()
	exit.s.next = 0xfffe
	if st := exit.push(1); st.ID() != 0xfffe {
		t.Errorf("the last number is %d", st.ID())
	}
	if _, err := exit.s.Push(1); err != ErrExhausted {
		t.Errorf("behind the last: %v", err)
	}
	client := newClient(t).ready()
	client.pushed(0xfffe)
	client.refuses(cellOf(push(2, 1)))
}

// TestPushCredit: the exit keeps within the client's credit, the client grants more as it reads, and its
// window grows as that of any stream.
func TestPushCredit(t *testing.T) {
	exit, client := newExit(t).ready(), newClient(t).ready()
	there, here := exit.push(1), client.pushed(2)
	exit.write(there, make([]byte, wire.InitialCredit+5))
	if n := dataOf(exit.sentMessages(), 2); n != wire.InitialCredit {
		t.Fatalf("%d bytes sent without a WINDOW", n)
	}
	exit.gets(cellOf(window(2, 5)))
	exit.want(exit.sent(), "DATA 2 +5")

	credit := wire.InitialCredit
	var windows []int
	for range 4 {
		client.gets(bulk(2, credit))
		readAll(t, here)
		credit = client.granted(2)
		windows = append(windows, here.window>>10)
	}
	if want := []int{256, 512, 1024, 2048}; !slices.Equal(windows, want) {
		t.Errorf("windows of %v KiB, want %v", windows, want)
	}
	client.refuses(append(bulk(2, credit), cellOf(data(2, 1))...))
}

func dataOf(msgs []msg, id uint16) (n int) {
	for _, m := range msgs {
		if m.cmd == wire.CmdData && m.stream == id {
			n += len(m.body)
		}
	}
	return n
}

// TestPushBudget: what is pushed and not read counts like everything else, and goes first when it is the
// most.
func TestPushBudget(t *testing.T) {
	h := newClient(t)
	h.s.cfg.Budget = NewBudget(200 << 10)
	h.s.cfg.Budget.join(h.s)
	defer h.s.cfg.Budget.leave(h.s)
	asked := h.connected()
	h.gets(bulk(1, 90<<10))
	unread := h.pushed(2)
	h.gets(bulk(2, 120<<10))
	if asked.err != nil || unread.err == nil || h.s.cfg.Budget.Used() != 90<<10 {
		t.Errorf("ended: %v, %v, %d bytes in use", asked.err, unread.err, h.s.cfg.Budget.Used())
	}
	h.want(h.sent(), "END 2 resource limit")
}

// TestPushTurns: pushed streams and the client's own take turns.
func TestPushTurns(t *testing.T) {
	h := newExit(t).ready()
	h.write(h.accepted[0], make([]byte, 100<<10))
	for range 3 {
		h.write(h.push(1), make([]byte, 100<<10))
	}
	buf := make([]byte, 40*wire.CellSize)
	if n, err := h.s.fill(buf); n != 40 || err != nil {
		t.Fatal(n, err)
	}
	var got []msg
	for cells := buf; len(cells) > 0; cells = cells[wire.CellSize:] {
		got = append(got, h.messages(cells[:wire.CellSize])...)
	}
	for _, id := range []uint16{1, 2, 4, 6} {
		if n := dataOf(got, id); n < 9*wire.MaxBody || n > 11*wire.MaxBody {
			t.Errorf("stream %d had %d bytes of 40 cells", id, n)
		}
	}
}

// TestPushCancelled: the client ends a pushed stream, and the exit's work on it learns of it at once.
func TestPushCancelled(t *testing.T) {
	exit := newExit(t).ready()
	st := exit.push(1)
	exit.write(st, make([]byte, wire.InitialCredit+1))
	exit.sent()
	stopped := false
	st.OnDone(func() { stopped = true })
	exit.gets(cellOf(end(2, done)))
	if _, err := st.Write([]byte("x")); !stopped || err == nil {
		t.Errorf("told: %v, write: %v", stopped, err)
	}
	exit.want(exit.sent(), "END 2 done")
}

// TestPushComesFirst checks that the application has a pushed stream before it can read what the exit sent
// behind it, in the same cell.
func TestPushComesFirst(t *testing.T) {
	h := newClient(t).ready()
	parent := h.s.streams[1]
	unread := -1
	h.s.cfg.Pushed = func(_ uint16, st *Stream) {
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		unread = parent.in.size
		h.accepted = append(h.accepted, st)
	}
	h.gets(cellOf(data(1, 10), push(2, 1), data(1, 100)))
	if unread != 10 || parent.in.size != 110 {
		t.Errorf("%d bytes were there with the stream, %d after it; want 10, 110", unread, parent.in.size)
	}
}
