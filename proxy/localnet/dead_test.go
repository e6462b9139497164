package localnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
	"torproxy/relay"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// ticking is a destination in virtual time that says something ten times a second until it is left.
func ticking(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		for {
			if _, err := io.WriteString(there, "tick"); err != nil {
				return
			}
			<-time.After(100 * time.Millisecond)
		}
	}()
	return here, nil
}

// TestRelayDies cuts off one relay of a circuit in use, without a word, at each place of the path: the
// application has an error, no end of the page, as soon as the link counts as dead; no circuit through that
// relay is left; and the next request works.
func TestRelayDies(t *testing.T) {
	const (
		hops  = 3
		delay = 5 * time.Millisecond
		// A ping goes out after four quiet seconds, and the link is dead eight seconds later.
		noticed = 12*time.Second + 10*delay
	)
	for hop := range hops {
		t.Run(fmt.Sprintf("hop %d", hop+1), func(t *testing.T) {
			cfg := localnet.Config{
				Relay: func(_ int, c *relay.Config) { c.Dial = ticking },
				// The consensus does not tell in time.
				Params: func(p *netdoc.Params) { p.Round = netdoc.Duration(15 * time.Minute) },
			}
			inWorld(t, delay, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
				p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[0], Hops: hops})
				if err != nil {
					t.Error(err)
					return
				}
				running, stop := context.WithCancel(ctx)
				var all sync.WaitGroup
				all.Go(func() { p.Run(running) })
				defer all.Wait()
				defer stop()
				<-p.Ready()
				<-time.After(time.Minute) // all relays run
				conn, err := p.Dial(ctx, proxy.Request{Target: "198.41.0.4:80"})
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				<-time.After(time.Second)
				dead := deadOf(p, hop)
				w.cut(n, dead, true)
				began := time.Now()
				_, err = io.Copy(io.Discard, conn)
				cut, ok := errors.AsType[*proxy.Error](err)
				if took := time.Since(began); !ok || cut.Timeout() || errors.Is(err, io.EOF) || took > noticed {
					t.Errorf("the page ended after %v with %v, want an error within %v", took, err, noticed)
				}
				<-time.After(noticed - time.Since(began)) // every link to it is dead
				for _, c := range p.Circuits() {
					for _, r := range c.Route {
						if r.ID == dead && c.State != "building" {
							t.Errorf("circuit %s, which is %s, goes through the dead relay", c.ID, c.State)
						}
					}
				}
				next, err := p.Dial(ctx, proxy.Request{Target: "198.41.0.4:80"})
				if err != nil {
					t.Errorf("the next request: %v", err)
					return
				}
				if _, err := io.ReadFull(next, make([]byte, 4)); err != nil {
					t.Errorf("the next request: %v", err)
				}
				next.Close()
			})
		})
	}
}

// deadOf returns the relay at one place of the path of the circuit that is in use.
func deadOf(p *proxy.Proxy, hop int) wire.ID {
	for _, c := range p.Circuits() {
		if len(c.Streams) > 0 {
			return c.Route[hop].ID
		}
	}
	panic("no circuit is in use")
}

// cut cuts a relay off, or ends that.
func (w *world) cut(n *localnet.Network, id wire.ID, off bool) {
	for i, r := range n.Relays() {
		if r.ID == id {
			w.lines[len(n.Authorities())+i].cut.Store(off)
		}
	}
}
