package localnet_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/frontdoor"
	"torproxy/proxy/localnet"
	"torproxy/proxy/socks"
	"torproxy/relay"
	"torproxy/wire"
)

// pageWay is how a page is loaded.
type pageWay struct {
	name     string
	proxy    string // socks5 or http
	prefetch bool
}

// pageLoad is what came of it.
type pageLoad struct {
	took        time.Duration
	again       int // requests that the destination got for what it had sent already
	pushed      int64
	used        int64 // pushes that answered a request
	vain, bytes int64 // that came pushed and answered none; of all files
}

// TestPages loads a page of 30 resources in three levels through five hops, 40 ms and 20 Mbit/s each, with the
// destination another 40 ms there and back behind the exit: through SOCKS, and through the front door without
// and with opening links. Opening them takes half the time of SOCKS at most, with a tenth of the bytes in vain.
func TestPages(t *testing.T) {
	ways := []pageWay{{"SOCKS", "socks5", false}, {"front door, --prefetch off", "http", false}, {"front door", "http", true}}
	loads := make([]pageLoad, len(ways))
	var table strings.Builder
	table.WriteString("| way | page complete after | pushed | of them used | bytes in vain |\n|---|---|---|---|---|\n")
	for i, way := range ways {
		l := loadPage(t, way)
		loads[i] = l
		fmt.Fprintf(&table, "| %s | %.2f s | %d | %d | %.1f %% |\n", way.name, l.took.Seconds(), l.pushed, l.used, 100*float64(l.vain)/float64(l.bytes))
	}
	t.Logf("\n%s", table.String())
	if with, off, socks := loads[2], loads[1], loads[0]; 2*with.took > socks.took || with.took >= off.took || 10*with.vain > with.bytes || with.used != 28 || with.again != 2 {
		t.Errorf("%+v", loads)
	}
}

// loadPage loads the page in a world of its own, through circuits that stand and links that are idle.
func loadPage(t *testing.T, way pageWay) (l pageLoad) {
	t.Helper()
	wires := newInternet(0, 20e6, 100*time.Millisecond, 1)
	site := newWebsite(40 * time.Millisecond)
	cfg := localnet.Config{Authorities: 1, Relays: 7, Exits: 2, Relay: func(_ int, c *relay.Config) { c.Dial, c.Resolver = site.Dial, site }}
	inWorldOver(t, wires, 40*time.Millisecond, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
		running, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[0], Hops: 5})
		if err != nil {
			t.Error(err)
			stop()
			return
		}
		all.Go(func() { p.Run(running) })
		<-p.Ready()
		<-time.After(10 * time.Second) // the spares stand
		door, pushes := serveDoor(running, &all, p, way)
		wires.harsh.Store(true)
		began := time.Now()
		got, err := newNavigator(&url.URL{Scheme: way.proxy, Host: "localhost:8118"}, door.dial).load("http://site.test/")
		l.took = time.Since(began)
		if err != nil {
			t.Error(err)
		}
		<-time.After(15 * time.Second) // what nobody asks for is dropped
		for link, f := range site.files {
			if got[link] != f.body {
				t.Errorf("%s: %d bytes arrived of %d", link, len(got[link]), len(f.body))
			}
			l.again += site.asked[link] - 1
		}
		s := pushes()
		l.pushed, l.used = s.PushesUsed+s.PushesMissed+s.PushesRefused+s.PushesUnused+s.PushesKnown, s.PushesUsed
		l.vain, l.bytes = s.PushBytesWasted, int64(site.bytes())
		stop()
		all.Wait()
	})
	return l
}

// serveDoor serves a SOCKS port or a front door on pipes.
func serveDoor(ctx context.Context, all *sync.WaitGroup, p *proxy.Proxy, way pageWay) (pipes, func() frontdoor.Stats) {
	l := make(pipes)
	if way.proxy == "socks5" {
		s := socks.New(socks.Config{Dial: func(ctx context.Context, r socks.Request) (net.Conn, error) {
			return p.Dial(ctx, proxy.Request{Target: r.Target})
		}})
		all.Go(func() { s.Serve(ctx, listenPipes{l, ctx}) })
		return l, func() frontdoor.Stats { return frontdoor.Stats{} }
	}
	f := frontdoor.New(frontdoor.Config{Backend: noBackend{}, Prefetch: way.prefetch, Dial: func(ctx context.Context, r frontdoor.Request) (net.Conn, error) {
		wanted := proxy.Request{Target: r.Target, Isolation: r.Isolation, Early: r.Early, After: r.After, Pushed: r.Pushed}
		if r.HTTP {
			wanted.Kind = wire.KindHTTP
		}
		return p.Dial(ctx, wanted)
	}})
	all.Go(func() { f.Serve(ctx, listenPipes{l, ctx}) })
	return l, f.Stats
}

// pipes is a port in memory.
type pipes chan net.Conn

func (p pipes) dial() net.Conn {
	near, far := net.Pipe()
	p <- far
	return near
}

// listenPipes is a port's listener until its context ends.
type listenPipes struct {
	port pipes
	ctx  context.Context
}

func (l listenPipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.port:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (l listenPipes) Close() error { return nil }

func (l listenPipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8118} }
