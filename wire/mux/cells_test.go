package mux

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"torproxy/wire"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// msg is a message to be put into a crafted cell.
type msg struct {
	cmd    wire.Command
	stream uint16
	body   string
}

func (m msg) String() string {
	switch {
	case m.cmd == wire.CmdEnd && len(m.body) == 1:
		return fmt.Sprintf("END %d %v", m.stream, wire.Reason(m.body[0]))
	case m.cmd == wire.CmdPush && len(m.body) == 2:
		parent, _ := wire.ParsePush([]byte(m.body))
		return fmt.Sprintf("PUSH %d of %d", m.stream, parent)
	case m.cmd == wire.CmdWindow && len(m.body) == 4:
		n, _ := wire.ParseWindow([]byte(m.body))
		return fmt.Sprintf("WINDOW %d %d", m.stream, n)
	default:
		return fmt.Sprintf("%v %d +%d", m.cmd, m.stream, len(m.body))
	}
}

func begin(stream uint16) msg     { return msg{wire.CmdBegin, stream, "\x01host:80"} }
func connected(stream uint16) msg { return msg{wire.CmdConnected, stream, ""} }
func fin(stream uint16) msg       { return msg{wire.CmdFin, stream, ""} }

func push(stream, parent uint16) msg {
	return msg{wire.CmdPush, stream, string([]byte{byte(parent >> 8), byte(parent)})}
}

func data(stream uint16, n int) msg {
	return msg{wire.CmdData, stream, strings.Repeat("x", n)}
}

func end(stream uint16, r wire.Reason) msg {
	return msg{wire.CmdEnd, stream, string([]byte{byte(r)})}
}

func window(stream uint16, n uint32) msg {
	return msg{wire.CmdWindow, stream, string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})}
}

// cellOf returns one cell with the messages.
func cellOf(msgs ...msg) []byte {
	cell := make([]byte, wire.TagSize, wire.CellSize)
	for _, m := range msgs {
		cell = wire.AppendMessage(cell, m.cmd, m.stream, []byte(m.body))
	}
	if len(cell) > wire.CellSize {
		panic("messages do not fit in a cell")
	}
	return cell[:wire.CellSize]
}

// cellsOf returns cells of one message each.
func cellsOf(msgs ...msg) (cells []byte) {
	for _, m := range msgs {
		cells = append(cells, cellOf(m)...)
	}
	return cells
}

// bulk returns cells with n bytes of DATA.
func bulk(stream uint16, n int) (cells []byte) {
	for n > 0 {
		k := min(n, wire.MaxBody)
		cells = append(cells, cellOf(data(stream, k))...)
		n -= k
	}
	return cells
}

// half is one session without its goroutines: the test is its writer and its reader.
type half struct {
	*testing.T
	s        *Session
	accepted []*Stream // begun or pushed by the peer
}

func newClient(t *testing.T) *half {
	h := &half{T: t}
	h.s = NewSession(Config{Pushed: func(_ uint16, st *Stream) { h.accepted = append(h.accepted, st) }})
	return h
}

func newExit(t *testing.T) *half {
	h := &half{T: t}
	h.s = NewSession(Config{Accept: func(st *Stream) { h.accepted = append(h.accepted, st) }})
	return h
}

// sent returns what the session has to send now.
func (h *half) sent() (out []string) {
	h.Helper()
	for _, m := range h.sentMessages() {
		out = append(out, m.String())
	}
	return out
}

func (h *half) sentMessages() (out []msg) {
	h.Helper()
	buf := make([]byte, 4*wire.CellSize)
	for {
		n, err := h.s.fill(buf)
		if err != nil {
			h.Fatal(err)
		}
		if n == 0 {
			return out
		}
		for i := range n {
			out = append(out, h.messages(buf[i*wire.CellSize:(i+1)*wire.CellSize])...)
		}
	}
}

func (h *half) messages(cell []byte) (out []msg) {
	h.Helper()
	for rest := cell[wire.TagSize:]; ; {
		m, more, err := wire.NextMessage(rest)
		if err != nil {
			h.Fatalf("session wrote a bad cell: %v", err)
		}
		if m.Command == wire.CmdNone {
			if len(out) == 0 {
				h.Fatal("session wrote a cell without a message")
			}
			return out
		}
		out = append(out, msg{m.Command, m.Stream, string(m.Body)})
		rest = more
	}
}

// gets feeds cells that must be legal.
func (h *half) gets(cells []byte) {
	h.Helper()
	if err := h.s.receive(cells); err != nil {
		h.Fatalf("legal cell refused: %v", err)
	}
	checkInvariants(h.T, h.s)
}

// refuses feeds cells that must be a violation.
func (h *half) refuses(cells []byte) {
	h.Helper()
	err := h.s.receive(cells)
	if !errors.Is(err, wire.ErrViolation) {
		h.Fatalf("violation not noticed: %v", err)
	}
	checkInvariants(h.T, h.s)
}

func (h *half) open() *Stream {
	h.Helper()
	st, err := h.s.Open(wire.KindTCP, "host:80")
	if err != nil {
		h.Fatal(err)
	}
	return st
}

// connected opens a stream at the client and answers it.
func (h *half) connected() *Stream {
	h.Helper()
	st := h.open()
	h.sent()
	h.gets(cellOf(connected(st.id)))
	return st
}

// begun returns the exit's end of a stream that the client has begun.
func (h *half) begun(id uint16) *Stream {
	h.Helper()
	h.gets(cellOf(begin(id)))
	return h.accepted[len(h.accepted)-1]
}

// write makes p wait for the writer, as Write does, without blocking.
func (h *half) write(st *Stream, p []byte) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	st.out = p
	h.s.enqueue(st)
}

func (h *half) want(got []string, want ...string) {
	h.Helper()
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		h.Fatalf("sent %q, want %q", got, want)
	}
}

// checkInvariants checks what must hold of a session between any two events while no application is in
// the middle of WriteTo.
func checkInvariants(t testing.TB, s *Session) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	unread := 0
	check := func(st *Stream) {
		unread += st.in.size
		queued := 0
		for b := st.in.head; b != nil; b = b.next {
			queued += b.len()
		}
		if queued != st.in.size || queued < 0 {
			t.Fatalf("stream %d: queue holds %d bytes and says %d", st.id, queued, st.in.size)
		}
		if st.credit < 0 || st.owed < 0 || st.sendable < 0 || st.sendable > wire.MaxCredit || st.watched < 0 {
			t.Fatalf("stream %d: credit %d, owed %d, sendable %d, watched %d", st.id, st.credit, st.owed, st.sendable, st.watched)
		}
		room := st.window
		if s.cfg.Clock != nil {
			room = wire.MaxCredit // share makes windows smaller than what they have let in
		}
		if st.window > wire.MaxCredit || st.err == nil && st.credit+st.owed+st.in.size > room {
			t.Fatalf("stream %d: credit %d, owed %d, unread %d in a window of %d", st.id, st.credit, st.owed, st.in.size, st.window)
		}
	}
	pushes := 0
	for id, st := range s.streams {
		if st.pushed() {
			pushes++
		}
		if st.gone || id != st.id {
			t.Fatalf("stream %d is still listed as %d", st.id, id)
		}
		check(st)
	}
	for st := range s.leftover {
		if !st.gone || st.in.size == 0 {
			t.Fatalf("stream %d counts as leftover with %d bytes", st.id, st.in.size)
		}
		check(st)
	}
	if s.err == nil && (unread != s.unread || unread > maxUnread) {
		t.Fatalf("streams hold %d bytes, the session says %d", unread, s.unread)
	}
	if s.begun() > maxLingering || pushes != s.pushes || pushes > wire.MaxPushes {
		t.Fatalf("%d streams begun, %d pushed, the session says %d", s.begun(), pushes, s.pushes)
	}
	for st := s.ready.head; st != nil; st = st.behind {
		if !st.queued {
			t.Fatalf("stream %d is in the list of turns and does not know", st.id)
		}
	}
}
