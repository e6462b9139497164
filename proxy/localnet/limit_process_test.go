package localnet_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"torproxy/dirauth"
	"torproxy/proxy"
	"torproxy/relay"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// Nodes in processes of their own are this test's binary, started again with nodeEnv set: a JSON nodeConfig
// comes on its standard input, its socket is file 3. It answers each further line with a JSON usage, and
// ends when its input does.

const nodeEnv = "TORPROXY_BENCHMARK_NODE"

type nodeConfig struct {
	Role    string          // "bare", "relay", "exit" or "authority"
	Key     []byte          // an authority's
	Network json.RawMessage // the network file
	Name    string
}

// usage is what a process has used, and what it holds after a collection.
type usage struct {
	ID       wire.ID
	CPU      time.Duration
	Memory   int64 // heap and stacks in use, bytes
	Circuits int
}

// runAsNode serves as a node's process.
func runAsNode() error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var cfg nodeConfig
	if err := json.Unmarshal(line, &cfg); err != nil {
		return err
	}
	file := os.NewFile(3, "socket")
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return err
	}
	file.Close()
	node, id, circuits, err := newProcessNode(cfg, conn)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- node(ctx) }()
	out := json.NewEncoder(os.Stdout)
	for {
		if _, err := in.ReadString('\n'); err != nil {
			cancel()
			return <-ended
		}
		if err := out.Encode(usage{ID: id, CPU: cpuTime(), Memory: memory(), Circuits: circuits()}); err != nil {
			return err
		}
	}
}

// newProcessNode makes what a configuration asks for; run is its Run.
func newProcessNode(cfg nodeConfig, conn net.PacketConn) (run func(context.Context) error, id wire.ID, circuits func() int, err error) {
	none := func() int { return 0 }
	if cfg.Role == "bare" {
		n, err := newBareNode(conn)
		if err != nil {
			return nil, id, nil, err
		}
		return n.node.Run, n.node.ID(), none, nil
	}
	network, err := netdoc.ParseNetwork(cfg.Network)
	if err != nil {
		return nil, id, nil, err
	}
	if cfg.Role == "authority" {
		a, err := dirauth.New(dirauth.Config{Network: network, Identity: ed25519.NewKeyFromSeed(cfg.Key), Conn: conn})
		if err != nil {
			return nil, id, nil, err
		}
		return a.Run, wire.PublicID(ed25519.NewKeyFromSeed(cfg.Key)), none, nil
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, id, nil, err
	}
	rc := relay.Config{Network: network, Identity: key, Conn: conn, Nickname: cfg.Name, Bandwidth: 10 << 20}
	if cfg.Role == "exit" {
		if rc.Policy, err = netdoc.ParsePolicy("accept private:*"); err != nil {
			return nil, id, nil, err
		}
	}
	r, err := relay.New(rc)
	if err != nil {
		return nil, id, nil, err
	}
	return r.Run, r.ID(), r.Circuits, nil
}

// memory returns the bytes of heap and stacks in use after a collection.
func memory() int64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// process is a node's process, seen from the test.
type process struct {
	addr netip.AddrPort
	in   io.WriteCloser
	out  *json.Decoder
}

// startProcess runs a node until the test ends.
func startProcess(t testing.TB, cfg nodeConfig, conn net.PacketConn) *process {
	t.Helper()
	file, err := conn.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), nodeEnv+"=1")
	cmd.ExtraFiles = []*os.File{file}
	var said strings.Builder
	cmd.Stderr = &said
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if inErr != nil || outErr != nil {
		t.Fatal(inErr, outErr)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v: %s", cfg.Role, err, said.String())
		}
	})
	p := &process{addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), in: in, out: json.NewDecoder(out)}
	if err := json.NewEncoder(in).Encode(cfg); err != nil {
		t.Fatal(err)
	}
	return p
}

// usage asks the process.
func (p *process) usage(t testing.TB) (u usage) {
	t.Helper()
	if _, err := io.WriteString(p.in, "usage\n"); err != nil {
		t.Fatal(err)
	}
	if err := p.out.Decode(&u); err != nil {
		t.Fatal(err)
	}
	return u
}

// startProcesses runs one authority and a network of so many relays, of which the last is the exit, each in
// its own process.
func startProcesses(t testing.TB, relays int) (*netdoc.Network, []*process) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	socket := udpOn(t, "127.0.0.1")
	network := &netdoc.Network{Version: netdoc.Version, Name: "benchmark", Params: netdoc.Params{
		Round: netdoc.Duration(5 * time.Second), InitialRound: netdoc.Duration(250 * time.Millisecond), InitialRounds: shortBenchmarkRounds,
		Start: time.Now().UnixMilli(), MinRelays: relays, OnionKeyLifetime: netdoc.Duration(24 * time.Hour),
	}, Authorities: []netdoc.Authority{{
		Nickname: "authority", ID: wire.PublicID(key), Addresses: []netip.AddrPort{socket.LocalAddr().(*net.UDPAddr).AddrPort()},
	}}}
	file := network.Marshal()
	startProcess(t, nodeConfig{Role: "authority", Key: key.Seed(), Network: file}, socket)
	var all []*process
	for i := range relays {
		role := "relay"
		if i == relays-1 {
			role = "exit"
		}
		all = append(all, startProcess(t, nodeConfig{Role: role, Network: file, Name: fmt.Sprintf("relay%d", i)}, udpOn(t, "127.0.0.1")))
	}
	return network, all
}

// startProxy runs a client until the test ends.
func startProxy(t testing.TB, cfg proxy.Config) *proxy.Proxy {
	t.Helper()
	p, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-p.Ready():
	case <-time.After(readyWithin):
		t.Fatalf("the client is not ready: %+v", p.Progress())
	}
	return p
}

// BenchmarkBulkProcesses is BenchmarkBulk with each node in its own process; the client and the source share
// one.
func BenchmarkBulkProcesses(b *testing.B) {
	const size = 32 << 20
	run := func(b *testing.B, w way, nodes []*process) {
		conn := open(b, w, startSource(b))
		if err := pull(conn, size); err != nil {
			b.Fatal(err)
		}
		used := func() time.Duration {
			sum := cpuTime()
			for _, p := range nodes {
				sum += p.usage(b).CPU
			}
			return sum
		}
		b.SetBytes(size)
		began := used()
		for b.Loop() {
			if err := pull(conn, size); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((used()-began).Seconds()/(float64(b.N)*size)*(1<<30), "cpu-s/GiB")
	}
	for _, hops := range []int{3, 5} {
		b.Run(fmt.Sprintf("hops=%d/way=bare", hops), func(b *testing.B) {
			var steps []bareAt
			var all []*process
			for range hops {
				p := startProcess(b, nodeConfig{Role: "bare"}, udpOn(b, "127.0.0.1"))
				all, steps = append(all, p), append(steps, bareAt{p.addr, p.usage(b).ID})
			}
			c, err := chainOf(udpOn(b, "127.0.0.1"), steps)
			if err != nil {
				b.Fatal(err)
			}
			runNode(b, c.node)
			run(b, c, all)
		})
		b.Run(fmt.Sprintf("hops=%d/way=onion", hops), func(b *testing.B) {
			network, all := startProcesses(b, hops)
			run(b, onions{proxy: startProxy(b, proxy.Config{Network: network, Hops: hops})}, all)
		})
	}
}
