package proxy

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/guard"
	"torproxy/wire"
	"torproxy/wire/onion"
)

// Failure is a class of causes for which a circuit was not built.
type Failure string

// The classes. None names a relay.
const (
	FailureLink        Failure = "link"        // this machine has no link to the first hop
	FailureTimeout     Failure = "timeout"     // no answer in the time that a circuit is given
	FailureUnreachable Failure = "unreachable" // one hop could not reach the next, or got no answer from it
	FailureBehind      Failure = "behind"      // one hop did not know the next: it has another consensus
	FailureRefused     Failure = "refused"     // a hop was full, or would not
	FailureBroken      Failure = "broken"      // the circuit was reset without an answer
	FailureViolation   Failure = "violation"   // a hop broke the protocol
	FailureGivenUp     Failure = "given up"    // nobody wanted it any more
	FailureGuard       Failure = "no guard"    // none answers; told in Progress only, for nothing was attempted
)

// failureOf sorts the error of a build.
func failureOf(err error) Failure {
	if said, ok := errors.AsType[*onion.HopError](err); ok {
		switch said.Status {
		case wire.StatusUnknownNext:
			return FailureBehind
		case wire.StatusNextUnreachable, wire.StatusNextTimeout, wire.StatusNextReset:
			return FailureUnreachable
		default:
			return FailureRefused
		}
	}
	failed, _ := errors.AsType[*circuit.BuildError](err)
	_, noGuard := errors.AsType[*guard.WaitError](err)
	switch {
	case noGuard:
		return FailureGuard
	case errors.Is(err, context.Canceled):
		return FailureGivenUp
	case failed != nil && failed.Hop == 0:
		return FailureLink
	case errors.Is(err, wire.ErrViolation):
		return FailureViolation
	case errors.Is(err, context.DeadlineExceeded):
		return FailureTimeout
	default:
		return FailureBroken
	}
}

// The outcomes of a Dial in Stats.Dials besides those that an exit gives as its reason.
const (
	DialConnected = "connected"
	DialNoCircuit = "no circuit"
	DialGivenUp   = "given up" // by whoever asked
)

// outcomeOf sorts the error of a Dial.
func outcomeOf(err error) string {
	if err == nil {
		return DialConnected
	}
	if end, ok := errors.AsType[*wire.EndError](err); ok {
		return end.Reason.String()
	}
	if errors.Is(err, context.Canceled) {
		return DialGivenUp
	}
	return DialNoCircuit
}

// Stats is what a Proxy has done since New, in numbers. Nothing in it tells with whom.
type Stats struct {
	// At this moment.
	Circuits, Spares, Building int // circuits that stand, those of them that nobody uses yet, those on their way
	Streams                    int // open

	// Since New.
	Built   int64             // circuits
	Failed  map[Failure]int64 // attempts to build one
	Dials   map[string]int64  // by outcome: the constants above, or a wire.Reason's text
	In, Out int64             // bytes of applications, from and to their destinations

	// What is known of the last hundred circuits; zero before the first.
	BuildMedian, Build80, Build95 time.Duration // half of them, four fifths, nineteen of twenty took no longer
	Late, GiveUp                  time.Duration // when a second one is built beside the next, and when it is given up
}

// counts are the sums of Stats.
type counts struct {
	mu     sync.Mutex
	built  int64
	failed map[Failure]int64
	dials  map[string]int64
}

// attempted counts an attempt to build a circuit.
func (c *counts) attempted(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.built++
		return
	}
	if c.failed == nil {
		c.failed = map[Failure]int64{}
	}
	c.failed[failureOf(err)]++
}

// dialled counts a Dial.
func (c *counts) dialled(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dials == nil {
		c.dials = map[string]int64{}
	}
	c.dials[outcomeOf(err)]++
}

// Stats returns the numbers of this moment.
func (p *Proxy) Stats() Stats {
	s := p.pool.stats()
	p.patience.stats(&s)
	p.counts.mu.Lock()
	defer p.counts.mu.Unlock()
	s.Built, s.Failed, s.Dials = p.counts.built, maps.Clone(p.counts.failed), maps.Clone(p.counts.dials)
	return s
}

// stats returns the numbers of circuits and what they have carried.
func (p *pool) stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Circuits: len(p.circuits), Spares: p.sparesLocked(), Building: len(p.building), In: p.in, Out: p.out}
	for _, h := range p.circuits {
		s.Streams += len(h.streams)
		in, out := h.circuit.Bytes()
		s.In += in
		s.Out += out
	}
	return s
}
