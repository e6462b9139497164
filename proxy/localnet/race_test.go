//go:build race

package localnet_test

// memorySlack is how many times as much a circuit may cost under the race detector: its pools throw away, and its
// stacks are larger.
const memorySlack = 2
