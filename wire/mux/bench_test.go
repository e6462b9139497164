package mux

import (
	"io"
	"testing"

	"torproxy/wire"
)

// zeros is an endless source, counted by its user.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// BenchmarkBulk is one stream's download through two sessions, without encryption or network.
func BenchmarkBulk(b *testing.B) {
	c := newCircuit(b, circuitOptions{cells: 64, accept: func(st *Stream) {
		st.Connect()
		io.Copy(st, zeros{})
		st.Close()
	}})
	st := c.open(b)
	defer st.Close()
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.CopyN(io.Discard, st, 64<<10); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCells is the sessions' own work per cell of DATA: fill at one end, receive and read at the
// other.
func BenchmarkCells(b *testing.B) {
	step := bulkStep(b)
	b.SetBytes(batchCells * wire.MaxBody)
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
}

// bulkStep returns a function that moves one batch of full cells from the exit's session to the client's
// application, credit included.
func bulkStep(t testing.TB) func() {
	client := NewSession(Config{})
	var at *Stream
	exit := NewSession(Config{Accept: func(st *Stream) { at = st }})
	st, err := client.Open(wire.KindTCP, "host:80")
	if err != nil {
		t.Fatal(err)
	}
	cells := make([]byte, batchCells*wire.CellSize)
	pass := func(from, to *Session) {
		n, err := from.fill(cells)
		if err == nil {
			err = to.receive(cells[:n*wire.CellSize])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	pass(client, exit)
	at.Connect()
	pass(exit, client)
	p, q := make([]byte, batchCells*wire.MaxBody), make([]byte, 32<<10)
	return func() {
		exit.mu.Lock()
		at.out = p
		exit.enqueue(at)
		exit.mu.Unlock()
		pass(exit, client)
		for got := 0; got < len(p); {
			n, err := st.Read(q)
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
		pass(client, exit)
	}
}

func TestBulkAllocatesNothing(t *testing.T) {
	step := bulkStep(t)
	step()
	if n := testing.AllocsPerRun(200, step); n > allocsAllowed {
		t.Errorf("%v allocations for %d cells", n, batchCells)
	}
}
