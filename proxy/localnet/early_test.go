package localnet_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
	"torproxy/relay"
)

// answerer is a destination that speaks when it is spoken to.
func answerer(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		if _, err := there.Read(make([]byte, 100)); err == nil {
			io.WriteString(there, "good day")
		}
	}()
	return here, nil
}

// TestFirstByte measures from the request to its answer's first byte on circuits that stand, over links of
// 50 ms: one round trip of the path for an early connection, two for one that waits to be connected.
func TestFirstByte(t *testing.T) {
	const delay = 50 * time.Millisecond
	cfg := localnet.Config{Relay: func(_ int, c *relay.Config) { c.Dial = answerer }}
	inWorld(t, delay, cfg, func(ctx context.Context, w *world, n *localnet.Network) {
		p, err := proxy.New(proxy.Config{Network: n.File(), Conn: w.conns[0]})
		if err != nil {
			t.Error(err)
			return
		}
		running, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() { p.Run(running) })
		<-p.Ready()
		<-time.After(10 * time.Second) // the spares stand
		roundTrip := 2 * delay * time.Duration(p.Hops())
		for _, early := range []bool{true, false} {
			want := roundTrip
			if !early {
				want *= 2
			}
			began := time.Now()
			conn, err := p.Dial(ctx, proxy.Request{Target: "198.41.0.4:80", Early: early})
			if err != nil {
				t.Error(err)
				break
			}
			io.WriteString(conn, "good day to you")
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil || time.Since(began) != want {
				t.Errorf("early %v: the first byte after %v, %v; want %v", early, time.Since(began), err, want)
			}
			conn.Close()
		}
		stop()
		all.Wait()
	})
}
