//go:build !race

package localnet_test

const memorySlack = 1
