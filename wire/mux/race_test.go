//go:build race

package mux

// The race detector makes sync.Pool forget at random.
const allocsAllowed = batchCells
