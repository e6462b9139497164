package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"torproxy/proxy/circuit"
	"torproxy/proxy/guard"
	"torproxy/proxy/route"
	"torproxy/wire"
	"torproxy/wire/mux"
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// Error is why a request failed, or a connection broke, and which hop of the circuit said so. Its text has
// neither the target nor a relay's name in it, for it may be shown to a page; those stand in Why.
// It wraps what it was made of: *wire.EndError when an exit said no, ErrNotReady or one of package route's
// errors when there was no circuit to ask, circuit.ErrClosed when the circuit broke.
type Error struct {
	Hop    int    // who said so, counted from 1; 0 is this machine, Hops the exit
	Hops   int    // length of the circuit
	Reason string // in a few words out of a fixed list
	Err    error
}

func (e *Error) Error() string { return "proxy: " + e.where() + ": " + e.detail() }

// ProxyStatus says the same in the least words, for a Proxy-Status header (RFC 9209 section 2.1.4): numbers
// and fixed words only, since the script of any page can read it.
func (e *Error) ProxyStatus() string {
	return fmt.Sprintf("hop %d of %d: %s", e.Hop, e.Hops, e.Reason)
}

func (e *Error) where() string {
	switch e.Hop {
	case 0:
		return "this machine"
	case e.Hops:
		return fmt.Sprintf("hop %d of %d, the exit", e.Hop, e.Hops)
	default:
		return fmt.Sprintf("hop %d of %d", e.Hop, e.Hops)
	}
}

// detail adds to the reason what a person can use: what the network lacks. A page may see it, so it has no
// relay's or authority's name in it, nor which relays the user asked for.
func (e *Error) detail() string {
	none, noExit := errors.AsType[*route.NoExit](e.Err)
	switch {
	case e.Reason == reasonNoRoute && noExit:
		return e.Reason + ": " + none.Unnamed()
	case e.Reason == reasonNotReady:
		return e.Reason + ": " + notReady(e.Err)
	default:
		return e.whole()
	}
}

// notReady says what the network lacks.
func notReady(err error) string {
	_, clock := errors.AsType[*netdoc.ClockError](err)
	none, noExit := errors.AsType[*route.NoExit](err)
	switch {
	case errors.Is(err, errStopped):
		return "the proxy has stopped"
	case noExit:
		return none.Unnamed()
	case noRelays(err) != nil:
		return noRelays(err).Error()
	case clock:
		return "there is no consensus that is valid by this machine's clock"
	default:
		return "there is no consensus yet, or not all of it"
	}
}

// told is Error for the user alone.
func (e *Error) told() string { return "proxy: " + e.where() + ": " + e.whole() }

// whole is detail for the user alone.
func (e *Error) whole() string {
	switch e.Reason {
	case reasonNotReady:
		return strings.TrimPrefix(e.Err.Error(), "proxy: ")
	case reasonNoRoute:
		return e.Reason + ": " + noRelays(e.Err).Error()
	case reasonNoGuard:
		return noRelays(e.Err).Error()
	default:
		return e.Reason
	}
}

// Unwrap returns what the error was made of.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether it was a time-out, as net.Error wants it.
func (e *Error) Timeout() bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](e.Err)
	return ok && t.Timeout()
}

// Temporary exists for net.Error; it is always false.
func (e *Error) Temporary() bool { return false }

// Reasons that this machine gives itself; an exit's are those of package wire.
const (
	reasonNotReady = "not ready"
	reasonNoRoute  = "no route"
	reasonNoGuard  = "no guard answers"
	reasonGuard    = "stands, and waits for a better guard to answer or fail"
	reasonOwn      = "the target is a listener of this program"
	reasonNoLink   = "no link to hop 1"
	reasonReset    = "circuit reset"
	reasonBroken   = "the circuit broke"
	reasonFull     = "the circuit is full"
	reasonTimeout  = "no answer in time"
	reasonGivenUp  = "given up"
	reasonViolated = "protocol violation"
	reasonOther    = "failed"
)

// errOwn is why a listener of this process is not dialled.
var errOwn = errors.New("proxy: the target is a listener of this program")

// errorOf says which hop of a circuit of some hops an error comes from. It returns nil for nil, and an Error
// as it is.
func errorOf(err error, hops int) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	hop, reason := origin(err, hops)
	return &Error{Hop: hop, Hops: hops, Reason: reason, Err: err}
}

// origin is the one place where a cause becomes a hop and a reason.
func origin(err error, hops int) (hop int, reason string) {
	if end, ok := errors.AsType[*wire.EndError](err); ok && end.Remote {
		return hops, end.Reason.String()
	}
	if failed, ok := errors.AsType[*circuit.BuildError](err); ok {
		return buildOrigin(failed)
	}
	return 0, ownReason(err)
}

// buildOrigin is origin for a circuit that was not built. What a hop says of the next one is its own word.
func buildOrigin(failed *circuit.BuildError) (hop int, reason string) {
	if said, ok := errors.AsType[*onion.HopError](failed); ok {
		return failed.Hop, said.Status.String()
	}
	switch {
	case errors.Is(failed, context.Canceled):
		return 0, reasonGivenUp
	case failed.Hop == 0:
		return 0, reasonNoLink
	case errors.Is(failed, context.DeadlineExceeded):
		return 0, reasonTimeout // any hop may be the silent one
	case errors.Is(failed, wire.ErrViolation):
		return failed.Hop, reasonViolated
	default:
		return failed.Hop, reasonReset
	}
}

// noRelays returns what says that the consensus has no route for a request, or none through a guard that
// answers; nil if nothing in err does.
func noRelays(err error) error {
	if e, ok := errors.AsType[*route.NoExit](err); ok {
		return e
	}
	if e, ok := errors.AsType[*route.TooFewRelays](err); ok {
		return e
	}
	if e, ok := errors.AsType[*route.TooFewDistinct](err); ok {
		return e
	}
	if e, ok := errors.AsType[*guard.WaitError](err); ok {
		return e
	}
	return nil
}

func ownReason(err error) string {
	end, ended := errors.AsType[*wire.EndError](err)
	_, waits := errors.AsType[*guard.WaitError](err)
	switch {
	case errors.Is(err, errOwn):
		return reasonOwn
	case errors.Is(err, ErrNotReady):
		return reasonNotReady
	case waits:
		return reasonNoGuard
	case errors.Is(err, errGuardWaits):
		return reasonGuard
	case noRelays(err) != nil:
		return reasonNoRoute
	case errors.Is(err, circuit.ErrClosed):
		return reasonBroken
	case errors.Is(err, mux.ErrBusy), errors.Is(err, mux.ErrExhausted):
		return reasonFull
	case errors.Is(err, context.Canceled):
		return reasonGivenUp
	case ended && end.Reason == wire.ReasonTimeout, errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return reasonTimeout
	case ended:
		return end.Reason.String()
	default:
		return reasonOther
	}
}
