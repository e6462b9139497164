package localnet_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"torproxy/proxy"
	"torproxy/proxy/circuit"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
)

// maxCircuitMemory is what an idle circuit may cost a relay, in bytes: PERFORMANCE.md's bound.
const maxCircuitMemory = memorySlack * 24 << 10

// TestMemory builds idle circuits through three relays, each in its own process, and holds what each costs
// a relay against the bound.
func TestMemory(t *testing.T) {
	circuits := 3000
	if memorySlack > 1 {
		circuits = 500 // each takes its time
	}
	for i, m := range measureMemory(t, circuits, 30) {
		t.Logf("relay %d: %.1f KiB a circuit, %.1f KiB a link", i, m.circuit/1024, m.link/1024)
		if m.circuit > maxCircuitMemory {
			t.Errorf("a circuit costs relay %d %.0f bytes, the bound is %d", i, m.circuit, maxCircuitMemory)
		}
	}
}

// BenchmarkMemory is TestMemory with 10,000 circuits. It reports the relay that it costs most.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		var most held
		for _, m := range measureMemory(b, 10000, 100) {
			most.circuit, most.link = max(most.circuit, m.circuit), max(most.link, m.link)
		}
		b.ReportMetric(most.circuit/1024, "KiB/circuit")
		b.ReportMetric(most.link/1024, "KiB/link")
	}
}

// held is what one circuit and one link cost a relay, in bytes.
type held struct{ circuit, link float64 }

// measureMemory builds circuits from as many clients as have links, and returns what they cost each relay. A
// client is an address of its own, or a relay would not let it have so many circuits.
func measureMemory(t testing.TB, circuits, links int) []held {
	network, relays := startProcesses(t, 3)
	p := startProxy(t, proxy.Config{Network: network, Hops: 3, Spares: 1})
	path := p.Circuits()[0].Route
	first := -1
	for i, r := range relays {
		if r.addr == path[0].Addresses[0] {
			first = i
		}
	}
	nodes := clientNodes(t, links)
	before := usages(t, relays)
	all := buildIdle(t, nodes, path, links) // one each: the links
	linked := usages(t, relays)
	all = append(all, buildIdle(t, nodes, path, circuits)...)
	after := usages(t, relays)
	for _, end := range all {
		end()
	}
	costs := make([]held, len(relays))
	for i := range relays {
		if got := after[i].Circuits - linked[i].Circuits; got < circuits {
			t.Fatalf("relay %d has %d more circuits, want %d", i, got, circuits)
		}
		costs[i].circuit = float64(after[i].Memory-linked[i].Memory) / float64(circuits)
	}
	costs[first].link = float64(linked[first].Memory-before[first].Memory)/float64(links) - costs[first].circuit
	return costs
}

// clientNodes runs so many clients, each on an address of its own, until the test ends.
func clientNodes(t testing.TB, n int) []*link.Node {
	nodes := make([]*link.Node, n)
	for i := range nodes {
		var err error
		if nodes[i], err = link.NewNode(link.Config{Conn: udpOn(t, fmt.Sprintf("127.0.1.%d", i+1))}); err != nil {
			t.Fatal(err)
		}
		runNode(t, nodes[i])
	}
	return nodes
}

func usages(t testing.TB, relays []*process) []usage {
	all := make([]usage, len(relays))
	for i, r := range relays {
		all[i] = r.usage(t)
	}
	return all
}

// buildIdle builds circuits, the nodes in turn, and returns how each is ended.
func buildIdle(t testing.TB, nodes []*link.Node, path []*netdoc.Relay, circuits int) []func() {
	var mu sync.Mutex
	var ends []func()
	var builders sync.WaitGroup
	next := make(chan int)
	for range 8 {
		builders.Go(func() {
			for i := range next {
				c, err := circuit.Build(t.Context(), nodes[i%len(nodes)], path)
				if err != nil {
					t.Error(err)
					continue
				}
				ctx, cancel := context.WithCancel(context.Background())
				ended := make(chan error, 1)
				go func() { ended <- c.Run(ctx) }()
				mu.Lock()
				ends = append(ends, func() { cancel(); <-ended })
				mu.Unlock()
			}
		})
	}
	for i := range circuits {
		next <- i
	}
	close(next)
	builders.Wait()
	return ends
}
