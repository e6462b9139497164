package browser

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"torproxy/cmd/torproxy/internal/state"
)

// prefix begins the names of profiles' directories, in the system's directory for temporary files.
const prefix = "torproxy-browser-"

// A browser's last helpers may still be writing when it has ended.
const (
	removeTries = 20
	removePause = 50 * time.Millisecond
)

// young is how old a directory is at most that may not have its lock yet: another torproxy is making it.
const young = time.Minute

// making is held while a profile is made: what is being swept and what is not locked yet stay apart.
var making sync.Mutex

// maxTemp is how long the name of a directory for temporary files may be, in bytes: a socket's path has at
// most 103, of which Chromium needs 46 (/.org.chromium.Chromium.pQ7xYz/SingletonSocket).
const maxTemp = 103 - 46

// profile is a directory that holds everything that one browser keeps:
//
//	DIR/lock      held as long as the browser runs: another torproxy leaves DIR alone
//	DIR/profile   the browser's own
//	DIR/home      what it is told is the user's home: no settings and certificates of the user's are in it
//	DIR/tmp       and the directory for its temporary files, if the name is short enough
type profile struct {
	dir  string
	lock *state.Dir
}

// newProfile makes a profile that only this user can read. Those that a torproxy which was killed has left
// behind go: they tell what was visited.
func newProfile() (*profile, error) {
	making.Lock()
	defer making.Unlock()
	sweep(os.TempDir())
	dir, err := os.MkdirTemp("", prefix) // 0700
	if err != nil {
		return nil, err
	}
	p := &profile{dir: dir}
	if p.lock, err = state.OpenExisting(dir); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	for _, sub := range []string{p.browser(), p.home(), filepath.Join(dir, "tmp")} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			return nil, errors.Join(err, p.remove())
		}
	}
	return p, nil
}

func (p *profile) browser() string { return filepath.Join(p.dir, "profile") }
func (p *profile) home() string    { return filepath.Join(p.dir, "home") }

// temp is where the browser's temporary files go. Chromium makes a socket there, whose path must fit into a
// socket's address; where the system's own directory has a long name already, it has to do.
func (p *profile) temp() string {
	if temp := filepath.Join(p.dir, "tmp"); len(temp) <= maxTemp {
		return temp
	}
	return os.TempDir()
}

// write writes a file of the browser's, and the directories above it.
func (p *profile) write(name string, data []byte) error {
	path := filepath.Join(p.browser(), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// remove removes the directory.
func (p *profile) remove() error {
	var err error
	for range removeTries {
		if err = os.RemoveAll(p.dir); err == nil {
			break
		}
		<-time.After(removePause)
	}
	return errors.Join(err, p.lock.Close())
}

// sweep removes the profiles in top that nobody uses, nor is about to. Whatever is not plainly ours is left
// alone.
func sweep(top string) {
	entries, err := os.ReadDir(top)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(top, e.Name())
		info, err := os.Lstat(path)
		if err != nil || !strings.HasPrefix(e.Name(), prefix) || !info.IsDir() || !owned(info) || time.Since(info.ModTime()) < young {
			continue
		}
		if lock, err := state.OpenExisting(path); err == nil {
			os.RemoveAll(path)
			lock.Close()
		}
	}
}

// inherited are the variables that a browser may have from torproxy's environment; a name that ends in *
// stands for all that begin so. Others may carry a proxy (http_proxy), a profile (MOZ_*), switches
// (CHROMIUM_FLAGS), or a place to write the keys of every TLS connection to (SSLKEYLOGFILE).
var inherited = []string{
	"PATH", "LANG", "LANGUAGE", "LC_*", "TZ", "USER", "LOGNAME", "SHELL",
	"DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "XDG_SESSION_TYPE", "XDG_CURRENT_DESKTOP", "DBUS_SESSION_BUS_ADDRESS", "PULSE_SERVER",
	"SystemRoot", "SystemDrive", "windir", "ComSpec", "PATHEXT", "ProgramFiles*", "ProgramData", "NUMBER_OF_PROCESSORS", "PROCESSOR_*",
}

// environment is what the browser's process is given.
func (p *profile) environment(environ []string) []string {
	var env []string
	home := ""
	authority := false
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if name == "HOME" {
			home = value
		}
		authority = authority || name == "XAUTHORITY"
		if isInherited(name) {
			env = append(env, entry)
		}
	}
	if !authority && home != "" { // where an X client looks if it is not told: below HOME
		env = append(env, "XAUTHORITY="+filepath.Join(home, ".Xauthority"))
	}
	return append(env,
		"HOME="+p.home(), "USERPROFILE="+p.home(),
		"APPDATA="+p.home(), "LOCALAPPDATA="+p.home(),
		"TMPDIR="+p.temp(), "TEMP="+p.temp(), "TMP="+p.temp(),
	)
}

func isInherited(name string) bool {
	for _, pattern := range inherited {
		if head, all := strings.CutSuffix(pattern, "*"); name == pattern || all && strings.HasPrefix(name, head) {
			return true
		}
	}
	return false
}
