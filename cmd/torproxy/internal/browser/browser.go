// Package browser opens a link in an installed browser that can reach nothing but this machine's proxy.
// LINKS.md beside the command says why a link is never simply handed to the user's own browser.
//
//	link.go       what may be opened: http and https, in one unambiguous spelling
//	program.go    which browser: --browser, $BROWSER, or one that is installed
//	profile.go    a fresh profile in a directory of its own, removed afterwards
//	chromium.go   Chromium, Chrome and Edge: the switches that leave them the proxy and nothing else
//	firefox.go    Firefox: the same by firefox.js, its preferences
//	window.go     one browser from its start until its profile is gone
//	browser.go    all the browsers that a client has opened
//
// Nothing here goes through a shell, and no argument that comes from outside begins with '-'.
package browser

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxWindows is how many browsers a client has open at once, some 300 MB each; one more is refused.
	maxWindows = 8

	// settled is how long a browser that was started is watched before it counts as opened. One that cannot
	// run (no display, started by root) ends within a fraction of that.
	settled = 2 * time.Second
)

// Config says which browser is started and where its traffic goes. Proxy is required.
type Config struct {
	// Proxy is where the front door listens; its address must be one that a program can connect to.
	Proxy netip.AddrPort

	// Program is the browser's path, or its name in PATH: what --browser says. "": what $BROWSER says, or
	// else the first one of those in program.go that is installed.
	Program string

	// Log gets a line when a browser ends badly, without what it was opened for. nil: nothing is logged.
	Log *slog.Logger
}

// Opener opens links, each in a browser with a profile of its own: what one page is told, the other is not.
type Opener struct {
	cfg Config

	mu      sync.Mutex
	running int
	stopped context.Context // nil: Run has not begun
	closed  bool            // Run is over
	windows sync.WaitGroup
}

// NewOpener returns an Opener. Nothing is looked for before the first link.
func NewOpener(cfg Config) *Opener {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Opener{cfg: cfg}
}

// Errors of Open, besides those of ParseLink, Find and Start.
var (
	ErrTooMany = fmt.Errorf("%d browsers are open: close one first", maxWindows)
	ErrStopped = errors.New("torproxy is not running")
)

// Run ends every browser that Open has started when ctx ends, and returns when all of them and their
// profiles are gone. It is called once.
func (o *Opener) Run(ctx context.Context) error {
	o.mu.Lock()
	o.stopped = ctx
	o.mu.Unlock()
	<-ctx.Done()
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.windows.Wait()
	return nil
}

// Open opens a link in a new browser and returns when that runs, which it goes on doing after ctx has
// ended, until it or Run's context ends. It may be called concurrently, while Run runs.
func (o *Opener) Open(ctx context.Context, url string) error {
	link, err := ParseLink(url)
	if err != nil {
		return err
	}
	stopped, err := o.take()
	if err != nil {
		return err
	}
	w, err := Start(stopped, o.cfg, link)
	if err != nil {
		o.give()
		return err
	}
	go func() {
		defer o.give()
		if err := w.Wait(); err != nil && stopped.Err() == nil {
			o.cfg.Log.Warn("a browser has ended badly", "err", err)
		}
	}()
	early := time.NewTimer(settled)
	defer early.Stop()
	select {
	case <-w.Ended():
		return w.Wait()
	case <-early.C:
	case <-ctx.Done(): // nobody waits for the answer; the browser runs
	}
	return nil
}

// take counts one browser more, and returns the context that it runs until the end of.
func (o *Opener) take() (context.Context, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.stopped == nil || o.closed:
		return nil, ErrStopped
	case o.running == maxWindows:
		return nil, ErrTooMany
	}
	o.running++
	o.windows.Add(1)
	return o.stopped, nil
}

func (o *Opener) give() {
	o.mu.Lock()
	o.running--
	o.mu.Unlock()
	o.windows.Done()
}
