package relay

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestHTTPLimitsAreDocumented checks the table of HTTP.md against the code.
func TestHTTPLimitsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("HTTP.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"requestTimeout": requestTimeout, "replyTimeout": replyTimeout, "continueTimeout": continueTimeout, "quietTimeout": quietTimeout,
		"maxRequestHead": maxRequestHead, "maxHeads": maxHeads, "maxCircuitHeads": maxCircuitHeads, "maxFields": maxFields, "maxReplyHead": maxReplyHead, "maxTrailer": maxTrailer, "maxInterim": maxInterim,
		"maxIdle": maxIdle, "idleTimeout": idleTimeout, "maxOpenLinks": maxOpenLinks, "maxOpenLink": maxOpenLink, "maxURIList": maxURIList,
		"maxPageLinks": maxPageLinks, "maxFetches": maxFetches, "maxBodies": maxBodies, "bodyPatience": bodyPatience, "maxLevels": maxLevels, "maxLooked": maxLooked, "maxPushedReply": maxPushedReply,
		"maxPushedBytes": maxPushedBytes, "pushTimeout": pushTimeout,
	} {
		if row := fmt.Sprintf("| `%s` | %v |", name, value); !strings.Contains(string(text), row) {
			t.Errorf("HTTP.md has no row %s", row)
		}
	}
}
