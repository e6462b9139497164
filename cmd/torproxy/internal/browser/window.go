package browser

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// The way of a link:
//
//  1. Find       the browser
//  2. newProfile a directory that nobody else reads
//  3. furnish    the settings that leave the browser the proxy and nothing else
//  4. start      with an environment of our choosing, without a shell
//  5. watch      until it has ended, by its user or by us; then the directory goes

// Window is a browser that runs.
type Window struct {
	// Program is what runs.
	Program Program

	cmd     *exec.Cmd
	profile *profile
	said    *tail
	ended   chan struct{} // closed when the profile is gone, too
	err     error         // valid then
}

// Start starts a browser on a link. It runs until its last window is closed or ctx ends; its profile is
// removed then. The caller need not wait.
func Start(ctx context.Context, cfg Config, link Link) (*Window, error) {
	if link.text == "" || !cfg.Proxy.IsValid() || cfg.Proxy.Addr().IsUnspecified() || cfg.Proxy.Addr().Zone() != "" {
		return nil, errors.New("browser: no link, or no proxy to open it through")
	}
	program, err := Find(cfg.Program)
	if err != nil {
		return nil, err
	}
	p, err := newProfile()
	if err != nil {
		return nil, fmt.Errorf("make a profile: %w", err)
	}
	w := &Window{Program: program, profile: p, said: &tail{}, ended: make(chan struct{})}
	if err := w.start(cfg, link); err != nil {
		return nil, errors.Join(err, p.remove())
	}
	go func() {
		defer close(w.ended)
		w.err = w.watch(ctx)
	}()
	return w, nil
}

// start furnishes the profile and starts the process.
func (w *Window) start(cfg Config, link Link) error {
	dir, env := w.profile.browser(), w.profile.environment(os.Environ())
	var files map[string][]byte
	var args []string
	var err error
	switch w.Program.family {
	case firefox:
		files, args = firefoxFiles(cfg.Proxy), firefoxArguments(dir, link)
		env = append(env, firefoxEnvironment)
	default:
		files, err = chromiumFiles()
		args = chromiumArguments(dir, cfg.Proxy, link)
	}
	for name, data := range files {
		err = errors.Join(err, w.profile.write(name, data))
	}
	if err != nil {
		return fmt.Errorf("furnish the profile: %w", err)
	}
	w.cmd = exec.Command(w.Program.Path, args...)
	w.cmd.Env, w.cmd.Dir = env, w.profile.home()
	w.cmd.Stdout, w.cmd.Stderr = w.said, w.said
	w.cmd.WaitDelay = removePause * removeTries // a helper that survives may hold the pipe open
	group(w.cmd)
	if err := w.cmd.Start(); err != nil {
		return fmt.Errorf("start the browser: %w", err)
	}
	return nil
}

// watch waits for the browser's end and removes what it has left.
func (w *Window) watch(ctx context.Context) error {
	spare := context.AfterFunc(ctx, func() { endGroup(w.cmd) })
	err := w.cmd.Wait()
	if spare() {
		endGroup(w.cmd) // helpers that have outlived it
	}
	switch {
	case ctx.Err() != nil, errors.Is(err, exec.ErrWaitDelay):
		err = nil
	case err != nil:
		err = &EndError{Program: w.Program.Path, Err: err, Said: w.said.lastLine()}
	}
	if gone := w.profile.remove(); gone != nil {
		err = errors.Join(err, fmt.Errorf("the browser's profile could not be removed: %w", gone))
	}
	return err
}

// Ended returns a channel that is closed when the browser has ended and its profile is gone.
func (w *Window) Ended() <-chan struct{} { return w.ended }

// Wait waits for that. The error is an *EndError if the browser has failed, and says so if the profile is
// still there; a browser that was ended by Start's context has not failed.
func (w *Window) Wait() error {
	<-w.ended
	return w.err
}

// EndError says that a browser has ended badly.
type EndError struct {
	Program string
	Err     error  // of package exec
	Said    string // the last line that it wrote; may be empty
}

func (e *EndError) Error() string {
	if e.Said == "" {
		return fmt.Sprintf("%s: %v", e.Program, e.Err)
	}
	return fmt.Sprintf("%s: %v; it said: %s", e.Program, e.Err, e.Said)
}

func (e *EndError) Unwrap() error { return e.Err }

// maxTail is how much of a browser's output is kept.
const maxTail = 4 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p[max(0, len(p)-maxTail):]...)
	t.data = bytes.Clone(t.data[max(0, len(t.data)-maxTail):])
	return len(p), nil
}

// lastLine is the last line that is not empty, fit to be shown.
func (t *tail) lastLine() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(string(t.data))
	line := text[strings.LastIndexByte(text, '\n')+1:]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line[:min(len(line), 300)], ""))
}
