package mux

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// TestWindowGrowsOverDistance shows in virtual time what the growing window is for.
func TestWindowGrowsOverDistance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 32 << 20
		c := newCircuit(t, circuitOptions{cells: 1 << 14, delay: 50 * time.Millisecond, accept: func(st *Stream) {
			st.Connect()
			if _, err := io.Copy(st, newNoise(1, size)); err != nil {
				t.Error(err)
			}
			st.Close()
		}})
		st := c.open(t)
		began := time.Now()
		n, err := io.Copy(io.Discard, st)
		if n != size || err != nil {
			t.Fatal(n, err)
		}
		took := time.Since(began)
		// A window that stays at 256 KiB takes 128 round trips of 100 ms; one of 4 MiB takes 8, and the
		// way there some more, how many depends on the order in which goroutines run.
		if took > 3*time.Second {
			t.Fatalf("32 MiB took %v", took)
		}
		t.Logf("32 MiB over a round trip of 100 ms: %v", took)
	})
}

// TestSlowReader: one application that does not read stalls its own stream only.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(t, circuitOptions{accept: func(st *Stream) {
			st.Connect()
			io.Copy(st, newNoise(byte(st.id), 1<<20))
			st.Close()
		}})
		stalled, reading := c.open(t), c.open(t)
		if n, err := io.Copy(io.Discard, reading); n != 1<<20 || err != nil {
			t.Fatal(n, err)
		}
		synctest.Wait()
		if stalled.in.size != wire.InitialCredit {
			t.Fatalf("stalled stream holds %d bytes", stalled.in.size)
		}
		if n, err := io.Copy(io.Discard, stalled); n != 1<<20 || err != nil {
			t.Fatal(n, err)
		}
	})
}

// TestCloseDelivers: Close behind Write gives the peer everything, and then the end.
func TestCloseDelivers(t *testing.T) {
	for _, n := range []int{1, 100, wire.InitialCredit - 1} {
		got := make(chan int, 1)
		c := newCircuit(t, circuitOptions{accept: func(st *Stream) {
			st.Connect()
			n, err := io.Copy(io.Discard, st)
			if err != nil {
				t.Error(err)
			}
			st.Close()
			got <- int(n)
		}})
		st := c.open(t)
		if err := st.Connected(t.Context()); err != nil {
			t.Fatal(err)
		}
		if m, err := st.Write(make([]byte, n)); m != n || err != nil {
			t.Fatal(m, err)
		}
		st.Close()
		if g := <-got; g != n {
			t.Fatalf("%d bytes arrived of %d", g, n)
		}
		c.end()
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(t, circuitOptions{})
		st := c.open(t)
		if err := st.Connected(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		after := func(d time.Duration, err error) {
			t.Helper()
			if err != ErrDeadline || !err.(interface{ Timeout() bool }).Timeout() || time.Since(began) != d {
				t.Fatalf("%v after %v, want the deadline after %v", err, time.Since(began), d)
			}
			began = time.Now()
		}
		readOne := func() error { _, err := st.Read(make([]byte, 1)); return err }
		st.SetReadDeadline(began.Add(3 * time.Second))
		after(3*time.Second, readOne())
		after(0, readOne()) // it stays passed

		st.SetReadDeadline(time.Time{})
		result := blocked(t, readOne)
		st.SetReadDeadline(began.Add(time.Hour))
		st.SetReadDeadline(began.Add(2 * time.Second)) // moved while Read waits
		after(2*time.Second, <-result)

		st.SetReadDeadline(time.Time{})
		result = blocked(t, readOne)
		st.SetDeadline(began)
		after(0, <-result)
		if _, err := st.Write([]byte("x")); err != ErrDeadline {
			t.Fatal(err)
		}
		if _, err := st.WriteTo(io.Discard); err != ErrDeadline {
			t.Fatal(err)
		}

		st.SetDeadline(time.Time{})
		st.SetWriteDeadline(began.Add(time.Second))
		n, err := st.Write(make([]byte, 1<<20)) // nobody reads: the credit ends
		after(time.Second, err)
		if n != wire.InitialCredit {
			t.Fatalf("%d bytes written", n)
		}
		st.SetDeadline(time.Now().Add(time.Hour))
		st.Close()
		if st.readBy.timer != nil || st.writeBy.timer != nil {
			t.Error("a timer outlives its stream")
		}
	})
}

// TestDeadlineDoesNotLose: bytes that arrive with the deadline passed are there after it is moved.
func TestDeadlineDoesNotLose(t *testing.T) {
	h := newClient(t)
	st := h.connected()
	st.SetReadDeadline(time.Unix(1, 0))
	h.gets(cellOf(data(1, 5)))
	if _, err := st.Read(make([]byte, 9)); err != ErrDeadline {
		t.Fatal(err)
	}
	st.SetReadDeadline(time.Time{})
	if got := read(t, st); len(got) != 5 {
		t.Fatalf("%q", got)
	}
}

// TestCloseWriteBehindWrite: a FIN asked for while a Write waits for credit goes out behind its bytes.
func TestCloseWriteBehindWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := make(chan struct{})
		got := make(chan int64, 1)
		c := newCircuit(t, circuitOptions{accept: func(st *Stream) {
			st.Connect()
			<-start
			n, err := io.Copy(io.Discard, st)
			if err != nil {
				t.Error(err)
			}
			st.Close()
			got <- n
		}})
		st := c.open(t)
		result := blocked(t, func() error { _, err := st.Write(make([]byte, 1<<20)); return err })
		if err := st.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		close(start)
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		if n := <-got; n != 1<<20 {
			t.Fatalf("%d bytes arrived", n)
		}
	})
}

// TestCloseReleasesCalls: Close of a stream ends its own blocked calls.
func TestCloseReleasesCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(t, circuitOptions{})
		st := c.open(t)
		readResult := blocked(t, func() error { _, err := st.WriteTo(io.Discard); return err })
		writeResult := blocked(t, func() error { _, err := st.ReadFrom(newNoise(1, 1<<20)); return err })
		st.Close()
		for _, result := range []<-chan error{readResult, writeResult} {
			if e := asEnd(t, <-result); e.Remote || e.Reason != wire.ReasonDone {
				t.Error(e)
			}
		}
	})
}
