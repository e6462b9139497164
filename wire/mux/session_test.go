package mux

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// noise is a reader of n pseudo-random bytes, in pieces of odd sizes, that hashes what it gives.
type noise struct {
	src  *rand.ChaCha8
	size *rand.PCG
	left int
	hash hash.Hash
}

func newNoise(seed byte, n int) *noise {
	return &noise{src: rand.NewChaCha8([32]byte{seed}), size: rand.NewPCG(1, 2), left: n, hash: sha256.New()}
}

func (s *noise) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), s.left, 1+int(s.size.Uint64()%40000))
	s.src.Read(p[:n])
	s.hash.Write(p[:n])
	s.left -= n
	return n, nil
}

// exchange sends n bytes, closes its half, reads the other half to its end, and closes.
func exchange(st *Stream, seed byte, n int) (sent, received []byte, err error) {
	src, dst := newNoise(seed, n), sha256.New()
	var wg sync.WaitGroup
	var sendErr error
	wg.Go(func() {
		_, sendErr = io.Copy(st, src)
		sendErr = errors.Join(sendErr, st.CloseWrite())
	})
	_, err = io.Copy(dst, st)
	wg.Wait()
	st.Close()
	return src.hash.Sum(nil), dst.Sum(nil), errors.Join(err, sendErr)
}

// TestBulkBothWays moves data in both directions of several streams at once over pipes that hold a single
// cell, so both sessions have full pipes in both directions all the time.
func TestBulkBothWays(t *testing.T) {
	const streams, size = 5, 3<<20 + 12345
	type outcome struct{ sent, received []byte }
	var mu sync.Mutex
	atExit := map[uint16]outcome{}
	c := newCircuit(t, circuitOptions{cells: 1, accept: func(st *Stream) {
		st.Connect()
		sent, received, err := exchange(st, byte(100+st.id), size)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		atExit[st.id] = outcome{sent, received}
	}})
	atClient := map[uint16]outcome{}
	var wg sync.WaitGroup
	for range streams {
		st := c.open(t)
		wg.Go(func() {
			sent, received, err := exchange(st, byte(st.id), size)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			atClient[st.id] = outcome{sent, received}
		})
	}
	wg.Wait()
	c.accepted.Wait() // closing the circuit loses what is under way
	c.end()
	for id, here := range atClient {
		there := atExit[id]
		if !bytes.Equal(here.sent, there.received) || !bytes.Equal(there.sent, here.received) {
			t.Errorf("stream %d: what was sent is not what was received", id)
		}
	}
	in, out := c.client.Bytes()
	exitIn, exitOut := c.exit.Bytes()
	if in != streams*size || out != streams*size || exitIn != out || exitOut != in {
		t.Errorf("counted %d in and %d out, the exit %d in and %d out", in, out, exitIn, exitOut)
	}
}

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
		// way there some more.
		if took > 2*time.Second {
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

// blocked runs f in a goroutine of its own until it blocks, and gives its result later.
func blocked(t *testing.T, f func() error) <-chan error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	synctest.Wait()
	select {
	case err := <-result:
		t.Fatalf("did not block: %v", err)
	default:
	}
	return result
}

// TestSessionCloseWakesEverything with a writer that hangs in the pipe's Write.
func TestSessionCloseWakesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipe, _ := newPipes(1, 0) // nobody at the other end
		s := NewSession(Config{})
		run := blocked(t, func() error { return s.Run(pipe, new(counting)) })
		var results []<-chan error
		for range 2 {
			st, err := s.Open(wire.KindTCP, "host:80")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			st.OnDone(func() { close(done) })
			results = append(results,
				blocked(t, func() error { return st.Connected(t.Context()) }),
				blocked(t, func() error { _, err := st.Read(make([]byte, 1)); return err }),
				blocked(t, func() error { _, err := st.Write(make([]byte, 1<<20)); return err }),
				blocked(t, func() error { <-done; return ErrClosed }))
		}
		cause := errors.New("the cause")
		s.Close(cause)
		for i, result := range results {
			if err := <-result; !errors.Is(err, ErrClosed) {
				t.Errorf("call %d: %v", i, err)
			}
		}
		if err := <-run; err != cause {
			t.Error(err)
		}
		if _, err := s.Open(wire.KindTCP, "host:80"); !errors.Is(err, ErrClosed) || !errors.Is(err, cause) {
			t.Error(err)
		}
	})
}

func TestCloseBeforeRun(t *testing.T) {
	s := NewSession(Config{})
	st, err := s.Open(wire.KindTCP, "host:80")
	if err != nil {
		t.Fatal(err)
	}
	s.Close(nil)
	pipe, _ := newPipes(1, 0)
	if err := s.Run(pipe, new(counting)); err != ErrClosed {
		t.Fatal(err)
	}
	if _, err := st.Read(make([]byte, 1)); err != ErrClosed {
		t.Fatal(err)
	}
	if len(pipe.codes) != 1 {
		t.Fatal("the pipe was not reset")
	}
}

// timeoutEOF is a pipe's error that would deceive applications.
type timeoutEOF struct{}

func (timeoutEOF) Error() string        { return "link: gone" }
func (timeoutEOF) Timeout() bool        { return true }
func (timeoutEOF) Temporary() bool      { return true }
func (timeoutEOF) Is(target error) bool { return target == io.EOF }

// TestPipeErrorIsNoEOF: a relay that ends the circuit's stream must not make a download look complete.
func TestPipeErrorIsNoEOF(t *testing.T) {
	for _, cause := range []error{io.EOF, timeoutEOF{}} {
		c := newCircuit(t, circuitOptions{})
		st := c.open(t)
		if err := st.Connected(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.clientPipe.in.fail(cause)
		_, err := st.Read(make([]byte, 1))
		var timeout interface{ Timeout() bool }
		if !errors.Is(err, ErrClosed) || errors.Is(err, io.EOF) || errors.As(err, &timeout) {
			t.Errorf("a pipe that fails with %v makes Read fail with %v", cause, err)
		}
		if n, err := io.Copy(io.Discard, st); n != 0 || !errors.Is(err, ErrClosed) {
			t.Error(n, err)
		}
		c.end()
		if c.clientErr != cause {
			t.Errorf("Run returned %v", c.clientErr)
		}
	}
}

// TestBrokenCircuit: what arrived before its peer's FIN is whole and stays; what is cut short does not.
func TestBrokenCircuit(t *testing.T) {
	b := NewBudget(1 << 20)
	h := newClient(t)
	h.s.cfg.Budget = b
	whole, cut := h.connected(), h.connected()
	h.gets(cellOf(data(whole.id, 10), fin(whole.id), data(cut.id, 20)))
	h.s.broken(errReset)
	if got := read(t, whole); len(got) != 10 {
		t.Fatalf("%q", got)
	}
	if _, err := whole.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if _, err := whole.Write(make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := cut.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if b.Used() != 0 {
		t.Fatalf("%d bytes in use", b.Used())
	}
}

// TestForgedCell destroys the circuit, and the link learns nothing of why.
func TestForgedCell(t *testing.T) {
	for name, forge := range map[string]func(c *circuit){
		"bad tag": func(c *circuit) { c.clientPipe.in.write(cellOf(connected(1))) },
		"second FIN": func(c *circuit) {
			c.exit.mu.Lock()
			defer c.exit.mu.Unlock()
			c.exit.streams[1].finDue = true
			c.exit.enqueue(c.exit.streams[1])
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCircuit(t, circuitOptions{accept: func(st *Stream) { st.Connect(); st.CloseWrite() }})
			st := c.open(t)
			if _, err := st.Read(make([]byte, 1)); err != io.EOF {
				t.Fatal(err)
			}
			forge(c)
			c.running.Wait()
			if !errors.Is(c.clientErr, wire.ErrViolation) {
				t.Fatal(c.clientErr)
			}
			for _, code := range c.clientPipe.codes {
				if code != wire.ResetDestroyed {
					t.Fatalf("the link was told %v", code)
				}
			}
		})
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
		st.Close() // stops the timers: the bubble's clock must not reach them
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

// TestManyStreams uses all the streams a circuit may have, over and over.
func TestManyStreams(t *testing.T) {
	c := newCircuit(t, circuitOptions{accept: func(st *Stream) {
		st.Connect()
		io.Copy(st, st)
		st.Close()
	}})
	var wg sync.WaitGroup
	for worker := range 64 {
		wg.Go(func() {
			for round := range 20 {
				st, err := c.client.Open(wire.KindTCP, "host:80")
				if err != nil {
					t.Error(err)
					return
				}
				want := fmt.Sprintf("worker %d, round %d", worker, round)
				st.Write([]byte(want))
				st.CloseWrite()
				got, err := io.ReadAll(st)
				if string(got) != want || err != nil {
					t.Errorf("echo of %q is %q, %v", want, got, err)
				}
				st.Close()
			}
		})
	}
	wg.Wait()
	c.end()
	if c.exit.last != 2*64*20-1 {
		t.Errorf("last stream was %d", c.exit.last)
	}
	checkInvariants(t, c.client)
	checkInvariants(t, c.exit)
}
