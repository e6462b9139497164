package localnet_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
)

// BenchmarkBuildFlood builds circuits of three hops, 16 at a time, from many clients, while a download runs through
// a circuit of its own: how many are built in a second, and what the download still gets (bulk-MB/s). What a
// relay peels at a time is bounded so that circuits in use go on.
func BenchmarkBuildFlood(b *testing.B) {
	c := startClient(b, startNetwork(b, localnet.Config{Params: calmRounds}), proxy.Config{Hops: 3}).awaitReady(b)
	path := pathOf(b, c.Consensus(), 3)
	nodes := clientNodes(b, buildClients)
	for _, node := range nodes { // the links
		if err := build(b.Context(), node, path); err != nil {
			b.Fatal(err)
		}
	}
	conn := open(b, onions{proxy: c.Proxy}, startSource(b))
	if err := pull(conn, 1<<20); err != nil {
		b.Fatal(err)
	}
	var got atomic.Int64
	var bulk sync.WaitGroup
	bulk.Go(func() { pull(counted{conn, &got}, 1<<40) }) // until it is closed
	got.Store(0)
	next := make(chan int)
	var builders sync.WaitGroup
	for range 16 {
		builders.Go(func() {
			for i := range next {
				if err := build(context.Background(), nodes[i%len(nodes)], path); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := 0; b.Loop(); i++ {
		next <- i
	}
	b.ReportMetric(float64(got.Load())/b.Elapsed().Seconds()/1e6, "bulk-MB/s")
	close(next)
	builders.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "builds/s")
	conn.Close()
	bulk.Wait()
}
