//go:build race

package localnet_test

import "time"

const (
	// memorySlack is how many times as much a circuit may cost under the race detector: its pools throw away, and
	// its stacks are larger.
	memorySlack = 2
	// shortRound is the length of a round while it is short: the authorities measure all relays within it.
	shortRound = time.Second
)
