package need

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// say writes needs as "PORT CHOICE: CIRCUITS".
func say(needs []Need) string {
	var parts []string
	for _, n := range needs {
		parts = append(parts, fmt.Sprintf("%d%s: %d", n.Port, n.Choice, n.Circuits))
	}
	return strings.Join(parts, ", ")
}

// TestNeeds plays requests and checks what is kept ready some time later.
func TestNeeds(t *testing.T) {
	type ask struct {
		at    time.Duration
		kind  Kind
		fresh int // so many at once; 0: one that takes no fresh circuit
	}
	https, http, ssh := Kind{Port: 443}, Kind{Port: 80}, Kind{Port: 22}
	for name, test := range map[string]struct {
		least int
		asks  []ask
		at    time.Duration
		want  string
	}{
		"at the start":            {6, nil, 0, "443: 6, 80: 6"},
		"nobody for an hour":      {6, nil, time.Hour, "443: 1"},
		"nobody for a day":        {6, nil, 24 * time.Hour, "443: 1"},
		"a little web":            {6, []ask{{0, https, 1}}, time.Minute, "443: 6, 80: 6"},
		"many labels":             {6, []ask{{0, https, 9}}, time.Minute, "443: 10, 80: 6"},
		"many more":               {6, []ask{{0, https, 40}}, time.Minute, "443: 16, 80: 6"},
		"nearly an hour ago":      {6, []ask{{0, https, 9}}, 49 * time.Minute, "443: 10, 80: 6"},
		"the burst is forgotten":  {6, []ask{{0, https, 9}, {65 * time.Minute, https, 1}}, 65 * time.Minute, "443: 6, 80: 6"},
		"one label, many streams": {2, []ask{{0, https, 1}, {1, https, 0}, {2, https, 0}}, 3, "443: 2, 80: 2"},
		"slowly one after another": {1, []ask{{0, https, 1}, {20 * time.Second, https, 1}, {40 * time.Second, https, 1}},
			time.Minute, "443: 2, 80: 1"},
		"another port":          {6, []ask{{0, ssh, 1}}, time.Minute, "443: 6, 80: 6, 22: 2"},
		"another port, its end": {6, []ask{{0, ssh, 1}, {30 * time.Minute, http, 1}}, 61 * time.Minute, "443: 6, 80: 6"},
		"a choice": {6, []ask{{0, https, 1}, {time.Minute, Kind{443, "x"}, 1}}, 2 * time.Minute,
			"443: 6, 80: 6, 443x: 2"},
		"a choice, then nobody": {6, []ask{{0, Kind{443, "x"}, 1}}, 2 * time.Hour, "443: 1"},
		"anywhere":              {6, []ask{{0, Kind{}, 1}}, time.Minute, "443: 6, 80: 6, 0: 2"},
		"none wanted":           {-1, []ask{{0, https, 3}}, time.Minute, ""},
		"back from an idle day": {6, []ask{{24 * time.Hour, https, 1}}, 24*time.Hour + 1, "443: 6, 80: 6"},
		"the clock set back":    {6, []ask{{0, https, 2}, {-time.Minute, https, 1}}, -time.Minute, "443: 6, 80: 6"},
		"more wanted than ever": {99, nil, 0, "443: 16, 80: 16"},
	} {
		h := New(test.least, start)
		for _, a := range test.asks {
			h.Asked(a.kind, a.fresh > 0, start.Add(a.at))
			for range a.fresh - 1 {
				h.Asked(a.kind, true, start.Add(a.at+time.Second))
			}
		}
		if got := say(h.Needs(start.Add(test.at))); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestBounds checks that a client which asks for everything makes no endless list: the kinds least lately
// used go.
func TestBounds(t *testing.T) {
	h := New(1, start)
	for port := range uint16(1000) {
		h.Asked(Kind{Port: 1000 + port}, true, start)
		h.Asked(Kind{Port: 22}, false, start)
	}
	needs := h.Needs(start)
	if len(needs) != maxKinds+len(web) {
		t.Errorf("%d kinds, want %d", len(needs), maxKinds+len(web))
	}
	for _, port := range []uint16{22, 1999} {
		if !slices.ContainsFunc(needs, func(n Need) bool { return n.Port == port }) {
			t.Errorf("port %d is forgotten", port)
		}
	}
}
