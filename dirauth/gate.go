package dirauth

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"torproxy/wire"
)

// gate is what the operator says of relays: who may register at all, who may not, and who is a bad exit.
// Safe for concurrent use. The zero gate is open.
type gate struct {
	allowPath, rejectPath string // "": no such file

	mu       sync.Mutex
	listed   bool // only the allowed may register
	allowed  map[wire.ID]bool
	rejected map[wire.ID]Rejection
	badExits map[wire.ID]bool
	told     string // the problem that the log has
}

// openGate reads the files for the first time.
func openGate(allowPath, rejectPath string) (*gate, error) {
	g := &gate{allowPath: allowPath, rejectPath: rejectPath, listed: allowPath != ""}
	return g, g.reload()
}

// reload reads the files again. The error names what is wrong with them; of a file that cannot be read as a
// whole the last good content stays in force.
func (g *gate) reload() error {
	var allowed map[wire.ID]bool
	var rejected map[wire.ID]Rejection
	var badExits map[wire.ID]bool
	var noAllowed, noRejected error
	if g.allowPath != "" {
		allowed, noAllowed = readAllowed(g.allowPath)
	}
	if g.rejectPath != "" {
		rejected, badExits, noRejected = readRejections(g.rejectPath)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if noAllowed == nil {
		g.allowed = allowed
	}
	if noRejected == nil {
		g.rejected, g.badExits = rejected, badExits
	}
	if err := errors.Join(noAllowed, noRejected); err != nil {
		return fmt.Errorf("dirauth: %w", err)
	}
	return nil
}

// report logs what reload returned, once until it is something else.
func (g *gate) report(err error, log *slog.Logger) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := ""
	if err != nil {
		now = err.Error()
	}
	switch {
	case now == g.told:
	case err != nil:
		log.Error("the operator's lists cannot be read; the last good ones stay in force", "err", err)
	default:
		log.Info("the operator's lists can be read again")
	}
	g.told = now
}

// judge returns why a relay may not register, nil if it may.
func (g *gate) judge(id wire.ID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, rejected := g.rejected[id]
	switch {
	case rejected && r.Reason != "":
		return fmt.Errorf("rejected by this authority's operator: %s", r.Reason)
	case rejected:
		return errors.New("rejected by this authority's operator")
	case g.listed && !g.allowed[id]:
		return errors.New("not on the list of relays that this authority admits")
	}
	return nil
}

// badExit reports whether the relay must not be the last hop.
func (g *gate) badExit(id wire.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.badExits[id]
}
