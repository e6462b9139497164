package route

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
)

// NewRand returns a generator that draws everything from the process's secure source. It holds no state
// and is safe for concurrent use.
func NewRand() *rand.Rand { return rand.New(secure{}) }

// secure is the process's secure source as a rand.Source. crypto/rand never fails: it ends the process
// instead.
type secure struct{}

func (secure) Uint64() uint64 {
	var b [8]byte
	crand.Read(b[:])
	return binary.NativeEndian.Uint64(b[:])
}
