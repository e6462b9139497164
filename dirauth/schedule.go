package dirauth

import (
	"time"

	"torproxy/wire/netdoc"
)

// maxWindow is the longest time before valid-after that voting may take: what is voted on should be fresh.
const maxWindow = 10 * time.Minute

// schedule is the timetable of one round (DIRECTORY.md, "One round"): when each phase ends at the latest.
type schedule struct {
	open       time.Time // voting begins
	votesBy    time.Time // then echoing
	echoesBy   time.Time // then gathering
	gatherBy   time.Time // then signing
	validAfter time.Time // the earliest the document is served
	close      time.Time // the next round's valid-after: signatures are of no more use
}

// newSchedule returns the timetable of the round that begins at validAfter.
func newSchedule(p netdoc.Params, validAfter time.Time) schedule {
	next := p.NextRound(validAfter)
	length := next.Sub(validAfter)
	if previous, ok := p.RoundAt(validAfter.Add(-time.Millisecond)); ok {
		length = validAfter.Sub(previous)
	}
	window := min(length*3/4, maxWindow)
	before := func(fifths time.Duration) time.Time { return validAfter.Add(-window * fifths / 5) }
	return schedule{
		open:       before(5),
		votesBy:    before(3),
		echoesBy:   before(2),
		gatherBy:   before(1),
		validAfter: validAfter,
		close:      next,
	}
}
