package mux

import (
	"io"
	"slices"
	"testing"

	"torproxy/wire"
)

// granted sums the WINDOWs for a stream that the session has to send.
func (h *half) granted(id uint16) (total int) {
	h.Helper()
	for _, m := range h.sentMessages() {
		if m.cmd == wire.CmdWindow && m.stream == id {
			n, err := wire.ParseWindow([]byte(m.body))
			if err != nil {
				h.Fatal(err)
			}
			total += n
		}
	}
	return total
}

func readAll(t *testing.T, st *Stream) {
	t.Helper()
	buf := make([]byte, 32<<10)
	for st.in.size > 0 {
		if _, err := st.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
}

// A peer that always sends all it may gets a window twice as large each round, up to 4 MiB.
func TestWindowGrowsForThirstyPeer(t *testing.T) {
	h := newClient(t)
	st := h.connected()
	credit := wire.InitialCredit
	var windows []int
	for range 6 {
		h.gets(bulk(1, credit))
		readAll(t, st)
		credit = h.granted(1)
		windows = append(windows, st.window>>10)
	}
	// The first WINDOW leaves before the session knows better; from then on it doubles.
	if want := []int{256, 512, 1024, 2048, 4096, 4096}; !slices.Equal(windows, want) {
		t.Fatalf("windows of %v KiB, want %v", windows, want)
	}
}

// The same, but the application reads at once and WINDOWs are under way while the peer sends.
func TestWindowGrowsForFastReader(t *testing.T) {
	h := newClient(t)
	st := h.connected()
	credit := wire.InitialCredit
	for range 40 {
		arrive := 0 // the WINDOWs of this round reach the peer when it has used up the credit it had
		for credit > 0 {
			n := min(credit, 8*wire.MaxBody)
			h.gets(bulk(1, n))
			readAll(t, st)
			arrive += h.granted(1)
			credit -= n
		}
		credit = arrive
	}
	if st.window != wire.MaxCredit {
		t.Fatalf("window is %d KiB", st.window>>10)
	}
}

func TestWindowStays(t *testing.T) {
	t.Run("peer is slow", func(t *testing.T) {
		h := newClient(t)
		st := h.connected()
		for range 1000 {
			h.gets(bulk(1, 9999))
			readAll(t, st)
			h.sent()
		}
		if st.window != wire.InitialCredit {
			t.Fatalf("window is %d", st.window)
		}
	})
	t.Run("application is slow", func(t *testing.T) {
		h := newClient(t)
		st := h.connected()
		credit := wire.InitialCredit
		for range 200 {
			h.gets(bulk(1, credit))
			credit = 0
			for credit == 0 {
				io.ReadFull(st, make([]byte, 4000))
				credit = h.granted(1)
			}
		}
		if st.window != wire.InitialCredit {
			t.Fatalf("window is %d", st.window)
		}
	})
	t.Run("memory is short", func(t *testing.T) {
		h := newClient(t)
		h.s.cfg.Budget = NewBudget(1 << 20)
		h.s.cfg.Budget.add(600 << 10) // by others
		st := h.connected()
		credit := wire.InitialCredit
		for range 10 {
			h.gets(bulk(1, credit))
			readAll(t, st)
			credit = h.granted(1)
		}
		if st.window != wire.InitialCredit {
			t.Fatalf("window is %d", st.window)
		}
	})
}

// Credit is granted in good portions, not with each read.
func TestGrantsArePortioned(t *testing.T) {
	h := newClient(t)
	st := h.connected()
	windows := 0
	for range 525 {
		h.gets(bulk(1, 999))
		readAll(t, st)
		for _, m := range h.sentMessages() {
			if m.cmd == wire.CmdWindow {
				windows++
			}
		}
	}
	if windows != 7 { // of 66 messages each, the first to reach a quarter of 256 KiB
		t.Fatalf("%d WINDOWs", windows)
	}
}

func TestWriterKeepsWithinCredit(t *testing.T) {
	h := newClient(t)
	st := h.connected()
	h.write(st, make([]byte, 1<<20))
	sent := func() (n int) {
		for _, m := range h.sentMessages() {
			n += len(m.body)
		}
		return n
	}
	if n := sent(); n != wire.InitialCredit {
		t.Fatalf("%d bytes sent on the first credit", n)
	}
	if n := sent(); n != 0 {
		t.Fatalf("%d bytes sent without credit", n)
	}
	h.gets(cellOf(window(1, 1), window(1, 4)))
	if n := sent(); n != 5 {
		t.Fatalf("%d bytes sent for 5 bytes of credit", n)
	}
}

// hoard opens streams and fills each to the credit.
func hoard(h *half, streams, bytes int) (list []*Stream) {
	for range streams {
		st := h.connected()
		h.gets(bulk(st.id, bytes))
		list = append(list, st)
	}
	return list
}

func TestUnreadLimitEndsGreediest(t *testing.T) {
	h := newClient(t)
	modest := hoard(h, 63, wire.InitialCredit-1000)
	greedy := hoard(h, 1, wire.InitialCredit)[0]
	last := h.connected()
	h.gets(bulk(last.id, 63*1000))
	if h.s.unread != maxUnread {
		t.Fatalf("%d bytes unread", h.s.unread)
	}
	h.want(h.sent())
	h.gets(cellOf(data(last.id, 1)))
	h.want(h.sent(), "END 127 resource limit")
	if _, err := greedy.Read(make([]byte, 1)); asEnd(t, err).Reason != wire.ReasonResourceLimit {
		t.Fatal(err)
	}
	if h.s.unread != maxUnread-wire.InitialCredit+1 {
		t.Fatalf("%d bytes unread", h.s.unread)
	}
	for _, st := range append(modest, last) {
		if st.err != nil {
			t.Fatalf("stream %d was ended too: %v", st.id, st.err)
		}
	}
}

// The stream that receives is the one to go when it holds the most with what it receives.
func TestUnreadLimitEndsReceiver(t *testing.T) {
	h := newClient(t)
	hoard(h, 63, wire.InitialCredit-1000)
	greedy := hoard(h, 1, wire.InitialCredit-1001)[0]
	hoard(h, 1, 63*1000+1)
	h.gets(cellOf(data(greedy.id, 1001))) // there is room for 1000
	h.want(h.sent(), "END 127 resource limit")
}

// Bytes that a stream leaves behind when END went both ways still count, and can be the greediest.
func TestUnreadLimitCountsClosedStreams(t *testing.T) {
	h := newClient(t)
	gone := h.connected()
	h.gets(append(bulk(gone.id, wire.InitialCredit), cellOf(end(gone.id, wire.ReasonDone))...))
	h.sent()
	hoard(h, 63, wire.InitialCredit-1)
	last := h.connected()
	h.gets(bulk(last.id, 63))
	if h.s.unread != maxUnread || len(h.s.leftover) != 1 {
		t.Fatalf("%d unread, %d leftover", h.s.unread, len(h.s.leftover))
	}
	h.gets(cellOf(data(last.id, 1)))
	h.want(h.sent())
	if _, err := gone.Read(make([]byte, 1)); asEnd(t, err).Reason != wire.ReasonResourceLimit {
		t.Fatal("a stream cut short reads as complete:", err)
	}
	checkInvariants(t, h.s)
}

func TestCloseFreesLeftover(t *testing.T) {
	b := NewBudget(1 << 20)
	h := newClient(t)
	h.s.cfg.Budget = b
	st := h.connected()
	h.gets(cellOf(data(1, 100), end(1, wire.ReasonDone)))
	h.sent()
	h.s.Close(nil)
	if b.Used() != 100 {
		t.Fatalf("%d bytes in use", b.Used())
	}
	st.Close()
	if b.Used() != 0 || len(h.s.leftover) != 0 {
		t.Fatalf("%d bytes in use", b.Used())
	}
}

// An empty budget is paid for by the stream that uses most of it, in whatever circuit.
func TestBudgetEndsGreediestOfAll(t *testing.T) {
	b := NewBudget(400 << 10)
	greedy, modest := newClient(t), newClient(t)
	for _, h := range []*half{greedy, modest} {
		h.s.cfg.Budget = b
		b.join(h.s)
	}
	hog := hoard(greedy, 1, wire.InitialCredit)[0]
	small := hoard(greedy, 1, 1000)[0]
	fine := hoard(modest, 1, 100<<10)[0]
	if hog.err != nil || b.Used() != wire.InitialCredit+1000+100<<10 {
		t.Fatalf("%v, %d bytes in use", hog.err, b.Used())
	}
	modest.gets(bulk(fine.id, 50<<10))
	if hog.err == nil || small.err != nil || fine.err != nil {
		t.Fatalf("ended: %v, %v, %v", hog.err, small.err, fine.err)
	}
	greedy.want(greedy.sent(), "END 1 resource limit")
	if b.Used() != 1000+150<<10 {
		t.Fatalf("%d bytes in use", b.Used())
	}
	greedy.s.Close(nil)
	modest.s.Close(nil)
	if b.Used() != 0 {
		t.Fatalf("%d bytes in use after the end", b.Used())
	}
	b.leave(greedy.s)
	b.leave(modest.s)
}

// Bytes that WriteTo holds while its destination is slow can't be freed: relieving must not spin.
func TestBudgetWithBytesInFlight(t *testing.T) {
	b := NewBudget(blockSize / 2)
	h := newClient(t)
	h.s.cfg.Budget = b
	b.join(h.s)
	st := h.connected()
	h.gets(bulk(1, blockSize/2))
	taken, err := st.nextBlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.s.receive(cellOf(data(1, 100))); err != nil {
		t.Fatal(err)
	}
	if st.err == nil {
		t.Fatal("the budget is not enforced")
	}
	if err := h.s.receive(cellOf(data(1, 100))); err != nil {
		t.Fatal(err)
	}
	st.giveBack(taken)
	if b.Used() != 0 {
		t.Fatalf("%d bytes in use", b.Used())
	}
}

// A session whose bytes are all in flight is passed over for the next greediest.
func TestBudgetPassesOver(t *testing.T) {
	b := NewBudget(100 << 10)
	flying, holding := newClient(t), newClient(t)
	for _, h := range []*half{flying, holding} {
		h.s.cfg.Budget = b
		b.join(h.s)
	}
	st := hoard(flying, 1, 90<<10)[0]
	var taken []*block
	for st.in.size > 0 {
		k, err := st.nextBlock()
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, k)
	}
	victim := hoard(holding, 1, 20<<10)[0]
	if st.err != nil || victim.err == nil || b.Used() != 90<<10 {
		t.Fatalf("%v, %v, %d bytes in use", st.err, victim.err, b.Used())
	}
	for _, k := range taken {
		st.giveBack(k)
	}
	if b.Used() != 0 {
		t.Fatalf("%d bytes in use", b.Used())
	}
}

// A FIN asked for while bytes wait for credit stays behind them.
func TestFinWaitsForCredit(t *testing.T) {
	h := newClient(t)
	st := h.connected()
	h.write(st, make([]byte, wire.InitialCredit+5))
	st.CloseWrite()
	for _, m := range h.sentMessages() {
		if m.cmd != wire.CmdData {
			t.Fatalf("sent %v", m)
		}
	}
	h.gets(cellOf(window(1, 10)))
	h.want(h.sent(), "DATA 1 +5", "FIN 1 +0")
}

// Streams take turns of one message: a bulk transfer delays another stream's byte by its own turn only.
func TestTurns(t *testing.T) {
	h := newClient(t)
	var streams []*Stream
	for range 4 {
		streams = append(streams, h.connected())
	}
	for _, st := range streams[:3] {
		h.write(st, make([]byte, 100<<10))
	}
	buf := make([]byte, 10*wire.CellSize)
	if n, err := h.s.fill(buf); n != 10 || err != nil {
		t.Fatal(n, err)
	}
	h.write(streams[3], []byte("ping"))
	counts := map[uint16]int{}
	cells, at := 0, -1
	for at < 0 {
		n, err := h.s.fill(buf[:wire.CellSize])
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		cells++
		for _, m := range h.messages(buf[:wire.CellSize]) {
			if m.stream == streams[3].id {
				at = cells
			}
		}
	}
	if at > 4 {
		t.Fatalf("a byte waited for %d cells of three bulk streams", at)
	}
	for _, m := range h.sentMessages() {
		counts[m.stream] += len(m.body)
	}
	for _, st := range streams[:3] {
		if c := counts[st.id]; c < 70<<10 || c > 100<<10 {
			t.Fatalf("shares differ: %v", counts)
		}
	}
}

// Small messages share a cell, and a cell has no hole larger than a fragment is worth.
func TestCellsAreFilled(t *testing.T) {
	h := newClient(t)
	for range 100 {
		h.write(h.connected(), make([]byte, 100))
	}
	buf := make([]byte, batchCells*wire.CellSize)
	n, err := h.s.fill(buf)
	if err != nil {
		t.Fatal(err)
	}
	if most := 100*105/(wire.PayloadSize-minFragment) + 1; n > most {
		t.Fatalf("%d cells for 100 messages of 100 bytes, want %d at most", n, most)
	}
}
