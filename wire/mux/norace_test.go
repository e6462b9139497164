//go:build !race

package mux

const allocsAllowed = 0.2 // a collection may empty the pool of blocks
