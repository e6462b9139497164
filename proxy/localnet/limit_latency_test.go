package localnet_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/circuit"
	"torproxy/proxy/localnet"
	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// requestSize is what a small request has answered.
const requestSize = 1 << 10

// times collects how long single operations took.
type times []time.Duration

// quantile returns the smallest time that is not below the part q of all.
func (t times) quantile(q float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func (t *times) take(f func() error) error {
	began := time.Now()
	err := f()
	*t = append(*t, time.Since(began))
	return err
}

// report makes a metric of a quantile: p50-us and so on.
func (t times) report(b *testing.B, name string, q float64) {
	b.ReportMetric(microseconds(t.quantile(q)), name)
}

// BenchmarkSmallRequest asks for 1 KiB over a connection that is open, through a circuit that stands and through a
// bare chain, fifty times each in turns.
func BenchmarkSmallRequest(b *testing.B) {
	for _, hops := range []int{3, 5} {
		inTurns(b, hops, func(b *testing.B, bare, onion way) {
			to := startSource(b)
			conns := []io.ReadWriteCloser{open(b, bare, to), open(b, onion, to)}
			var took [2]times
			for b.Loop() {
				for i, conn := range conns {
					for range 50 {
						if err := took[i].take(func() error { return pull(conn, requestSize) }); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			took[0].report(b, "bare-p50-us", 0.5)
			took[1].report(b, "onion-p50-us", 0.5)
			took[0].report(b, "bare-p95-us", 0.95)
			took[1].report(b, "onion-p95-us", 0.95)
			b.ReportMetric(took[1].quantile(0.5).Seconds()/took[0].quantile(0.5).Seconds(), "onion/bare-p50")
		})
	}
}

// BenchmarkOpenRequest opens a connection for each small request: the exit, or the last node of the chain,
// makes a new one to the destination.
func BenchmarkOpenRequest(b *testing.B) {
	bothWays(b, 3, func(b *testing.B, w way) {
		to := startSource(b)
		open(b, w, to)
		var took times
		for b.Loop() {
			err := took.take(func() error {
				conn, err := w.Open(b.Context(), to)
				if err != nil {
					return err
				}
				defer conn.Close()
				return pull(conn, requestSize)
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		took.report(b, "p50-us", 0.5)
	})
}

// BenchmarkUnderLoad asks for 1 KiB at a time, two hundred times while nobody else does anything and as often while
// four downloads run, through the same circuit or chain (load=same) or through another (load=other); again and again,
// each time over new circuits. p95/idle compares the slow ones beside the downloads with the median before, load-MB/s
// is what the downloads carry together.
func BenchmarkUnderLoad(b *testing.B) {
	c := startClient(b, startNetwork(b, localnet.Config{Params: calmRounds}), proxy.Config{Hops: 3}).awaitReady(b)
	bare, other := startBare(b, 3), startBare(b, 3)
	circuits := 0
	fresh := func() way {
		circuits++
		return onions{c.Proxy, fmt.Sprint("circuit ", circuits)}
	}
	for _, k := range []struct {
		name string
		ways func() (small, bulk way)
	}{
		{"load=same/way=bare", func() (small, bulk way) { return bare, bare }},
		{"load=same/way=onion", func() (small, bulk way) { w := fresh(); return w, w }},
		{"load=other/way=bare", func() (small, bulk way) { return bare, other }},
		{"load=other/way=onion", func() (small, bulk way) { return fresh(), fresh() }},
	} {
		b.Run(k.name, func(b *testing.B) {
			to := startSource(b)
			var idle, p50, p95, ratio, rate []float64
			for b.Loop() {
				small, bulk := k.ways()
				before, beside, carried := askBeside(b, small, bulk, to)
				half, late := before.quantile(0.5), beside.quantile(0.95)
				idle, p50 = append(idle, microseconds(half)), append(p50, microseconds(beside.quantile(0.5)))
				p95, ratio = append(p95, microseconds(late)), append(ratio, late.Seconds()/half.Seconds())
				rate = append(rate, carried/1e6)
			}
			b.ReportMetric(median(idle), "idle-p50-us")
			b.ReportMetric(median(p50), "p50-us")
			b.ReportMetric(median(p95), "p95-us")
			b.ReportMetric(median(ratio), "p95/idle")
			b.ReportMetric(median(rate), "load-MB/s")
		})
	}
}

// askBeside returns how long small requests took before and beside four downloads, and how many bytes a second
// those carried meanwhile.
func askBeside(b *testing.B, small, bulk way, to netip.AddrPort) (before, beside times, rate float64) {
	conn := open(b, small, to)
	defer conn.Close()
	ask := func(took *times) {
		for range 200 {
			if err := took.take(func() error { return pull(conn, requestSize) }); err != nil {
				b.Fatal(err)
			}
		}
	}
	ask(&before)
	carried, stop := load(b, bulk, to, 4)
	defer stop()
	had, began := carried.Load(), time.Now()
	ask(&beside)
	return before, beside, float64(carried.Load()-had) / time.Since(began).Seconds()
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// load keeps so many downloads running until stop is called; carried counts the bytes of them all.
func load(b testing.TB, w way, to netip.AddrPort, flows int) (carried *atomic.Int64, stop func()) {
	var running sync.WaitGroup
	var conns []io.ReadWriteCloser
	carried = new(atomic.Int64)
	for range flows {
		conn := open(b, w, to)
		conns = append(conns, conn)
		if err := pull(conn, 4<<20); err != nil { // it is at its full speed when this returns
			b.Fatal(err)
		}
		running.Go(func() { pull(counted{conn, carried}, 1<<40) }) // until it is closed
	}
	return carried, func() {
		for _, conn := range conns {
			conn.Close()
		}
		running.Wait()
	}
}

// buildClients is how many clients build circuits in turn: a relay lets each begin 100 a second.
const buildClients = 32

// BenchmarkBuild builds circuits over links that are up (way=onion). Its limit (way=bare) is what must be
// done anyway, one after the other: for each hop the cryptography of its handshake, at the relay and at the
// client, and a byte there and back over one link.
func BenchmarkBuild(b *testing.B) {
	for _, hops := range []int{3, 5} {
		b.Run(fmt.Sprintf("hops=%d/way=bare", hops), func(b *testing.B) {
			one := startBare(b, 1)
			conn := open(b, one, startSource(b))
			shake := newHandshake(b, hops)
			var took times
			for b.Loop() {
				err := took.take(func() error {
					for range hops {
						if err := pull(conn, 1); err != nil {
							return err
						}
					}
					return shake.run()
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			took.report(b, "p50-us", 0.5)
		})
		b.Run(fmt.Sprintf("hops=%d/way=onion", hops), func(b *testing.B) {
			n := startNetwork(b, localnet.Config{Params: calmRounds})
			c := startClient(b, n, proxy.Config{Hops: hops}).awaitReady(b)
			path := pathOf(b, c.Consensus(), hops)
			nodes := clientNodes(b, buildClients)
			for _, node := range nodes { // the links
				if err := build(b.Context(), node, path); err != nil {
					b.Fatal(err)
				}
			}
			var took times
			for b.Loop() {
				node := nodes[len(took)%len(nodes)]
				if err := took.take(func() error { return build(b.Context(), node, path) }); err != nil {
					b.Fatal(err)
				}
			}
			took.report(b, "p50-us", 0.5)
		})
	}
}

// build makes a circuit and gives it up.
func build(ctx context.Context, node *link.Node, path []*netdoc.Relay) error {
	c, err := circuit.Build(ctx, node, path)
	if err != nil {
		return err
	}
	c.Close()
	c.Run(ctx) // of a closed circuit: it says good-bye and returns
	return nil
}

// pathOf takes the first relays of a consensus.
func pathOf(t testing.TB, c *netdoc.Consensus, hops int) []*netdoc.Relay {
	var path []*netdoc.Relay
	for i := range c.Relays {
		if r := &c.Relays[i]; len(path) < hops && r.OnionKey() != nil {
			path = append(path, r)
		}
	}
	if len(path) < hops {
		t.Fatalf("%d relays for %d hops", len(path), hops)
	}
	return path
}

// handshake is the cryptography of building a circuit, without a network.
type handshake struct {
	path  []onion.Hop
	rings []*onion.Keyring
}

func newHandshake(t testing.TB, hops int) *handshake {
	h := &handshake{}
	for range hops {
		_, identity, err := ed25519.GenerateKey(nil)
		key, keyErr := onion.GenerateKey()
		if err := cmp.Or(err, keyErr); err != nil {
			t.Fatal(err)
		}
		id := wire.PublicID(identity)
		h.path = append(h.path, onion.Hop{ID: id, OnionKey: key.Public()})
		h.rings = append(h.rings, onion.NewKeyring(id, key, 1<<20))
	}
	return h
}

func (h *handshake) run() error {
	packet, client, err := onion.Create(h.path, time.Now())
	if err != nil {
		return err
	}
	peeled := make([]*onion.Peeled, len(h.path))
	for i := range peeled {
		if peeled[i], err = h.rings[i].Peel(packet, time.Now()); err != nil {
			return err
		}
		packet = peeled[i].Packet
	}
	var created []byte
	for i := len(peeled) - 1; i >= 0; i-- {
		status := wire.StatusForwarded
		if peeled[i].Last {
			status = wire.StatusReady
		}
		if created, _, err = peeled[i].Answer(status, created); err != nil {
			return err
		}
	}
	_, err = client.Finish(created)
	return err
}

// BenchmarkConnections opens connections through the SOCKS port, 50 at a time, each for one small request.
func BenchmarkConnections(b *testing.B) {
	c := startClient(b, startNetwork(b, localnet.Config{Params: calmRounds}), proxy.Config{Hops: 3}).awaitReady(b)
	to := startSource(b).String()
	work := make(chan struct{})
	var workers sync.WaitGroup
	for range 50 {
		workers.Go(func() {
			for range work {
				conn, err := c.trySOCKS(to)
				if err != nil {
					b.Error(err)
					continue
				}
				if err := pull(conn, requestSize); err != nil {
					b.Error(err)
				}
				conn.Close()
			}
		})
	}
	for b.Loop() {
		work <- struct{}{}
	}
	close(work)
	workers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conns/s")
}
