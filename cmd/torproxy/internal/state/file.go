package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Replace writes a file, or replaces it: whoever reads it, even after the machine has lost its power, finds
// either what was there or all of data.
func Replace(name string, data []byte, mode fs.FileMode) error {
	temp, err := writeTemp(name, data, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, name); err != nil {
		os.Remove(temp)
		return err
	}
	return syncDir(filepath.Dir(name))
}

// Create is Replace for a file that must not be there yet; the error is fs.ErrExist if it is.
func Create(name string, data []byte, mode fs.FileMode) error {
	temp, err := writeTemp(name, data, mode)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	if err := os.Link(temp, name); err != nil { // unlike a rename, a link replaces nothing
		return err
	}
	return syncDir(filepath.Dir(name))
}

// tempPrefix begins the name of every file that is being written, and of no other.
const tempPrefix = ".writing-"

func isTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// writeTemp writes data to stable storage under a name of its own beside name, and returns that.
func writeTemp(name string, data []byte, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(name), tempPrefix+filepath.Base(name)+".*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// syncDir makes the names in a directory durable. Windows cannot open one for that, and needs not.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadBounded reads a file of at most limit bytes.
func ReadBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return data, err
}

// readSecret is ReadBounded for a file that only its owner may have access to.
func readSecret(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if exposed(info) {
		return nil, fmt.Errorf("%s: %w (mode %04o)", name, ErrExposed, info.Mode().Perm())
	}
	return ReadBounded(name, limit)
}
