package socks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A failed accept is tried again after a pause that doubles from the first to the last of these: it is
// mostly a lack of file descriptors, which ends when connections do. After so many in a row it is final.
const (
	firstAcceptPause  = 5 * time.Millisecond
	lastAcceptPause   = time.Second
	maxAcceptFailures = 16
)

// warnEvery is how often a warning that clients can cause is logged at most.
const warnEvery = time.Minute

// Serve accepts connections from l, of TCP or a unix socket, until ctx ends. It then closes l and all
// connections, waits for every goroutine it started, and returns nil; if l fails for good it does the
// same and returns that error. Calls for different listeners may run at the same time; each has its
// own Config.MaxConns.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer onDone(ctx, func() { l.Close() })()
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()

	slots := make(chan struct{}, s.cfg.MaxConns)
	for {
		if !s.takeSlot(ctx, slots) {
			return nil
		}
		conn, err := accept(ctx, l, func(err error) {
			s.cfg.Log.Warn("accepting SOCKS connections fails; trying again", "err", err)
		})
		if ctx.Err() != nil {
			if conn != nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("socks: %w", err)
		}
		clients.Go(func() {
			defer func() { <-slots }()
			s.serveConn(ctx, conn)
		})
	}
}

// takeSlot waits until one more connection may be open. False: ctx is done.
func (s *Server) takeSlot(ctx context.Context, slots chan<- struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
	}
	if s.full.due() {
		s.cfg.Log.Warn("all SOCKS connections are in use; new ones wait", "limit", s.cfg.MaxConns)
	}
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// seldom keeps one kind of warning from filling the log. It is safe for concurrent use.
type seldom struct {
	last atomic.Int64 // Unix nanoseconds; 0: never
}

// due reports whether the warning may be given now, and takes it as given.
func (s *seldom) due() bool {
	now, last := time.Now().UnixNano(), s.last.Load()
	return (last == 0 || now-last >= int64(warnEvery)) && s.last.CompareAndSwap(last, now)
}

// accept returns the next connection. It tries again after an error, after a pause, unless l is closed,
// ctx is done or it never ends; failed hears of the first error in a row.
func accept(ctx context.Context, l net.Listener, failed func(error)) (net.Conn, error) {
	pause := firstAcceptPause
	for n := 1; ; n++ {
		conn, err := l.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) || ctx.Err() != nil || n == maxAcceptFailures {
			return conn, err
		}
		if n == 1 {
			failed(err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		pause = min(2*pause, lastAcceptPause)
	}
}

// onDone calls f once ctx is done. The returned function ends that; if f has been started, it waits for
// f's end. It must be called exactly once.
func onDone(ctx context.Context, f func()) (release func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}
