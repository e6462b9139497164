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
