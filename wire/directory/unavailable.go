package directory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"torproxy/wire/netdoc"
)

// UnavailableError says why a Follower has no consensus to use, or none that is newer.
type UnavailableError struct {
	Authorities int   // of the network
	Quorum      int   // how many of them a consensus needs
	Asked       int   // in the last attempt
	Answered    int   // in the last attempt: with whatever answer
	Expired     error // of the consensus held, a *netdoc.ClockError; nil if there is none
	Cause       error // the most telling thing that went wrong in the last attempt; nil if none was made

	// Until is when the consensus held ends, which is used until then; zero if there is none to use.
	Until time.Time
}

func (e *UnavailableError) Error() string {
	s := e.sentence()
	if e.Expired != nil {
		s += "; of the consensus held: " + e.Expired.Error()
	}
	if !e.Until.IsZero() {
		s += "; the consensus held is good until " + e.Until.UTC().Format(time.RFC3339)
	}
	return s
}

func (e *UnavailableError) sentence() string {
	clock, clockIsOff := errors.AsType[*netdoc.ClockError](e.Cause)
	cut, isCutShort := errors.AsType[*cutShortError](e.Cause)
	switch {
	case e.Cause == nil:
		return "no consensus yet: the directory authorities are being asked"
	case clockIsOff:
		return clock.Error()
	case e.Answered == 0:
		return fmt.Sprintf("none of the %d directory authorities can be reached: %v", e.Authorities, e.Cause)
	case e.Answered < e.Quorum:
		return fmt.Sprintf("only %d of %d directory authorities can be reached, a consensus needs %d: %v",
			e.Answered, e.Authorities, e.Quorum, e.Cause)
	case isCutShort:
		return fmt.Sprintf("no consensus has arrived whole from the directory authorities: %v", cut)
	default:
		return fmt.Sprintf("the directory authorities have no usable consensus: %v", e.Cause)
	}
}

// Unwrap returns Cause and Expired.
func (e *UnavailableError) Unwrap() []error { return []error{e.Cause, e.Expired} }

// KeysError says that there is a consensus, but that the onion keys of too many of its relays are missing for
// choosing routes by it.
type KeysError struct {
	Relays, Missing int
}

func (e *KeysError) Error() string {
	return fmt.Sprintf("fetching the onion keys of %d of the %d relays", e.Missing, e.Relays)
}

// tally counts what authorities answered in one poll.
type tally struct {
	asked, answered int
	err             error // the most telling one
	rank            telling
}

// telling orders errors by how much they explain to a person.
type telling int

const (
	unreachable telling = iota + 1
	cutShort
	nothingNewer
	statusAnswer
	invalidDocument
	clockOff
)

// cutShortError is an answer that did not arrive whole.
type cutShortError struct {
	came  int64 // bytes
	cause error
}

func (e *cutShortError) Error() string {
	if errors.Is(e.cause, context.DeadlineExceeded) {
		return fmt.Sprintf("only %d bytes of it came in time; this machine's line may be too slow, or busy", e.came)
	}
	return fmt.Sprintf("it was cut short after %d bytes: %v", e.came, e.cause)
}

func (e *cutShortError) Unwrap() error { return e.cause }

var errNothingNewer = errors.New("they have nothing newer than the consensus held")

// failed notes a request that brought no document, but so many bytes.
func (t *tally) failed(err error, came int64) {
	rank := unreachable
	_, status := errors.AsType[*StatusError](err)
	switch {
	case status:
		rank = statusAnswer
	case errors.Is(err, ErrNotModified):
		rank, err = nothingNewer, errNothingNewer
	case errors.Is(err, ErrTooLarge), errors.Is(err, errContent):
		rank = invalidDocument
	case came > 0:
		rank, err = cutShort, &cutShortError{came, err}
	}
	if rank != unreachable {
		t.answered++
	}
	t.keep(rank, err)
}

// judged notes a document that came and how it was received; nil is one that was held already.
func (t *tally) judged(err error) {
	t.answered++
	_, clock := errors.AsType[*netdoc.ClockError](err)
	switch {
	case clock:
		t.keep(clockOff, err)
	case err == nil, errors.Is(err, ErrOlder):
		t.keep(nothingNewer, errNothingNewer)
	default:
		t.keep(invalidDocument, err)
	}
}

func (t *tally) keep(rank telling, err error) {
	if rank > t.rank {
		t.rank, t.err = rank, err
	}
}
