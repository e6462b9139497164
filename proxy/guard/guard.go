// Package guard chooses the first hop of circuits: few relays, the same ones for months.
//
// Whoever draws a new first hop for every circuit draws, sooner or later, one that belongs to an observer who
// has the last hop, too. Who keeps to one is safe for as long as that one is honest. The algorithm is that of
// Tor's guard-spec, adapted; GUARDS.md says how, with the reason of each number. In short:
//
//	consensus -> sampled -> confirmed -> primary      Update, sample.go and rank.go
//	  1. the sample: relays drawn once by weight, in the order drawn; nobody else is ever a first hop
//	  2. confirmed: those of the sample with a circuit that streams might use, in that order
//	  3. primary: the first three that are listed, confirmed ones before others
//
//	Pick -> a circuit is built -> Built, Answered, Silent, Failed or Canceled      pick.go, outcome.go
//	  1. the best guard that is not known to fail, beside the exit that was drawn (fits)
//	  2. one that is no primary is explored: one at a time, and its circuit waits (Check) until every better
//	     guard has failed while the network was known to be up
//	  3. nothing answers: that is the network's fault until something does; primaries are tried again and
//	     again, of the others hardly any                                        online.go
//
// The package is pure: time and randomness come in as arguments.
package guard

import (
	"math/rand/v2"
	"slices"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// State is one client's guards of one network: what is kept over a restart (Encode, Parse), and what is known
// about them at the moment. It is not safe for concurrent use.
type State struct {
	network string
	sample  []*guard // in the order drawn
	chosen  []*guard // the confirmed ones, in the order confirmed
	changes uint64

	rnd      *rand.Rand
	primary  []*guard
	filter   func(*netdoc.Relay) bool
	from, to time.Time // validity of the last consensus
	silences int       // that make a failure
	now      time.Time // of the last call
	turn     uint64    // counts what happens, to tell before from after whatever the clock does
	net      net
	blockade bool // every guard has failed, though the network was there; none has answered since
}

// guard is one relay of the sample.
type guard struct {
	// What is kept, in whole hours of the consensus' time.
	id        wire.ID
	added     time.Time
	confirmed time.Time // zero: not confirmed
	unlisted  time.Time // zero: the last consensus had it as a guard

	relay   *netdoc.Relay // nil: not listed
	allowed bool          // listed, and the filter lets it through
	keyless time.Time     // since when it has been listed without an onion key; zero: it has one

	reach   reach
	failed  uint64 // turn in which the attempt that failed last began
	retry   time.Time
	delay   time.Duration // between the last failure and retry
	silent  int           // builds without an answer, one after another, that count
	pending int           // attempts under way
	dial    uint64        // turn in which the dial began that they share; 0: none may be under way
	tried   time.Time     // the last one's beginning
	tally   tally

	suspects []wire.ID // the later hops of those builds
}

// reach is what is known of a guard's being there.
type reach int

const (
	maybe reach = iota // worth an attempt
	yes                // the last attempt got an answer
	no                 // the last attempt failed; another is due at retry
)

// New returns the state of a client that has never been in the network of that name: nothing is sampled
// before the first Update. rnd is used by all methods.
func New(network string, rnd *rand.Rand) *State {
	return &State{network: network, rnd: rnd}
}

// Changes counts the changes of what Encode returns, to tell when it is to be saved.
func (s *State) Changes() uint64 { return s.changes }

func (s *State) find(id wire.ID) *guard {
	i := slices.IndexFunc(s.sample, func(g *guard) bool { return g.id == id })
	if i < 0 {
		return nil
	}
	return s.sample[i]
}

func (s *State) isPrimary(g *guard) bool { return slices.Contains(s.primary, g) }

// listed reports whether the guard may be used as far as the consensus and the user's filter go.
func (g *guard) listed() bool { return g.relay != nil && g.allowed }

// advance takes note of the time. Times that lie ahead are moved with a clock that was set back: who waits
// for them waits no longer for that. A clock that was set forward makes them due.
func (s *State) advance(now time.Time) {
	if back := s.now.Sub(now); back > 0 && !s.now.IsZero() {
		for _, g := range s.sample {
			g.retry, g.tried = shift(g.retry, back), shift(g.tried, back)
			g.keyless = shift(g.keyless, back)
		}
		s.net.round, s.net.walk = shift(s.net.round, back), shift(s.net.walk, back)
		s.net.online = shift(s.net.online, back)
	}
	s.now = now
}

func shift(t time.Time, back time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(-back)
}
