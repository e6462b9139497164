package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"torproxy/relay"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

const (
	onionName   = "onion.json"
	maxOnion    = 16 << 10 // bytes of the file
	maxLifetime = 366 * 24 * time.Hour
)

// Onion keeps a relay's onion keys and what they have peeled: it is a relay.Store. Close completes the
// session.
type Onion struct {
	dir *Dir

	mu     sync.Mutex
	keys   []relay.OnionKey
	replay *replayFile
}

var _ relay.Store = (*Onion)(nil)

// OpenOnion begins a session. Keys of which not every peeled packet is known any more are erased; erased
// then says why, for the log.
func (d *Dir) OpenOnion(now time.Time) (o *Onion, erased error, err error) {
	o = &Onion{dir: d}
	boot := bootID()
	keys, erased := d.readOnion(boot)
	if erased == nil && len(keys) > 0 {
		o.replay, erased = openReplay(d.Path(replayName), hourOf(now))
	}
	if erased != nil || len(keys) == 0 {
		keys = nil
		if err := d.eraseOnion(); err != nil {
			return nil, erased, err
		}
		if o.replay, err = createReplay(d.Path(replayName), hourOf(now)-1); err != nil {
			return nil, erased, err
		}
	}
	o.keys = keys
	if err := d.markSession(markRunning(boot)); err != nil {
		o.replay.close()
		return nil, erased, err
	}
	return o, erased, nil
}

// readOnion returns the keys that may be used, if their replay file is whole; none and no error on the
// first start.
func (d *Dir) readOnion(boot string) ([]relay.OnionKey, error) {
	data, err := readSecret(d.Path(onionName), maxOnion)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	mark, err := d.session()
	if err != nil {
		return nil, err
	}
	if lost(mark, boot) {
		return nil, errors.New("the machine has stopped uncleanly")
	}
	return decodeOnion(data)
}

func (d *Dir) eraseOnion() error {
	for _, name := range []string{onionName, replayName} {
		if err := os.Remove(d.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(d.path)
}

// Keys implements relay.Store.
func (o *Onion) Keys() []relay.OnionKey {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]relay.OnionKey(nil), o.keys...)
}

// Save implements relay.Store.
func (o *Onion) Save(keys []relay.OnionKey) error {
	data, err := encodeOnion(keys)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := Replace(o.dir.Path(onionName), data, 0o600); err != nil {
		return err
	}
	o.keys = append([]relay.OnionKey(nil), keys...)
	return nil
}

// Peeled implements relay.Store.
func (o *Onion) Peeled(f func(onion.ReplayEntry)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.replay.each(func(r record) {
		if e, ok := o.entryLocked(r); ok {
			f(e)
		}
	})
}

// entryLocked is the entry of a record, if its key is still kept.
func (o *Onion) entryLocked(r record) (onion.ReplayEntry, bool) {
	for i := range o.keys {
		digest := o.keys[i].Private.Digest()
		if [keyPrefix]byte(digest[:]) == r.key {
			return onion.ReplayEntry{Key: digest, Hour: r.hour, Digest: r.digest}, true
		}
	}
	return onion.ReplayEntry{}, false
}

// Append implements relay.Store.
func (o *Onion) Append(e onion.ReplayEntry) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.replay.append(record{key: [keyPrefix]byte(e.Key[:]), hour: e.Hour, digest: e.Digest})
}

// Expire implements relay.Store.
func (o *Onion) Expire(oldest uint32) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.replay.expire(oldest, func(r record) bool {
		_, ok := o.entryLocked(r)
		return ok
	})
}

// Close completes the session: the next one goes on with the keys, whatever happens to the machine in
// between.
func (o *Onion) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.replay.close(); err != nil {
		return err
	}
	return o.dir.markSession(markClean)
}

// The form of onion.json.
type (
	onionFile struct {
		Keys []onionKeyFile `json:"keys"` // the current one first
	}
	onionKeyFile struct {
		Seed  []byte `json:"seed"`
		From  int64  `json:"from"` // Unix milliseconds, as the next two
		Until int64  `json:"until"`
		Last  int64  `json:"last,omitempty"`
	}
)

func encodeOnion(keys []relay.OnionKey) ([]byte, error) {
	var f onionFile
	for _, k := range keys {
		f.Keys = append(f.Keys, onionKeyFile{Seed: k.Private.Bytes(), From: k.From, Until: k.Until, Last: k.Last})
	}
	return json.MarshalIndent(&f, "", "  ")
}

// decodeOnion reads what encodeOnion wrote. No error holds any of it.
func decodeOnion(data []byte) ([]relay.OnionKey, error) {
	var f onionFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil || dec.More() {
		return nil, fmt.Errorf("%s is damaged", onionName)
	}
	if len(f.Keys) < 1 || len(f.Keys) > netdoc.MaxOnionKeys {
		return nil, fmt.Errorf("%s has %d keys", onionName, len(f.Keys))
	}
	var keys []relay.OnionKey
	for _, k := range f.Keys {
		private, err := onion.ParsePrivateKey(k.Seed)
		if err != nil || k.From < 0 || k.Until <= k.From || k.Until-k.From > maxLifetime.Milliseconds() {
			return nil, fmt.Errorf("%s has a damaged key", onionName)
		}
		keys = append(keys, relay.OnionKey{Private: private, From: k.From, Until: k.Until, Last: k.Last})
	}
	return keys, nil
}

func hourOf(t time.Time) uint32 { return uint32(t.Unix() / 3600) }
