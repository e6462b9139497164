package localnet_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
	"torproxy/relay"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// guarded is a client in virtual time, with circuits of three hops, whose line can be cut off.
type guarded struct {
	*proxy.Proxy
	t    *testing.T
	ctx  context.Context
	line *line
	stop func()
	used int // labels, so far
}

// newGuarded runs a client that goes on with the guards of an earlier one, if there are any.
func newGuarded(t *testing.T, ctx context.Context, conn net.PacketConn, n *localnet.Network, guards []byte) *guarded {
	l := &line{SimConn: conn.(*simnet.SimConn)}
	p, err := proxy.New(proxy.Config{Network: n.File(), Conn: l})
	if err != nil {
		t.Fatal(err)
	}
	if guards != nil {
		if err := p.OfferGuards(guards); err != nil {
			t.Error(err)
		}
	}
	running, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { p.Run(running) })
	<-p.Ready()
	g := &guarded{Proxy: p, t: t, ctx: ctx, line: l, stop: func() { cancel(); all.Wait() }}
	g.settle() // the first circuits were all built at once, before it was known which guard is confirmed first
	return g
}

// settle uses the circuits up that stand, so that others are built in their place.
func (g *guarded) settle() {
	for range 2 {
		<-time.After(20 * time.Second)
		g.uses("settling")
	}
	<-time.After(20 * time.Second)
}

// uses dials with labels that nothing had before, and returns the routes of the circuits that carry them.
func (g *guarded) uses(when string) (routes [][]*netdoc.Relay) {
	g.t.Helper()
	for range 12 {
		g.used++
		label := fmt.Sprint("label ", g.used)
		conn, err := g.Dial(g.ctx, proxy.Request{Target: "198.41.0.4:80", Isolation: label})
		if err != nil {
			g.t.Errorf("%s: %v", when, err)
			return routes
		}
		for _, c := range g.Circuits() {
			if c.Isolation == label && len(c.Streams) > 0 {
				routes = append(routes, c.Route)
			}
		}
		conn.Close()
	}
	return routes
}

// only returns the one guard that is used wherever it is not the exit.
func (g *guarded) only(when string) wire.ID {
	g.t.Helper()
	routes, count := g.uses(when), map[wire.ID]int{}
	var most wire.ID
	for _, r := range routes {
		if count[r[0].ID]++; count[r[0].ID] > count[most] {
			most = r[0].ID
		}
	}
	for _, r := range routes {
		if r[0].ID != most && r[len(r)-1].ID != most {
			g.t.Errorf("%s: a circuit enters by %s, others by %s", when, r[0].ID.Short(), most.Short())
		}
	}
	return most
}

// inGuarded runs f on a network whose relays stay in the consensus while they are cut off for a while.
func inGuarded(t *testing.T, f func(ctx context.Context, w *world, n *localnet.Network)) {
	t.Helper()
	cfg := localnet.Config{
		Relay:  func(_ int, c *relay.Config) { c.Dial = greeter },
		Params: func(p *netdoc.Params) { p.Round = netdoc.Duration(15 * time.Minute) },
	}
	inWorld(t, 5*time.Millisecond, cfg, f)
}

// TestOneGuard checks that all circuits enter the network by one relay, also those of a later run that knows
// which it was; and that a run which does not know enters it by some other of the twelve.
func TestOneGuard(t *testing.T) {
	inGuarded(t, func(ctx context.Context, w *world, n *localnet.Network) {
		<-time.After(time.Minute) // all relays run
		first := newGuarded(t, ctx, w.conns[0], n, nil)
		chosen := first.only("at first")
		<-time.After(20 * time.Minute)
		if first.only("later") != chosen {
			t.Error("the guard has changed without a reason")
		}
		kept := first.GuardState()
		first.stop()
		again := newGuarded(t, ctx, w.conns[1], n, kept)
		if again.only("after a restart") != chosen {
			t.Error("another run has another guard")
		}
		again.stop()
	})
}

// TestGuardStops stops the guard: the client goes on with another, and comes back to the first when that has
// come back.
func TestGuardStops(t *testing.T) {
	inGuarded(t, func(ctx context.Context, w *world, n *localnet.Network) {
		<-time.After(time.Minute)
		c := newGuarded(t, ctx, w.conns[0], n, nil)
		defer c.stop()
		chosen := c.only("at first")
		w.cut(n, chosen, true)
		<-time.After(20 * time.Second)
		for _, r := range c.uses("without it") {
			if r[0].ID == chosen {
				t.Error("a circuit enters by the guard that is cut off")
			}
		}
		if c.Progress().Percent != 100 {
			t.Errorf("without its guard the client says %+v", c.Progress())
		}
		w.cut(n, chosen, false)
		<-time.After(30 * time.Minute)
		c.settle()
		if c.only("when it is back") != chosen {
			t.Error("the client does not come back to its guard")
		}
	})
}

// TestGuardLeaves stops the guard of a client that knows its network: the next request takes little longer than
// the time after which the guard counts as gone.
func TestGuardLeaves(t *testing.T) {
	inGuarded(t, func(ctx context.Context, w *world, n *localnet.Network) {
		<-time.After(time.Minute)
		c := newGuarded(t, ctx, w.conns[0], n, nil)
		defer c.stop()
		if err := n.StopRelay(c.only("at first")); err != nil {
			t.Error(err)
		}
		began := time.Now()
		conn, err := c.Dial(ctx, proxy.Request{Target: "198.41.0.4:80", Isolation: "next"})
		if took := time.Since(began); err != nil || took > 1500*time.Millisecond {
			t.Errorf("the next request took %v, %v", took, err)
			return
		}
		conn.Close()
	})
}

// TestOffline takes the client's network away for a while: it says what is wrong, spends no guard on it, and
// soon after the network has come back it is ready and enters by the guard that it had.
func TestOffline(t *testing.T) {
	inGuarded(t, func(ctx context.Context, w *world, n *localnet.Network) {
		<-time.After(time.Minute)
		c := newGuarded(t, ctx, w.conns[0], n, nil)
		defer c.stop()
		chosen, kept := c.only("at first"), c.GuardState()
		c.line.cut.Store(true)
		<-time.After(40 * time.Second)
		if said := c.Progress(); said.Percent == 100 || !strings.Contains(said.Summary, "offline") {
			t.Errorf("offline the client says %+v", said)
		}
		<-time.After(20 * time.Minute)
		if said := c.Progress(); said.Percent == 100 {
			t.Errorf("offline for longer the client says %+v", said)
		}
		c.line.cut.Store(false)
		<-time.After(2 * time.Minute)
		if said := c.Progress(); said.Percent != 100 {
			t.Errorf("when it is back the client says %+v", said)
		}
		c.settle()
		if c.only("when it is back") != chosen {
			t.Error("the guard has changed")
		}
		if was, is := strings.Count(string(kept), `"id"`), strings.Count(string(c.GuardState()), `"id"`); was == 0 || was != is {
			t.Errorf("%d guards are sampled, before it were %d", is, was)
		}
	})
}

// TestPrimariesStop cuts off every guard that the client would rather use: circuits go through others, once it
// is sure that it is not its own network that has gone.
func TestPrimariesStop(t *testing.T) {
	inGuarded(t, func(ctx context.Context, w *world, n *localnet.Network) {
		<-time.After(time.Minute)
		c := newGuarded(t, ctx, w.conns[0], n, nil)
		defer c.stop()
		gone := map[wire.ID]bool{}
		for _, used := range []string{"first", "second", "third"} {
			id := c.only(used)
			gone[id] = true
			w.cut(n, id, true)
			<-time.After(15 * time.Second) // its links are dead
			c.settle()
		}
		for _, r := range c.uses("without the primaries") {
			if gone[r[0].ID] {
				t.Error("a circuit enters by a guard that is cut off")
			}
		}
		if said := c.Progress(); said.Percent != 100 {
			t.Errorf("without the primaries the client says %+v", said)
		}
	})
}

// TestGuardStopped stops the guard of a client of the embedded network: the next request works.
func TestGuardStopped(t *testing.T) {
	n := startNetwork(t, localnet.Config{})
	c := startClient(t, n, proxy.Config{}).awaitReady(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }))
	defer site.Close()
	for range 2 {
		conn := c.dialSOCKS(t, site.Listener.Addr().String())
		path := routeOf(t, c, site.Listener.Addr().String())
		if err := n.StopRelay(path[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err == nil {
			t.Error("the connection has ended as if that were all")
		}
		if got, err := tryGet(c.viaSOCKS(t), site.URL); err != nil || got != "here" {
			t.Errorf("the next request got %q, %v: %+v; the client says %+v", got, err, c.Why("")[0], c.Progress())
		}
	}
}
