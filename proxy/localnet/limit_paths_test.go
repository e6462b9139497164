package localnet_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
	"torproxy/relay"
)

// TestLongPaths measures, in virtual time, what a download of 4 MiB and a small page need through three
// hops over lines of 50 ms and 20 Mbit/s, with and without loss, beside a bare chain over the same lines.
// What is lost is chance, and goroutines run in no fixed order, so that only medians of some runs mean
// anything; without loss a circuit must come near the chain. go test -v prints the figures.
func TestLongPaths(t *testing.T) {
	runs, losses := 5, []float64{0, 0.01}
	if testing.Short() {
		runs, losses = 1, []float64{0}
	}
	for _, loss := range losses {
		var circuits, chains paths
		for seed := range runs {
			bare, onion := measurePaths(t, loss, uint64(seed))
			chains, circuits = append(chains, bare), append(circuits, onion)
		}
		for _, k := range []struct {
			name string
			p    paths
		}{{"bare chain", chains}, {"circuit", circuits}} {
			t.Logf("%.0f %% loss, %-10s  %5.2f Mbit/s   page of 30 KB on an open connection %4d ms", loss*100, k.name, k.p.rate(), k.p.page().Milliseconds())
		}
		if loss == 0 && circuits.rate() < 0.8*chains.rate() {
			t.Errorf("a circuit carries %.2f Mbit/s, a bare chain %.2f", circuits.rate(), chains.rate())
		}
	}
}

// path is what one run measured.
type path struct{ bulk, page time.Duration }

type paths []path

const (
	pathBulk = 4 << 20
	pathPage = 30 << 10
)

// rate is the median of the downloads' rates, in Mbit/s.
func (p paths) rate() float64 {
	var all []time.Duration
	for _, one := range p {
		all = append(all, one.bulk)
	}
	return pathBulk * 8 / times(all).quantile(0.5).Seconds() / 1e6
}

func (p paths) page() time.Duration {
	var all []time.Duration
	for _, one := range p {
		all = append(all, one.page)
	}
	return times(all).quantile(0.5)
}

// measurePaths runs a network and a chain on one internet, one behind the other.
func measurePaths(t *testing.T, loss float64, seed uint64) (bare, onion path) {
	const hops = 3
	wires := newInternet(loss, 20e6, 100*time.Millisecond, seed)
	cfg := localnet.Config{Relay: func(_ int, c *relay.Config) { c.Dial = dialSource }}
	inWorldOver(t, wires, 50*time.Millisecond, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
		running, stop := context.WithCancel(ctx)
		defer stop()
		var all sync.WaitGroup
		p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[0], Hops: hops})
		if err != nil {
			t.Error(err)
			return
		}
		all.Go(func() { p.Run(running) })
		chain := bareInWorld(t, w, running, &all, hops)
		<-p.Ready()
		bare = measurePath(t, ctx, chain, wires)
		onion = measurePath(t, ctx, onions{proxy: p}, wires)
		stop()
		all.Wait()
	})
	return bare, onion
}

// bareInWorld runs a bare chain on the machines that a world has left.
func bareInWorld(t *testing.T, w *world, ctx context.Context, all *sync.WaitGroup, hops int) *bareClient {
	var nodes []bareAt
	for _, conn := range w.conns[2 : 2+hops] {
		node, err := newBareNode(conn)
		if err != nil {
			t.Fatal(err)
		}
		node.dial = dialSource
		all.Go(func() { node.node.Run(ctx) })
		nodes = append(nodes, node.at())
	}
	c, err := chainOf(w.conns[1], nodes)
	if err != nil {
		t.Fatal(err)
	}
	all.Go(func() { c.node.Run(ctx) })
	return c
}

// dialSource is a relay's way to a source in virtual time.
func dialSource(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go serveSource(there)
	return here, nil
}

func measurePath(t *testing.T, ctx context.Context, w way, wires *internet) (took path) {
	conn, err := w.Open(ctx, netip.MustParseAddrPort("198.41.0.4:80"))
	if err != nil {
		t.Error(err)
		return took
	}
	defer conn.Close()
	if err := pull(conn, 1); err != nil {
		t.Error(err)
	}
	wires.harsh.Store(true)
	defer wires.harsh.Store(false)
	for _, k := range []struct {
		size int
		took *time.Duration
	}{{pathPage, &took.page}, {pathBulk, &took.bulk}} {
		began := time.Now()
		if err := pull(conn, k.size); err != nil {
			t.Error(err)
		}
		*k.took = time.Since(began)
	}
	return took
}

// TestSlowReader runs four downloads through one circuit of which one is not read at all, and one more
// through another circuit with it: nobody else slows down.
func TestSlowReader(t *testing.T) {
	alone := slowReader(t, 0)
	beside := slowReader(t, 1)
	t.Logf("four downloads alone: %v; beside one of which nothing is read: %v", alone, beside)
	if slices.Max(beside) > slices.Max(alone)*5/4 {
		t.Errorf("a reader that stands still slows the others: %v, alone %v", beside, alone)
	}
}

// overLines gives f a client that is ready, in a network of six relays over lines of some delay and 20 Mbit/s, and the
// group that is waited for when the client has stopped.
func overLines(t *testing.T, delay time.Duration, f func(ctx context.Context, p *proxy.Proxy, all *sync.WaitGroup)) {
	wires := newInternet(0, 20e6, 100*time.Millisecond, 1)
	cfg := localnet.Config{Relays: 6, Exits: 2, Relay: func(_ int, c *relay.Config) { c.Dial = dialSource }}
	inWorldOver(t, wires, delay, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
		running, stop := context.WithCancel(ctx)
		defer stop()
		var all sync.WaitGroup
		p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[0]})
		if err != nil {
			t.Error(err)
			return
		}
		all.Go(func() { p.Run(running) })
		<-p.Ready()
		wires.harsh.Store(true)
		f(ctx, p, &all)
		wires.harsh.Store(false)
		stop()
		all.Wait()
	})
}

// TestSmallBesideBulk asks for 1 KiB again and again beside four downloads through the same circuit, over lines of 10 ms
// and 20 Mbit/s: what it waits for is twice a round trip and the circuit's work, and not the four downloads' windows.
func TestSmallBesideBulk(t *testing.T) {
	overLines(t, 10*time.Millisecond, func(ctx context.Context, p *proxy.Proxy, all *sync.WaitGroup) {
		conn := openIn(t, ctx, p)
		var idle, beside times
		ask := func(took *times) {
			if err := took.take(func() error { return pull(conn, requestSize) }); err != nil {
				t.Error(err)
			}
		}
		ask(&idle)
		for range 4 {
			bulk := openIn(t, ctx, p)
			defer bulk.Close()
			all.Go(func() { pull(bulk, 1<<30) }) // until it is closed
		}
		settle, asks := 5*time.Second, 50
		if testing.Short() {
			settle, asks = 2*time.Second, 10
		}
		<-time.After(settle) // they have found their speed
		for range 2 * asks { // what a browser would open: the queue must not pass for the way
			openIn(t, ctx, p).Close()
		}
		for range asks {
			ask(&beside)
		}
		t.Logf("1 KiB takes %v, beside four downloads %v, at most %v", idle[0], beside.quantile(0.5), beside.quantile(1))
		if beside.quantile(0.5) > 2*idle[0] { // two and a half times as much when each may fill the circuit
			t.Errorf("1 KiB takes %v beside four downloads, and %v without", beside.quantile(0.5), idle[0])
		}
	})
}

// slowReader returns how long four downloads took beside so many that are not read.
func slowReader(t *testing.T, stuck int) (took times) {
	overLines(t, 50*time.Millisecond, func(ctx context.Context, p *proxy.Proxy, _ *sync.WaitGroup) {
		for range stuck {
			conn := openIn(t, ctx, p)
			defer conn.Close()
			go pull(unread{conn}, 1<<30)
		}
		<-time.After(30 * time.Second) // it has all that it is granted
		size := 4 << 20
		if testing.Short() {
			size = 1 << 20
		}
		took = make(times, 4)
		var flows sync.WaitGroup
		for i := range took {
			flows.Go(func() {
				conn := openIn(t, ctx, p)
				defer conn.Close()
				began := time.Now()
				if err := pull(conn, size); err != nil {
					t.Error(err)
				}
				took[i] = time.Since(began)
			})
		}
		flows.Wait()
	})
	return took
}

func openIn(t *testing.T, ctx context.Context, p *proxy.Proxy) io.ReadWriteCloser {
	conn, err := onions{proxy: p}.Open(ctx, netip.MustParseAddrPort("198.41.0.4:80"))
	if err != nil {
		panic(fmt.Sprint("no connection: ", err)) // a bubble cannot end from another goroutine
	}
	return conn
}

// unread writes, and reads nothing.
type unread struct{ io.ReadWriter }

func (unread) Read([]byte) (int, error) { return 0, io.EOF }
