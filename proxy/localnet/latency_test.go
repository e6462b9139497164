package localnet_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/frontdoor"
	"torproxy/proxy/localnet"
	"torproxy/proxy/socks"
	"torproxy/relay"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// inside is a listener whose connections are pipes, for servers in virtual time.
type inside struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newInside() *inside { return &inside{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *inside) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *inside) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *inside) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// dial connects to the listener.
func (l *inside) dial() net.Conn {
	here, there := net.Pipe()
	l.conns <- there
	return here
}

// pages is a destination that answers each HTTP request of a connection with a page.
func pages(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		requests := bufio.NewReader(there)
		for {
			if _, err := http.ReadRequest(requests); err != nil {
				return
			}
			if _, err := io.WriteString(there, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ngood day"); err != nil {
				return
			}
		}
	}()
	return here, nil
}

// fronts are the ways into a proxy, in virtual time.
type fronts struct {
	t           *testing.T
	door, socks *inside
}

// openFronts serves both fronts of a proxy until ctx ends; early has them hurry where they may.
func openFronts(t *testing.T, ctx context.Context, p *proxy.Proxy, early bool, all *sync.WaitGroup) *fronts {
	f := &fronts{t, newInside(), newInside()}
	door := frontdoor.New(frontdoor.Config{Backend: noBackend{}, Optimistic: early, Dial: func(ctx context.Context, r frontdoor.Request) (net.Conn, error) {
		wanted := proxy.Request{Target: r.Target, Early: r.Early, After: r.After}
		if r.HTTP {
			wanted.Kind = wire.KindHTTP
		}
		return p.Dial(ctx, wanted)
	}})
	server := socks.New(socks.Config{Dial: func(ctx context.Context, r socks.Request) (net.Conn, error) {
		return p.Dial(ctx, proxy.Request{Target: r.Target, Early: early})
	}})
	all.Go(func() { door.Serve(ctx, f.door) })
	all.Go(func() { server.Serve(ctx, f.socks) })
	return f
}

const page = "GET / HTTP/1.1\r\nHost: 198.41.0.4\r\n\r\n"

// absolute asks the front door for a page.
func (f *fronts) absolute() net.Conn {
	c := f.door.dial()
	io.WriteString(c, "GET http://198.41.0.4/ HTTP/1.1\r\nHost: 198.41.0.4\r\n\r\n")
	return c
}

// connect asks the front door for a pipe and the destination for a page.
func (f *fronts) connect() net.Conn {
	c := f.door.dial()
	io.WriteString(c, "CONNECT 198.41.0.4:80 HTTP/1.1\r\nHost: 198.41.0.4:80\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReaderSize(c, 1), &http.Request{Method: http.MethodConnect})
	if err != nil || r.StatusCode != http.StatusOK {
		f.t.Errorf("CONNECT: %v, %v", r, err)
	}
	io.WriteString(c, page)
	return c
}

// through asks the SOCKS port for a pipe and the destination for a page.
func (f *fronts) through() net.Conn {
	c := f.socks.dial()
	c.Write([]byte{5, 1, 0})
	io.ReadFull(c, make([]byte, 2))
	c.Write(binary.BigEndian.AppendUint16([]byte{5, 1, 0, 1, 198, 41, 0, 4}, 80))
	io.ReadFull(c, make([]byte, 10))
	io.WriteString(c, page)
	return c
}

// TestPageLatency measures, from the request to the first byte of a page, each way in over circuits of 1 to 8 hops
// that stand, with 50 ms per link: one round trip of the path wherever the request rides with BEGIN, two elsewhere.
func TestPageLatency(t *testing.T) {
	const delay = 50 * time.Millisecond
	cfg := localnet.Config{Relay: func(_ int, c *relay.Config) { c.Dial = pages }}
	inWorld(t, delay, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
		running, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		defer all.Wait()
		defer stop()
		lengths := []int{1, 2, 3, 4, 5, 6, 7, 8}
		if testing.Short() {
			lengths = []int{1, 5}
		}
		plain, early := make([]*fronts, len(lengths)), make([]*fronts, len(lengths))
		for i, hops := range lengths {
			p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[i], Hops: hops})
			if err != nil {
				t.Error(err)
				return
			}
			all.Go(func() { p.Run(running) })
			plain[i], early[i] = openFronts(t, running, p, false, &all), openFronts(t, running, p, true, &all)
			<-p.Ready()
		}
		<-time.After(30 * time.Second)
		for i, hops := range lengths {
			pageLatency(t, plain[i], early[i], 2*delay*time.Duration(hops))
		}
	})
}

// pageLatency measures the ways into one client, whose paths have a round trip.
func pageLatency(t *testing.T, plain, early *fronts, trip time.Duration) {
	for _, way := range []struct {
		name  string
		ask   func() net.Conn
		trips int
	}{
		{"front door", plain.absolute, 1},
		{"CONNECT", plain.connect, 2},
		{"CONNECT with --optimistic", early.connect, 1},
		{"SOCKS", plain.through, 2},
		{"SOCKS with --optimistic", early.through, 1},
	} {
		began, want := time.Now(), trip*time.Duration(way.trips)
		conn := way.ask()
		_, err := io.ReadFull(conn, make([]byte, 1))
		if took := time.Since(began); err != nil || took != want {
			t.Errorf("round trip %v, %s: the first byte after %v, %v; want %v", trip, way.name, took, err, want)
		}
		go io.Copy(io.Discard, conn)
		<-time.After(time.Second)
		conn.Close()
	}
}

// TestNobodyWaits uses a client for a long time over links of 50 ms: no request ever waits for a circuit, be it
// the first of its label, be it one of six labels at once, or one whose label's circuit is past its time.
func TestNobodyWaits(t *testing.T) {
	const delay = 50 * time.Millisecond
	cfg := localnet.Config{
		Relay:  func(_ int, c *relay.Config) { c.Dial = greeter },
		Params: func(p *netdoc.Params) { p.Round = netdoc.Duration(15 * time.Minute) },
	}
	inWorld(t, delay, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
		p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[0]})
		if err != nil {
			t.Error(err)
			return
		}
		running, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		defer all.Wait()
		defer stop()
		all.Go(func() { p.Run(running) })
		<-p.Ready()
		<-time.After(30 * time.Second)
		for i := range 10 {
			askAtOnce(t, ctx, p, fmt.Sprint("burst ", i), 6)
			<-time.After(30 * time.Second)
		}
		used := map[string]bool{}
		for i := range 90 { // half an hour
			used[askAtOnce(t, ctx, p, "steady", 1)] = true
			askAtOnce(t, ctx, p, fmt.Sprint("another ", i), 1)
			<-time.After(20 * time.Second)
		}
		if len(used) < 3 {
			t.Errorf("one label has used %d circuits in half an hour, want a new one every ten minutes", len(used))
		}
	})
}

// askAtOnce dials with as many labels, and checks that none waited for a circuit. It returns the circuit of one.
func askAtOnce(t *testing.T, ctx context.Context, p *proxy.Proxy, name string, labels int) (circuit string) {
	t.Helper()
	var all sync.WaitGroup
	for i := range labels {
		all.Go(func() {
			label := name
			if labels > 1 {
				label = fmt.Sprint(name, " ", i)
			}
			conn, err := p.Dial(ctx, proxy.Request{Target: "198.41.0.4:80", Isolation: label})
			if err != nil {
				t.Errorf("%s: %v", label, err)
				return
			}
			conn.Close()
		})
	}
	all.Wait()
	for _, r := range p.Why("")[:labels] {
		if found := r.Steps[0]; found.What != proxy.StepCircuit || found.Result != "ready" || found.Took != 0 {
			t.Errorf("%s: waited for a circuit: %+v", r.Isolation, r.Steps)
		}
		circuit = r.Steps[0].Circuit
	}
	return circuit
}
