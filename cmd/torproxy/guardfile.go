package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"torproxy/cmd/torproxy/internal/state"
	"torproxy/proxy"
)

// The file of a client's guards, and the name under which one stays that could not be used.
const (
	guardsName    = "guards.json"
	guardsOldName = "guards.old.json"
)

// guardFile keeps the guards over a restart: a client that enters the network by other relays at every start
// enters it, in the end, by all of them. Who reads the file knows by which relays its owner enters the network:
// its owner alone may. A nil guardFile keeps none.
type guardFile struct {
	path, old string
	log       *slog.Logger
	saved     []byte
}

func newGuardFile(dir *state.Dir, log *slog.Logger) *guardFile {
	return &guardFile{path: dir.Path(guardsName), old: dir.Path(guardsOldName), log: log}
}

// load gives the proxy the guards of an earlier run. A file that is of no use is put aside; one that cannot be
// read may be the next time, and until then the client must not choose others. The error is a failure.
func (f *guardFile) load(p *proxy.Proxy) error {
	if f == nil {
		return nil
	}
	data, err := readBounded(f.path, proxy.MaxGuardState) // of a longer one a byte too many, which is refused
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return &failure{
			code: codeState, err: err, what: fmt.Sprintf("cannot read the guards in the data directory (--data-dir): %v", err),
			cause:  "another user owns the file, or the disk has failed",
			advice: "make it readable; without it this client would enter the network by other relays, so move it away only if it is lost",
		}
	}
	if err = p.OfferGuards(data); err == nil {
		f.saved = data
		return nil
	}
	if aside := os.Rename(f.path, f.old); aside != nil {
		err = errors.Join(err, aside)
	}
	f.log.Warn("the guards in the data directory are of no use; others are chosen, and the file is put aside",
		"cause", err, "file", f.old)
	return nil
}

// save writes the guards if they are others than the file has.
func (f *guardFile) save(p *proxy.Proxy) {
	if f == nil {
		return
	}
	data := p.GuardState()
	if data == nil || bytes.Equal(data, f.saved) {
		return
	}
	if err := state.Replace(f.path, data, 0o600); err != nil {
		f.log.Warn("the guards cannot be kept: after a restart this client would enter the network by others", "err", err)
		return
	}
	f.saved = data
}
