package link

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestFull has a peer that allows no circuit: only a link that carries as many as there may be is full.
func TestFull(t *testing.T) {
	inBubble(t, 2, func(nw *network) {
		accepted := make(chan *Link, 1)
		nw.relay(0, func(c *Config) {
			c.Circuit = func(ctx context.Context, s *Stream) {
				accepted <- s.Link()
				echo(ctx, s)
			}
		})
		nw.ping(nw.open(nw.link(nw.client(1), 0)))
		l := <-accepted // the client serves no circuits
		open := func() error {
			ctx, cancel := context.WithTimeout(nw.Context(), time.Minute)
			defer cancel()
			_, err := l.Open(ctx)
			return err
		}
		if err := open(); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrFull) {
			t.Errorf("a peer that allows nothing: %v", err)
		}
		l.mu.Lock()
		l.streams += maxCircuits
		l.mu.Unlock()
		if err := open(); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrFull) {
			t.Errorf("a link with %d circuits: %v", maxCircuits, err)
		}
		l.mu.Lock()
		l.streams -= maxCircuits
		l.mu.Unlock()
	})
}
