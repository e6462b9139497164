package directory

import (
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
	nothingNewer
	statusAnswer
	invalidDocument
	clockOff
)

var errNothingNewer = errors.New("they have nothing newer than the consensus held")

// failed notes a request that brought no document.
func (t *tally) failed(err error) {
	rank := unreachable
	if _, ok := errors.AsType[*StatusError](err); ok {
		rank = statusAnswer
	}
	switch {
	case errors.Is(err, ErrNotModified):
		rank, err = nothingNewer, errNothingNewer
	case errors.Is(err, ErrTooLarge):
		rank = invalidDocument
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
