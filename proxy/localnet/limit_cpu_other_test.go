//go:build !unix

package localnet_test

import "time"

// cpuTime is not known here: the benchmarks report none.
func cpuTime() time.Duration { return 0 }
