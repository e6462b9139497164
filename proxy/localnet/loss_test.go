package localnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/circuit"
	"torproxy/proxy/localnet"
	"torproxy/relay"
	"torproxy/wire"
)

// endless is a site with a page that never ends, and a small one.
func endless(t *testing.T) *httptest.Server {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			io.WriteString(w, "small")
			return
		}
		block := make([]byte, 4096)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	site.Config.SetKeepAlivesEnabled(false) // each page has a connection of its own, and that a record
	t.Cleanup(site.Close)
	return site
}

// TestRelayDiesInTransfer stops each relay of a circuit in the middle of a transfer, by every way through the client:
// the application gets an error and no end of file, Why says what happened, and the next request works.
func TestRelayDiesInTransfer(t *testing.T) {
	n := startNetwork(t, localnet.Config{Params: shortRounds})
	c := startClient(t, n, proxy.Config{}).awaitReady(t)
	site := endless(t)
	direct := &http.Transport{DialContext: c.Dialer("").DialContext}
	ways := []struct {
		name string
		via  *http.Client
	}{{"dialled", &http.Client{Transport: direct}}, {"SOCKS", c.viaSOCKS(t)}, {"front door", c.viaFrontDoor(t)}}
	for hop := range c.Hops() {
		for _, way := range ways {
			t.Run(fmt.Sprintf("hop %d/%s", hop+1, way.name), func(t *testing.T) {
				page, err := way.via.Get(site.URL + "/endless")
				if err != nil {
					t.Fatal(err)
				}
				defer page.Body.Close()
				if _, err := io.CopyN(io.Discard, page.Body, 1<<20); err != nil {
					t.Fatal(err)
				}
				dead := newest(c.Proxy).Route[hop].ID
				if err := n.StopRelay(dead); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, page.Body); err == nil {
					t.Error("the page looks complete")
				}
				if got := get(t, way.via, site.URL+"/small"); got != "small" {
					t.Errorf("the next request got %q", got)
				}
				if r := brokenRecord(c); r == nil || r.Err == "" || len(r.Path) != c.Hops() {
					t.Errorf("nothing tells of it: %+v", c.Why(""))
				}
				if err := n.StartRelay(dead); err != nil {
					t.Fatal(err)
				}
				c.NewIdentity() // forget the record, and do not mistake one circuit for another
			})
		}
	}
}

// brokenRecord returns the newest record of a connection that was cut.
func brokenRecord(c *client) *proxy.Record {
	for _, r := range c.Why("") {
		if r.Outcome == proxy.OutcomeBroken {
			return &r
		}
	}
	return nil
}

// drip is a destination that says something every second, without end.
func drip(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		for {
			if _, err := there.Write([]byte("drop")); err != nil {
				return
			}
			<-time.After(time.Second)
		}
	}()
	return here, nil
}

// TestRelayGoesSilentInTransfer cuts each relay of a circuit off without a word in the middle of a transfer: the
// application has its error within the time in which a link is known to be dead, and the next request,
// made then, works, with ever more relays gone.
func TestRelayGoesSilentInTransfer(t *testing.T) {
	const noticed = 13 * time.Second // a link's idle time-out, and a way for the news
	cfg := localnet.Config{Relay: func(_ int, c *relay.Config) { c.Dial = drip }}
	inWorld(t, 50*time.Millisecond, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
		p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[0]})
		if err != nil {
			t.Error(err)
			return
		}
		running, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() { p.Run(running) })
		<-p.Ready()
		for hop := range p.Hops() {
			checkSilence(t, ctx, w, n, p, hop, noticed)
		}
		stop()
		all.Wait()
	})
}

func checkSilence(t *testing.T, ctx context.Context, w *world, n *localnet.Network, p *proxy.Proxy, hop int, noticed time.Duration) {
	conn, err := p.Dial(ctx, proxy.Request{Target: "198.41.0.4:80"})
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	w.silence(n, newest(p).Route[hop].ID)
	began := time.Now()
	_, err = io.Copy(io.Discard, conn)
	e, ok := errors.AsType[*proxy.Error](err)
	if took := time.Since(began); !ok || !errors.Is(err, circuit.ErrClosed) || e.Timeout() || took > noticed {
		t.Errorf("hop %d: got %v after %v", hop+1, err, took)
	}
	began = time.Now()
	next, err := p.Dial(ctx, proxy.Request{Target: "198.41.0.4:80"})
	if err != nil {
		t.Errorf("hop %d: the next one, after %v: %v; %+v", hop+1, time.Since(began), err, p.Why("")[0])
		return
	}
	defer next.Close()
	if _, err := io.ReadFull(next, make([]byte, 10)); err != nil {
		t.Errorf("hop %d: the next one: %v", hop+1, err)
	}
	if took := time.Since(began); took > noticed {
		t.Errorf("hop %d: the next one took %v", hop+1, took)
	}
}

// newest returns the circuit that carries the newest stream.
func newest(p *proxy.Proxy) (found proxy.CircuitInfo) {
	age := time.Duration(math.MaxInt64)
	for _, c := range p.Circuits() {
		for _, s := range c.Streams {
			if s.Age < age {
				found, age = c, s.Age
			}
		}
	}
	return found
}

// silence cuts a relay off.
func (w *world) silence(n *localnet.Network, id wire.ID) {
	for _, r := range n.Relays() {
		for _, l := range w.lines {
			if r.ID == id && l.LocalAddr().String() == r.Address.String() {
				l.cut.Store(true)
			}
		}
	}
}
