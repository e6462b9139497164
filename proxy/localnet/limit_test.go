package localnet_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
	"torproxy/wire/netdoc"
)

// The benchmarks of PERFORMANCE.md. Each measures one thing in two ways, through circuits and through a
// bare chain of the same links, as sub-benchmarks way=onion and way=bare: benchstat -col /way shows them
// side by side.

// way is one of the two: Open makes a connection to a destination on this machine.
type way interface {
	Open(ctx context.Context, target netip.AddrPort) (io.ReadWriteCloser, error)
}

// onions is the way through circuits, each connection in the isolation that its context or label says.
type onions struct {
	proxy *proxy.Proxy
	label string
}

// Open implements way.
func (o onions) Open(ctx context.Context, target netip.AddrPort) (io.ReadWriteCloser, error) {
	return o.proxy.Dial(ctx, proxy.Request{Target: target.String(), Isolation: o.label})
}

// calmRounds leaves a network as many short rounds as it needs to be ready: votes are not what is measured.
func calmRounds(p *netdoc.Params) { p.InitialRounds = shortBenchmarkRounds }

const shortBenchmarkRounds = 6

// bothWays runs a benchmark through chains of some length.
func bothWays(b *testing.B, hops int, f func(b *testing.B, w way)) {
	b.Run(fmt.Sprintf("hops=%d/way=bare", hops), func(b *testing.B) { f(b, startBare(b, hops)) })
	b.Run(fmt.Sprintf("hops=%d/way=onion", hops), func(b *testing.B) {
		c := startClient(b, startNetwork(b, localnet.Config{Params: calmRounds}), proxy.Config{Hops: hops}).awaitReady(b)
		f(b, onions{proxy: c.Proxy})
	})
}

// startSource runs a destination that sends as many bytes as it is asked for, by a count of eight bytes,
// again and again.
func startSource(t testing.TB) netip.AddrPort {
	l := listen(t)
	var conns sync.WaitGroup
	t.Cleanup(conns.Wait)
	t.Cleanup(func() { l.Close() })
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { serveSource(conn) })
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

var sourceBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func serveSource(conn net.Conn) {
	defer conn.Close()
	buf := sourceBuffers.Get().(*[256 << 10]byte)
	defer sourceBuffers.Put(buf)
	var count [8]byte
	for {
		if _, err := io.ReadFull(conn, count[:]); err != nil {
			return
		}
		for left := binary.BigEndian.Uint64(count[:]); left > 0; {
			n, err := conn.Write(buf[:min(left, uint64(len(buf)))])
			if err != nil {
				return
			}
			left -= uint64(n)
		}
	}
}

// pull asks a source for n bytes and reads them.
func pull(conn io.ReadWriter, n int) error {
	var count [8]byte
	binary.BigEndian.PutUint64(count[:], uint64(n))
	if _, err := conn.Write(count[:]); err != nil {
		return err
	}
	buf := bareBuffers.Get().(*[bareBuffer]byte)
	defer bareBuffers.Put(buf)
	for n > 0 {
		k, err := conn.Read(buf[:min(n, len(buf))])
		if n -= k; err != nil && n > 0 {
			return err
		}
	}
	return nil
}

func open(b testing.TB, w way, to netip.AddrPort) io.ReadWriteCloser {
	b.Helper()
	conn, err := w.Open(b.Context(), to)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

// BenchmarkBulk is one download, with the processor time of all nodes, the source and the client per GiB.
func BenchmarkBulk(b *testing.B) {
	for _, hops := range []int{3, 5} {
		bothWays(b, hops, func(b *testing.B, w way) {
			const size = 32 << 20
			conn := open(b, w, startSource(b))
			if err := pull(conn, size); err != nil { // windows grow first
				b.Fatal(err)
			}
			b.SetBytes(size)
			began := cpuTime()
			for b.Loop() {
				if err := pull(conn, size); err != nil {
					b.Fatal(err)
				}
			}
			used := cpuTime() - began
			b.ReportMetric(used.Seconds()/(float64(b.N)*size)*(1<<30), "cpu-s/GiB")
		})
	}
}

// BenchmarkFair is 16 downloads at a time, each through a circuit or chain of its own, until the first has
// its 16 MiB: all over the same three nodes, and, for what the client really does, with routes that are spread
// over twelve. share-min and share-max are the smallest and largest part of an even share.
func BenchmarkFair(b *testing.B) {
	const flows, size = 16, 16 << 20
	run := func(b *testing.B, ways []way) {
		to := startSource(b)
		conns := make([]io.ReadWriteCloser, flows)
		for i := range conns {
			conns[i] = open(b, ways[i], to)
			if err := pull(conns[i], 1<<20); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(flows * size)
		var least, most float64
		for b.Loop() {
			got := race(b, conns, size)
			sum := 0.0
			for _, n := range got {
				sum += n
			}
			least += slices.Min(got) / (sum / flows)
			most += slices.Max(got) / (sum / flows)
		}
		n := float64(b.N)
		b.ReportMetric(least/n, "share-min")
		b.ReportMetric(most/n, "share-max")
	}
	b.Run("hops=3/way=bare", func(b *testing.B) {
		c := startBare(b, 3)
		ways := make([]way, flows)
		for i := range ways {
			ways[i] = c
		}
		run(b, ways)
	})
	for name, cfg := range map[string]localnet.Config{
		"hops=3/way=onion": {Relays: 3, Exits: 1, Params: func(p *netdoc.Params) { calmRounds(p); p.MinRelays = 3 }},
		"hops=3/spread":    {Params: calmRounds},
	} {
		b.Run(name, func(b *testing.B) {
			c := startClient(b, startNetwork(b, cfg), proxy.Config{Hops: 3}).awaitReady(b)
			ways := make([]way, flows)
			for i := range ways {
				ways[i] = onions{c.Proxy, fmt.Sprint("flow ", i)}
			}
			run(b, ways)
		})
	}
}

// race pulls size bytes through each connection and returns how many each had when the first was done; it
// returns when all are.
func race(b testing.TB, conns []io.ReadWriteCloser, size int) []float64 {
	got, final := make([]atomic.Int64, len(conns)), make([]float64, len(conns))
	var first sync.Once
	var flows sync.WaitGroup
	for i, conn := range conns {
		flows.Go(func() {
			if err := pull(counted{conn, &got[i]}, size); err != nil {
				b.Error(err)
			}
			first.Do(func() {
				for i := range got {
					final[i] = float64(got[i].Load())
				}
			})
		})
	}
	flows.Wait()
	return final
}

// counted counts what is read.
type counted struct {
	io.ReadWriter
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadWriter.Read(p)
	c.n.Add(int64(n))
	return n, err
}
