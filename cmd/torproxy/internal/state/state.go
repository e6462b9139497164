// Package state is what a role keeps on disk, in a directory of its own that nobody else can read and no
// second process uses at the same time:
//
//	DIR/lock            held while a process uses DIR                                   lock.go
//	DIR/identity.pem    the Ed25519 key: made once, never overwritten, or sealed        identity.go, seal.go
//	DIR/onion.json      a relay's onion keys                                            onion.go
//	DIR/replay          the packets that they have peeled, in the hours still accepted  replay.go
//	DIR/session         who wrote DIR/replay last, and whether it was completed         session.go
//
// Every file but replay is replaced whole, by one rename of a file that is on stable storage already.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Errors that a person can do something about.
var (
	ErrLocked  = errors.New("another process uses it")
	ErrExposed = errors.New("other users can read it")
)

// Dir is a state directory that this process has locked. Close unlocks it.
type Dir struct {
	path string
	lock *os.File
}

// Open makes the directory if there is none, and locks it. The error wraps ErrExposed if other users have
// any access to it, and ErrLocked if another process has it.
func Open(path string) (*Dir, error) {
	err := os.Mkdir(path, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err == nil {
		if err := syncDir(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	return OpenExisting(path)
}

// OpenExisting is Open for a directory that must be there.
func OpenExisting(path string) (*Dir, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is no directory", path)
	case exposed(info):
		return nil, fmt.Errorf("%s: %w (mode %04o)", path, ErrExposed, info.Mode().Perm())
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(lock); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := sweep(path); err != nil {
		lock.Close()
		return nil, err
	}
	return &Dir{path: path, lock: lock}, nil
}

// sweep removes what a process that was killed was writing: it may be a secret key, and nothing else would
// ever remove it. The lock is held, so that nobody writes here now.
func sweep(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); isTemp(name) || name == replayName+newSuffix {
			if err := os.Remove(filepath.Join(path, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// WaitLock takes the lock of a name, made if it is not there, and waits for it. Close gives it back.
func WaitLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return nil, err
	}
	if err := waitLockFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Path returns the path of a file in the directory.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// Close lets other processes use the directory. The lock's file stays: taking it away would let two
// processes hold two locks of one name.
func (d *Dir) Close() error { return d.lock.Close() }

// exposed reports whether users other than the owner have any access. Windows has no modes: there a
// directory in the user's profile is the user's alone.
func exposed(info fs.FileInfo) bool {
	return runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0
}
