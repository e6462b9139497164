package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"torproxy/proxy/frontdoor"
)

// TestClientPage: CLIENT.md knows every flag of the client.
func TestClientPage(t *testing.T) {
	page, err := os.ReadFile("CLIENT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "\n## All flags\n")
	if !found {
		t.Fatal("CLIENT.md has no section with all flags")
	}
	for _, flag := range regexp.MustCompile(`(?m)^ +(?:-. *, )?(--[a-z-]+)`).FindAllStringSubmatch(newRoot(&output{}).Flags().FlagUsages(), -1) {
		if name := flag[1]; name != "--version" && name != "--help" && !strings.Contains(table, "`"+name) {
			t.Errorf("CLIENT.md does not have %s", name)
		}
	}
}

// TestDoorFlags: what the flags make of the front door.
func TestDoorFlags(t *testing.T) {
	for flags, want := range map[string]struct {
		open                 frontdoor.OpenLinks
		prefetch, optimistic bool
	}{
		"":                               {frontdoor.Ask, true, false},
		"--open-links ask":               {frontdoor.Ask, true, false},
		"--open-links always":            {frontdoor.Always, true, false},
		"--open-links never":             {frontdoor.Never, true, false},
		"--prefetch off":                 {frontdoor.Ask, false, false},
		"--prefetch on":                  {frontdoor.Ask, true, false},
		"--isolate dest":                 {frontdoor.Ask, false, false},
		"--isolate dest --prefetch on":   {frontdoor.Ask, false, false},
		"--optimistic --prefetch on":     {frontdoor.Ask, true, true},
		"--browser firefox --optimistic": {frontdoor.Ask, true, true},
	} {
		o, cmd := defaultOptions(), &cobra.Command{}
		addClientFlags(cmd, &o, &output{})
		if err := cmd.ParseFlags(strings.Fields(flags)); err != nil {
			t.Fatal(err)
		}
		got := (&client{options: o, questions: &questions{}}).doorConfig()
		if got.OpenLinks != want.open || got.Prefetch != want.prefetch || got.Optimistic != want.optimistic {
			t.Errorf("%q: open links %s, prefetch %v, optimistic %v", flags, got.OpenLinks, got.Prefetch, got.Optimistic)
		}
	}
}

// TestRelayList: what is given several times adds up, and is printed as it can be given.
func TestRelayList(t *testing.T) {
	var o options
	l := relayList{&o.relays.exit}
	for _, s := range []string{"relay2", "relay1,relay3"} {
		if err := l.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.String(); got != "relay1,relay2,relay3" {
		t.Errorf("got %s", got)
	}
	if err := l.Set("relay4,relay 5"); err == nil || l.String() != "relay1,relay2,relay3" {
		t.Errorf("a wrong list is taken as %s, %v", l, err)
	}
	if got := (relayList{}).String(); got != "" {
		t.Errorf("the zero list is %q", got)
	}
}
