package mux

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"torproxy/wire"
)

// everyCommand returns one message of each command on a stream, well formed.
func everyCommand(id uint16) []msg {
	return []msg{
		begin(id), connected(id), data(id, 10), fin(id), end(id, wire.ReasonDone), window(id, 1000),
		{7, id, "x"}, {8, id, "x"}, push(id, 1), {wire.CmdDrop, id, ""},
	}
}

const (
	BEGIN, CONNECTED, DATA   = wire.CmdBegin, wire.CmdConnected, wire.CmdData
	FIN, END, WINDOW, PUSH   = wire.CmdFin, wire.CmdEnd, wire.CmdWindow, wire.CmdPush
	done, reset, unreachable = wire.ReasonDone, wire.ReasonReset, wire.ReasonHostUnreachable
)

// state says how a state of a stream is reached, and which commands on that stream are legal in it.
type state struct {
	name  string
	side  func(*testing.T) *half
	reach func(h *half)
	legal []wire.Command
}

// states are those of stream 1, which the client begins.
var states = []state{
	{"client: no stream", newClient, func(h *half) {}, nil},
	{"client: BEGIN not yet sent", newClient, func(h *half) { h.open() }, nil},
	{"client: BEGIN sent", newClient, func(h *half) { h.open(); h.sent() }, []wire.Command{CONNECTED, END}},
	{"client: BEGIN, DATA and FIN sent", newClient, func(h *half) {
		st := h.open()
		h.write(st, []byte("x"))
		st.CloseWrite()
		h.sent()
	}, []wire.Command{CONNECTED, END}},
	{"client: connected", newClient, func(h *half) { h.connected() }, []wire.Command{DATA, FIN, END, WINDOW}},
	{"client: FIN sent", newClient, func(h *half) { h.connected().CloseWrite(); h.sent() }, []wire.Command{DATA, FIN, END, WINDOW}},
	{"client: FIN received", newClient, func(h *half) { h.connected(); h.gets(cellOf(fin(1))) }, []wire.Command{END, WINDOW}},
	{"client: FIN both ways, END due", newClient, func(h *half) {
		h.connected().CloseWrite()
		h.sent()
		h.gets(cellOf(fin(1)))
	}, []wire.Command{END, WINDOW}},
	{"client: FIN both ways, END sent", newClient, func(h *half) {
		h.connected().CloseWrite()
		h.sent()
		h.gets(cellOf(fin(1)))
		h.sent()
	}, []wire.Command{END, WINDOW}},
	{"client: END due before CONNECTED", newClient, func(h *half) { st := h.open(); h.sent(); st.Close() }, []wire.Command{CONNECTED, END}},
	{"client: END sent before CONNECTED", newClient, func(h *half) { h.open().Close(); h.sent() }, []wire.Command{CONNECTED, END}},
	{"client: END sent, CONNECTED after it", newClient, func(h *half) {
		h.open().Close()
		h.sent()
		h.gets(cellOf(connected(1)))
	}, []wire.Command{DATA, FIN, END, WINDOW}},
	{"client: END sent", newClient, func(h *half) { h.connected().End(reset); h.sent() }, []wire.Command{DATA, FIN, END, WINDOW}},
	{"client: END sent, FIN after it", newClient, func(h *half) {
		h.connected().Close()
		h.sent()
		h.gets(cellOf(fin(1)))
	}, []wire.Command{END, WINDOW}},
	{"client: END received, own END due", newClient, func(h *half) { h.connected(); h.gets(cellOf(end(1, done))) }, nil},
	{"client: refused, own END due", newClient, func(h *half) { h.open(); h.sent(); h.gets(cellOf(end(1, unreachable))) }, nil},
	{"client: closed", newClient, func(h *half) { h.connected(); h.gets(cellOf(end(1, done))); h.sent() }, nil},
	{"client: closed, own END first", newClient, func(h *half) { h.connected().Close(); h.sent(); h.gets(cellOf(end(1, done))) }, nil},

	{"exit: no stream", newExit, func(h *half) {}, []wire.Command{BEGIN}},
	{"exit: begun", newExit, func(h *half) { h.begun(1) }, []wire.Command{DATA, FIN, END, WINDOW}},
	{"exit: CONNECTED sent", newExit, func(h *half) { h.begun(1).Connect(); h.sent() }, []wire.Command{DATA, FIN, END, WINDOW}},
	{"exit: FIN received before CONNECTED", newExit, func(h *half) { h.begun(1); h.gets(cellOf(fin(1))) }, []wire.Command{END, WINDOW}},
	{"exit: FIN received", newExit, func(h *half) { h.begun(1).Connect(); h.sent(); h.gets(cellOf(fin(1))) }, []wire.Command{END, WINDOW}},
	{"exit: FIN sent", newExit, func(h *half) {
		st := h.begun(1)
		st.Connect()
		st.CloseWrite()
		h.sent()
	}, []wire.Command{DATA, FIN, END, WINDOW}},
	{"exit: FIN both ways, END sent", newExit, func(h *half) {
		st := h.begun(1)
		st.Connect()
		st.CloseWrite()
		h.sent()
		h.gets(cellOf(fin(1)))
		h.sent()
	}, []wire.Command{END, WINDOW}},
	{"exit: END due", newExit, func(h *half) { h.begun(1).End(unreachable) }, []wire.Command{DATA, FIN, END, WINDOW}},
	{"exit: END sent", newExit, func(h *half) { h.begun(1).End(unreachable); h.sent() }, []wire.Command{DATA, FIN, END, WINDOW}},
	{"exit: END received, own END due", newExit, func(h *half) { h.begun(1); h.gets(cellOf(end(1, done))) }, nil},
	{"exit: closed", newExit, func(h *half) { h.begun(1); h.gets(cellOf(end(1, done))); h.sent() }, nil},
}

// TestStates feeds every command to both sides in every state of a stream that the client begins, and of
// one that the exit pushes. Commands that are not listed as legal must be violations.
func TestStates(t *testing.T) {
	testStates(t, states, 1)
	testStates(t, pushedStates, 2)
}

func testStates(t *testing.T, states []state, id uint16) {
	for _, c := range states {
		for _, m := range everyCommand(id) {
			t.Run(fmt.Sprintf("%s/%v", c.name, m.cmd), func(t *testing.T) {
				h := c.side(t)
				c.reach(h)
				if slices.Contains(c.legal, m.cmd) {
					h.gets(cellOf(m))
				} else {
					h.refuses(cellOf(m))
				}
			})
		}
	}
}

// malformed is wrong at either side, whatever the state.
func malformed() map[string][]byte {
	raw := func(payload ...byte) []byte {
		cell := make([]byte, wire.CellSize)
		copy(cell[wire.TagSize:], payload)
		return cell
	}
	lastByte := cellOf(data(1, 1))
	lastByte[len(lastByte)-1] = 1
	full := cellOf(data(1, wire.PayloadSize-wire.HeaderSize-2))
	full[wire.CellSize-2] = byte(wire.CmdFin) // two bytes left: a header does not fit
	return map[string][]byte{
		"no message":                    raw(),
		"bytes behind the last message": raw(0, 1),
		"padding not zero":              lastByte,
		"header cut short":              full,
		"longer than the cell":          raw(byte(wire.CmdData), 0, 1, 0xff, 0xff),
		"longer than the cell by one":   raw(byte(wire.CmdData), 0, 1, byte((wire.MaxBody+1)>>8), byte((wire.MaxBody+1)&0xff)),
		"unknown command":               raw(11, 0, 1, 0, 0),
		"unknown command 255":           raw(255, 0, 1, 0, 0),
		"unknown stream":                cellOf(data(3, 1)),
		"even stream":                   cellOf(data(2, 1)),
		"DATA on the circuit":           cellOf(data(0, 1)),
		"END of the circuit":            cellOf(end(0, wire.ReasonDone)),
		"WINDOW of the circuit":         cellOf(window(0, 1)),
		"DATA without data":             cellOf(data(1, 0)),
		"FIN with a body":               cellOf(msg{wire.CmdFin, 1, "x"}),
		"END without a reason":          cellOf(msg{wire.CmdEnd, 1, ""}),
		"END with reason 0":             cellOf(end(1, 0)),
		"END with an unknown reason":    cellOf(end(1, wire.ReasonShutdown+1)),
		"END with two reasons":          cellOf(msg{wire.CmdEnd, 1, "\x01\x01"}),
		"WINDOW cut short":              cellOf(msg{wire.CmdWindow, 1, "\x00\x00\x01"}),
		"WINDOW too long":               cellOf(msg{wire.CmdWindow, 1, "\x00\x00\x00\x01\x00"}),
		"WINDOW of nothing":             cellOf(window(1, 0)),
		"WINDOW above the bound":        cellOf(window(1, wire.MaxCredit+1)),
		"WINDOW of 4 GiB":               cellOf(window(1, 1<<32-1)),
		"more credit than the bound":    cellOf(window(1, wire.MaxCredit-wire.InitialCredit), window(1, 1)),
		"second FIN":                    cellOf(fin(1), fin(1)),
		"DATA behind FIN":               cellOf(fin(1), data(1, 1)),
		"second END":                    cellOf(end(1, wire.ReasonDone), end(1, wire.ReasonDone)),
		"WINDOW behind END":             cellOf(end(1, wire.ReasonDone), window(1, 1)),
		"DATA beyond its credit":        append(bulk(1, wire.InitialCredit), cellOf(data(1, 1))...),
		"DATA across its credit":        append(bulk(1, wire.InitialCredit-1), cellOf(data(1, 2))...),
		"RESOLVE on the circuit":        cellOf(msg{7, 0, "example.org"}),
		"PUSH without a body":           cellOf(msg{wire.CmdPush, 2, ""}),
		"PUSH too long":                 cellOf(msg{wire.CmdPush, 2, "\x00\x01\x00"}),
		"PUSH of the circuit":           cellOf(push(0, 1)),
		"PUSH of an odd stream":         cellOf(push(3, 1)),
		"PUSH for the circuit":          cellOf(push(2, 0)),
		"PUSH for an even stream":       cellOf(push(2, 2)),
		"PUSH for a stream never begun": cellOf(push(2, 3)),
		"PUSH of the same stream":       cellOf(push(2, 1), push(2, 1)),
		"PUSH of an earlier stream":     cellOf(push(6, 1), push(4, 1)),
	}
}

// malformedAtClient is wrong at the client only.
var malformedAtClient = map[string][]byte{
	"DROP from the exit":    cellOf(msg{wire.CmdDrop, 0, ""}),
	"second CONNECTED":      cellOf(connected(1)),
	"BEGIN from the exit":   cellOf(begin(2)),
	"BEGIN of a new stream": cellOf(begin(3)),
}

// malformedAtExit is wrong at the exit only.
var malformedAtExit = map[string][]byte{
	"PUSH from the client":         cellOf(push(2, 1)),
	"CONNECTED from the client":    cellOf(connected(1)),
	"DROP on a stream":             cellOf(msg{wire.CmdDrop, 1, ""}),
	"BEGIN of stream 0":            cellOf(begin(0)),
	"BEGIN of an even stream":      cellOf(begin(2)),
	"BEGIN of the same stream":     cellOf(begin(1)),
	"BEGIN of an earlier stream":   append(cellOf(begin(7)), cellOf(begin(5))...),
	"BEGIN without a body":         cellOf(msg{wire.CmdBegin, 3, ""}),
	"BEGIN without a target":       cellOf(msg{wire.CmdBegin, 3, "\x01"}),
	"BEGIN too long":               cellOf(msg{wire.CmdBegin, 3, "\x01" + strings.Repeat("x", wire.MaxTarget+1)}),
	"BEGIN with a control byte":    cellOf(msg{wire.CmdBegin, 3, "\x01host\n:80"}),
	"BEGIN with a byte above 0x7e": cellOf(msg{wire.CmdBegin, 3, "\x01h\xc3\xb6st:80"}),
}

// TestMalformed feeds cells that are wrong to a side whose stream 1 is connected.
func TestMalformed(t *testing.T) {
	for name, cell := range malformed() {
		t.Run("both/"+name, func(t *testing.T) {
			c, e := newClient(t), newExit(t)
			c.connected()
			e.begun(1).Connect()
			e.sent()
			c.refuses(cell)
			e.refuses(cell)
		})
	}
	for name, cell := range malformedAtClient {
		t.Run("client/"+name, func(t *testing.T) {
			c := newClient(t)
			c.connected()
			c.refuses(cell)
		})
	}
	for name, cell := range malformedAtExit {
		t.Run("exit/"+name, func(t *testing.T) {
			e := newExit(t)
			e.begun(1).Connect()
			e.refuses(cell)
		})
	}
}

// TestLegalEdges are the nearest legal neighbours of TestMalformed's violations.
func TestLegalEdges(t *testing.T) {
	e := newExit(t)
	e.gets(cellOf(msg{wire.CmdDrop, 0, ""}))
	e.gets(cellOf(msg{wire.CmdDrop, 0, "padding of any kind"}, msg{wire.CmdDrop, 0, ""}))
	e.gets(cellOf(msg{wire.CmdBegin, 1, "\x01" + strings.Repeat("x", wire.MaxTarget)}))
	e.gets(cellOf(msg{wire.CmdBegin, 9, "\x63x"})) // numbers may be left out; an unknown kind is the exit's to judge
	if got := e.accepted[1]; got.Kind() != 99 || got.Target() != "x" {
		t.Fatalf("accepted kind %d, target %q", got.Kind(), got.Target())
	}
	e.gets(cellOf(begin(65535)))
	e.gets(cellOf(data(9, wire.MaxBody))) // a message that fills its cell to the last byte
	e.gets(cellOf(window(9, wire.MaxCredit-wire.InitialCredit)))
	e.gets(bulk(1, wire.InitialCredit))
	e.refuses(cellOf(begin(65535)))
}
