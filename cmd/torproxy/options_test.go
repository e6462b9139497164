package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
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
