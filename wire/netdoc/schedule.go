package netdoc

import "time"

// The schedule of rounds. A round is named by its valid-after and lasts until the next one:
//
//	without Start:   ...  k*Round  (k+1)*Round  ...                       since 1970
//	with Start:      Start  Start+i  Start+2i ... Start+n*i  +Round  +2*Round ...     i = InitialRound, n = InitialRounds
//
// Everything is in Unix milliseconds, as in documents.

// minValid is the least time for which a consensus is valid when the network file does not say: rounds of
// a test network are shorter than the time a laptop's clock may be off or its lid closed.
const minValid = time.Minute

// NextRound returns the first valid-after strictly after t.
func (p Params) NextRound(t time.Time) time.Time {
	ms := t.UnixMilli()
	if p.Start != 0 && ms < p.Start {
		return time.UnixMilli(p.Start)
	}
	from, length, index := p.round(ms)
	return time.UnixMilli(from + (index+1)*length)
}

// RoundAt returns the latest valid-after that is not after t; false if t is before the first round.
func (p Params) RoundAt(t time.Time) (validAfter time.Time, ok bool) {
	ms := t.UnixMilli()
	if p.Start != 0 && ms < p.Start {
		return time.Time{}, false
	}
	from, length, index := p.round(ms)
	return time.UnixMilli(from + index*length), true
}

// Times returns the other two times of the consensus of a round: fresh-until is the next round's
// valid-after.
func (p Params) Times(validAfter time.Time) (freshUntil, validUntil time.Time) {
	valid := time.Duration(p.Valid)
	if valid == 0 {
		valid = max(3*time.Duration(p.Round), minValid)
	}
	return p.NextRound(validAfter), validAfter.Add(valid)
}

// round returns the stretch of equal rounds in which ms lies, and which of its rounds that is.
func (p Params) round(ms int64) (from, length, index int64) {
	from, length = p.regular(), time.Duration(p.Round).Milliseconds()
	if p.Start != 0 && ms < from {
		from, length = p.Start, time.Duration(p.InitialRound).Milliseconds()
	}
	return from, length, floorDiv(ms-from, length)
}

// regular returns a valid-after from which on rounds have their regular length.
func (p Params) regular() int64 {
	return p.Start + int64(p.InitialRounds)*time.Duration(p.InitialRound).Milliseconds()
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
