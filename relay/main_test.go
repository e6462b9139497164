package relay

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The environment names a proxy (which net/http reads once for the process): no exit asks it.
func TestMain(m *testing.M) {
	os.Setenv("HTTP_PROXY", "http://192.0.2.1:1")
	goleak.VerifyTestMain(m)
}
