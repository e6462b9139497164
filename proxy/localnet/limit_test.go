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
	"time"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
	"torproxy/wire/netdoc"
)

// The benchmarks of PERFORMANCE.md. Each measures one thing in two ways, through circuits and through a
// bare chain of the same links, as sub-benchmarks way=onion and way=bare: benchstat -col /way shows them
// side by side. Where it is about small differences, the two take turns in one sub-benchmark, which then also has
// their ratio: a machine whose speed changes changes it for both.

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

// inTurns runs a benchmark that has a circuit and a chain of some length at the same time.
func inTurns(b *testing.B, hops int, f func(b *testing.B, bare, onion way)) {
	b.Run(fmt.Sprintf("hops=%d", hops), func(b *testing.B) {
		c := startClient(b, startNetwork(b, localnet.Config{Params: calmRounds}), proxy.Config{Hops: hops}).awaitReady(b)
		f(b, startBare(b, hops), onions{proxy: c.Proxy})
	})
}

// median returns the middle one of some numbers, of an even number of them the one above the middle.
func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
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

// sourceBytes is what every source sends.
var sourceBytes [256 << 10]byte

func serveSource(conn net.Conn) {
	defer conn.Close()
	var count [8]byte
	for {
		if _, err := io.ReadFull(conn, count[:]); err != nil {
			return
		}
		for left := binary.BigEndian.Uint64(count[:]); left > 0; {
			n, err := conn.Write(sourceBytes[:min(left, uint64(len(sourceBytes)))])
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

// BenchmarkBulk is one download through a chain and one through a circuit, in turns, with the processor time of all
// nodes, the source and the client per GiB.
func BenchmarkBulk(b *testing.B) {
	for _, hops := range []int{3, 5} {
		inTurns(b, hops, func(b *testing.B, bare, onion way) {
			const size = 32 << 20
			to := startSource(b)
			conns := []io.ReadWriteCloser{open(b, bare, to), open(b, onion, to)}
			for _, conn := range conns {
				if err := pull(conn, size); err != nil { // windows grow first
					b.Fatal(err)
				}
			}
			var rate, used [2][]float64
			var rates, costs []float64
			for b.Loop() {
				for i, conn := range conns {
					began, cpu := time.Now(), cpuTime()
					if err := pull(conn, size); err != nil {
						b.Fatal(err)
					}
					rate[i] = append(rate[i], size/time.Since(began).Seconds()/1e6)
					used[i] = append(used[i], (cpuTime()-cpu).Seconds()/size*(1<<30))
				}
				last := len(rates)
				rates, costs = append(rates, rate[1][last]/rate[0][last]), append(costs, used[1][last]/used[0][last])
			}
			for i, name := range []string{"bare-", "onion-"} {
				b.ReportMetric(median(rate[i]), name+"MB/s")
				b.ReportMetric(median(used[i]), name+"cpu-s/GiB")
			}
			b.ReportMetric(median(rates), "onion/bare-MB/s")
			b.ReportMetric(median(costs), "onion/bare-cpu")
		})
	}
}

// BenchmarkFair is one download of 128 MiB (one-MB/s) and then 16 of 16 MiB at a time (all-MB/s), each through a
// circuit or chain of its own, again and again: all over the same three nodes, and, for what a client really does,
// with routes that are spread over twelve. share-min and share-max are the smallest and largest part of an
// even share when the first of the 16 has its bytes.
func BenchmarkFair(b *testing.B) {
	const flows = 16
	b.Run("hops=3/way=bare", func(b *testing.B) {
		fair(b, slices.Repeat([]way{startBare(b, 3)}, flows))
	})
	b.Run("hops=3/spread/way=bare", func(b *testing.B) { fair(b, startBareSpread(b, flows)) })
	for name, cfg := range map[string]localnet.Config{
		"hops=3/way=onion":        {Relays: 3, Exits: 1, Params: func(p *netdoc.Params) { calmRounds(p); p.MinRelays = 3 }},
		"hops=3/spread/way=onion": {Params: calmRounds},
	} {
		b.Run(name, func(b *testing.B) {
			c := startClient(b, startNetwork(b, cfg), proxy.Config{Hops: 3}).awaitReady(b)
			ways := make([]way, flows)
			for i := range ways {
				ways[i] = onions{c.Proxy, fmt.Sprint("flow ", i)}
			}
			fair(b, ways)
		})
	}
}

// fair lets the first of some ways carry as much alone as half of all of them then carry together.
func fair(b *testing.B, ways []way) {
	const each = 16 << 20
	alone, together := len(ways)*each/2, len(ways)*each
	conns, to := make([]io.ReadWriteCloser, len(ways)), startSource(b)
	for i := range conns {
		conns[i] = open(b, ways[i], to)
		if err := pull(conns[i], each); err != nil { // windows grow first
			b.Fatal(err)
		}
	}
	var one, all, ratio, least, most []float64
	for b.Loop() {
		var took times
		if err := took.take(func() error { return pull(conns[0], alone) }); err != nil {
			b.Fatal(err)
		}
		var got []float64
		took.take(func() error { got = race(b, conns, each); return nil })
		one, all = append(one, float64(alone)/took[0].Seconds()/1e6), append(all, float64(together)/took[1].Seconds()/1e6)
		ratio = append(ratio, all[len(all)-1]/one[len(one)-1])
		even := 0.0
		for _, n := range got {
			even += n / float64(len(got))
		}
		least, most = append(least, slices.Min(got)/even), append(most, slices.Max(got)/even)
	}
	b.ReportMetric(median(one), "one-MB/s")
	b.ReportMetric(median(all), "all-MB/s")
	b.ReportMetric(median(ratio), "all/one")
	b.ReportMetric(slices.Min(least), "share-min")
	b.ReportMetric(slices.Max(most), "share-max")
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
