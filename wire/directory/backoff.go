package directory

import (
	"math/rand/v2"
	"time"

	"torproxy/wire/netdoc"
)

const (
	firstRetry   = 50 * time.Millisecond
	longestRetry = time.Minute
)

// backoff returns how long to wait before the next attempt at what has not worked for a time: a quarter of
// that time, so that nobody learns of a change more than a quarter late, within bounds, give or take a
// tenth of it, so that those who failed together do not come back together.
func backoff(since time.Duration, least, most time.Duration) time.Duration {
	d := min(max(since/4, least), most)
	return d - d/10 + rand.N(d/5)
}

// retryBounds returns the bounds for attempts of which a network's rounds depend: in a network with rounds
// of seconds they are shorter.
func retryBounds(p netdoc.Params) (least, most time.Duration) {
	round := time.Duration(p.Round)
	return firstRetry, min(max(round/10, time.Second), longestRetry)
}
