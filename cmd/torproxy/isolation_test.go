package main

import (
	"strings"
	"testing"
)

// TestLabels: no two of these have a label in common, each keeps its own, and none tells its secrets.
func TestLabels(t *testing.T) {
	l := newLabels()
	long := strings.Repeat("x", 255)
	seen := map[string]string{}
	for _, c := range [][2]string{
		{"", ""}, {"ann", "secret"}, {"ann", "other"}, {"ben", "secret"}, {"an", "nsecret"}, {"annsecret", ""}, {"", "annsecret"},
		{long, ""}, {"", long}, {long, long},
	} {
		label := l.socks(c[0], c[1])
		if other, taken := seen[label]; taken {
			t.Errorf("%.20q and %.20q share the label %s", c, other, label)
		}
		seen[label] = c[0] + ":" + c[1]
		if l.socks(c[0], c[1]) != label {
			t.Errorf("%.20q has two labels", c)
		}
		if strings.Contains(label, "ann") || strings.Contains(label, "secret") {
			t.Errorf("the label %s tells its secrets", label)
		}
		if l.http(label) == label {
			t.Errorf("the ports share the label %s", label)
		}
	}
	if l.socks("", "") == l.http("") {
		t.Error("the ports share a label")
	}
	if a, b := l.socks("ann", "secret"), newLabels().socks("ann", "secret"); a == b {
		t.Error("two processes have the same label: it can be tried on")
	}
	if got := shortLabel(l.socks("ann", "secret")); !strings.HasPrefix(got, "socks:") || len(got) != len("socks:")+8 {
		t.Errorf("shown as %q", got)
	}
	if shortLabel("http") != "http" || shortLabel("") != "" {
		t.Error("a label without a key is not shown as it is")
	}
}
