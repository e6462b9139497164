package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"torproxy/cmd/torproxy/internal/state"
	"torproxy/proxy"
	"torproxy/wire/netdoc"
)

// The public files of a client's data directory: the last consensus, and the onion keys that it names.
// Another holds its guards (guardfile.go). What the client did with them is nowhere.
const (
	consensusName = "consensus"
	onionKeysName = "onionkeys"

	maxOnionKeys = netdoc.MaxRelays * netdoc.OnionKeySize

	// The files are written so long after the start, so often while there is something new, and at the end.
	cacheFirst    = 5 * time.Second
	cacheInterval = time.Minute
)

// cache keeps the consensus and the guards over a restart of the client.
type cache struct {
	dir    *state.Dir
	log    *slog.Logger
	saved  *netdoc.Consensus // what the files hold; with more keys it would be another
	guards *guardFile        // nil: guards are not kept
}

// openCache opens --data-dir, which nobody else may use meanwhile.
func openCache(path string, log *slog.Logger) (*cache, error) {
	dir, err := openState(state.Open, "data-dir", path)
	if err != nil {
		return nil, err
	}
	return &cache{dir: dir, log: log}, nil
}

// load offers the proxy what an earlier run has kept. What is of no use is left alone: the authorities have
// newer. The error is a failure: of guards that may be of use, but cannot be read.
func (c *cache) load(p *proxy.Proxy) error {
	consensus, err := state.ReadBounded(c.dir.Path(consensusName), netdoc.MaxConsensus)
	if err == nil {
		// Keys that are missing or damaged are fetched.
		keys, _ := state.ReadBounded(c.dir.Path(onionKeysName), maxOnionKeys)
		err = p.Offer(consensus, keys)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Info("the consensus in the data directory is of no use", "cause", err)
	}
	return c.guards.load(p)
}

// run keeps the newest consensus and the guards until ctx ends.
func (c *cache) run(ctx context.Context, p *proxy.Proxy) error {
	save := func() {
		c.save(p)
		c.guards.save(p)
	}
	defer save()
	due := time.NewTimer(cacheFirst)
	defer due.Stop()
	ready := p.Ready()
	for {
		select {
		case <-ready: // a guard is confirmed: whatever ends this client, it comes back to that one
			ready = nil
			c.guards.save(p)
		case <-ctx.Done():
			return nil
		case <-due.C:
			save()
			due.Reset(cacheInterval)
		}
	}
}

// save writes the public files, the keys first: a consensus without some of its keys is of use, too.
func (c *cache) save(p *proxy.Proxy) {
	current := p.Consensus()
	if current == nil || current == c.saved {
		return
	}
	consensus, keys := p.Snapshot()
	err := state.Replace(c.dir.Path(onionKeysName), keys, 0o600)
	if err == nil {
		err = state.Replace(c.dir.Path(consensusName), consensus, 0o600)
	}
	if err != nil {
		c.log.Warn("the data directory cannot be written", "err", err)
		return
	}
	c.saved = current
}
