//go:build !race

package localnet_test

import "time"

const (
	memorySlack = 1
	shortRound  = 250 * time.Millisecond
)
