package localnet_test

import (
	"encoding/json"
	"os"
	"testing"

	"torproxy/wire"
)

// TestCellSizes says what cells of each size would put on the wire for a browsing session: Chromium with a
// page of 69 files, the sizes and delays drawn at random around what pages of the web have. The recording
// has each read of each connection: milliseconds, connection, direction, bytes. go test -v prints the table of
// PERFORMANCE.md.
func TestCellSizes(t *testing.T) {
	raw, err := os.ReadFile("testdata/browsing.json")
	if err != nil {
		t.Fatal(err)
	}
	var reads [][4]any
	if err := json.Unmarshal(raw, &reads); err != nil {
		t.Fatal(err)
	}
	connections, payload := map[float64]bool{}, 0
	for _, r := range reads {
		connections[r[1].(float64)] = true
		payload += int(r[3].(float64))
	}
	// BEGIN, CONNECTED, FIN and END each way, when nothing else shares a cell with them.
	control := 6 * len(connections)
	for _, size := range []int{512, 1024, wire.CellSize, 2048, 4096} {
		cells := control
		for _, r := range reads {
			cells += (int(r[3].(float64)) + size - wire.TagSize - wire.HeaderSize - 1) / (size - wire.TagSize - wire.HeaderSize)
		}
		ratio := float64(cells*size) / float64(payload)
		t.Logf("cells of %4d bytes: %4d cells, %7d bytes on the wire for %d, %.2f times", size, cells, cells*size, payload, ratio)
		if size == wire.CellSize && ratio > 1.25 {
			t.Errorf("cells of %d bytes cost %.2f times a browsing session's bytes", size, ratio)
		}
	}
}
