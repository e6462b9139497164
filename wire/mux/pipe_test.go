package mux

import (
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"torproxy/wire"
)

var errReset = errors.New("stream was reset")

// memPipe is one end of a circuit's stream in memory. What is on its way in each direction is bounded, and
// may take a time to arrive.
type memPipe struct {
	in, out *lane
	mu      sync.Mutex
	codes   []wire.ResetCode // of every Reset
}

// lane is one direction: chunks of cells in order.
type lane struct {
	mu      sync.Mutex
	changed sync.Cond
	chunks  []chunk
	held    int // bytes in chunks
	limit   int
	delay   time.Duration
	err     error
}

type chunk struct {
	cells []byte
	due   time.Time
}

func newLane(limit int, delay time.Duration) *lane {
	l := &lane{limit: limit, delay: delay}
	l.changed.L = &l.mu
	return l
}

// newPipes returns both ends of a stream that holds at most limit cells in each direction.
func newPipes(limit int, delay time.Duration) (client, exit *memPipe) {
	outward, inward := newLane(limit*wire.CellSize, delay), newLane(limit*wire.CellSize, delay)
	return &memPipe{in: inward, out: outward}, &memPipe{in: outward, out: inward}
}

func (l *lane) write(cells []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n < len(cells) {
		for l.err == nil && l.held >= l.limit {
			l.changed.Wait()
		}
		if l.err != nil {
			return n, l.err
		}
		k := min(len(cells)-n, l.limit-l.held)
		l.chunks = append(l.chunks, chunk{append([]byte(nil), cells[n:n+k]...), time.Now().Add(l.delay)})
		l.held += k
		n += k
		l.changed.Broadcast()
	}
	return n, nil
}

func (l *lane) read() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && len(l.chunks) == 0 {
		l.changed.Wait()
	}
	if l.err != nil {
		return nil, l.err
	}
	c := l.chunks[0]
	if wait := time.Until(c.due); l.delay > 0 && wait > 0 { // only in a synctest bubble
		l.mu.Unlock()
		<-time.After(wait)
		l.mu.Lock()
		if l.err != nil {
			return nil, l.err
		}
	}
	l.chunks = l.chunks[1:]
	l.held -= len(c.cells)
	l.changed.Broadcast()
	return c.cells, nil
}

func (l *lane) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	l.changed.Broadcast()
}

func (p *memPipe) ReadCells(f func(cells []byte) error) error {
	for {
		cells, err := p.in.read()
		if err == nil {
			err = f(cells)
		}
		if err != nil {
			return err
		}
	}
}

func (p *memPipe) Write(cells []byte) (int, error) { return p.out.write(cells) }

func (p *memPipe) Reset(code wire.ResetCode) {
	p.mu.Lock()
	p.codes = append(p.codes, code)
	p.mu.Unlock()
	p.in.fail(errReset)
	p.out.fail(errReset)
}

// counting is a codec that encrypts nothing but notices a cell that is lost, changed in its tag, repeated
// or out of order.
type counting struct{ sealed, opened uint64 }

func (c *counting) Seal(cell []byte) {
	c.sealed++
	binary.BigEndian.PutUint64(cell, c.sealed)
}

func (c *counting) Open(cell []byte) bool {
	c.opened++
	return binary.BigEndian.Uint64(cell) == c.opened
}

// circuit is two sessions that talk to each other.
type circuit struct {
	client, exit         *Session
	clientPipe, exitPipe *memPipe
	clientErr, exitErr   error // of Run, after ended
	running, accepted    sync.WaitGroup
}

type circuitOptions struct {
	accept func(*Stream) // in a goroutine of its own; nil: streams are connected and left alone
	pushed func(uint16, *Stream)
	budget *Budget       // the client's
	cells  int           // bound of the pipe in each direction; 0: 32
	delay  time.Duration // of each direction; needs a bubble
}

// newCircuit runs two sessions until the test ends.
func newCircuit(t testing.TB, o circuitOptions) *circuit {
	t.Helper()
	if o.accept == nil {
		o.accept = func(st *Stream) { st.Connect() }
	}
	if o.cells == 0 {
		o.cells = 32
	}
	c := &circuit{client: NewSession(Config{Budget: o.budget, Pushed: o.pushed})}
	c.exit = NewSession(Config{Accept: func(st *Stream) { c.accepted.Go(func() { o.accept(st) }) }})
	c.clientPipe, c.exitPipe = newPipes(o.cells, o.delay)
	c.running.Go(func() { c.clientErr = c.client.Run(c.clientPipe, new(counting)) })
	c.running.Go(func() { c.exitErr = c.exit.Run(c.exitPipe, new(counting)) })
	t.Cleanup(c.end)
	return c
}

// end closes the client's session and waits for everything.
func (c *circuit) end() {
	c.client.Close(nil)
	c.running.Wait()
	c.accepted.Wait()
}

func (c *circuit) open(t testing.TB) *Stream {
	t.Helper()
	st, err := c.client.Open(wire.KindTCP, "example.org:80")
	if err != nil {
		t.Fatal(err)
	}
	return st
}
