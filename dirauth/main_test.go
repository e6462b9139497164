package dirauth

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childStore); path != "" {
		runChild(path)
		return
	}
	goleak.VerifyTestMain(m)
}
