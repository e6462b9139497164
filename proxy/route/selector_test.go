package route

import (
	"strings"
	"testing"

	"torproxy/wire/netdoc"
)

func TestParseSelector(t *testing.T) {
	id := testID(4).String()
	for _, test := range []struct{ in, want string }{
		{"alice", "alice"},
		{"relay-9", "relay-9"},
		{strings.Repeat("a", netdoc.MaxNickname), strings.Repeat("a", netdoc.MaxNickname)},
		{id, id},
		{strings.ToUpper(id), id},
	} {
		s, err := ParseSelector(test.in)
		if err != nil || s.String() != test.want {
			t.Errorf("%q: %q, %v", test.in, s, err)
		}
	}
	for _, bad := range []string{"", " ", "a b", "a,b", "ä", "a=b", strings.Repeat("a", netdoc.MaxNickname+1), id + "0", id[1:], strings.Repeat("0", 64)} {
		if s, err := ParseSelector(bad); err == nil {
			t.Errorf("%q is read as %q", bad, s)
		}
	}
}

func TestParseSelectors(t *testing.T) {
	a, err := ParseSelectors("bob,alice,bob")
	b, _ := ParseSelectors("alice,bob")
	if err != nil || a.String() != b.String() || a.String() != "alice,bob" {
		t.Errorf("%q and %q, %v: want one form of both", a, b, err)
	}
	for _, bad := range []string{"", ",", "alice,", strings.Repeat("a,", maxSelectors) + "a"} {
		if s, err := ParseSelectors(bad); err == nil {
			t.Errorf("%.20q is read as %.20q", bad, s)
		}
	}
}

func TestSelectorMatches(t *testing.T) {
	one, two := relay(1), relay(2)
	two.Nickname = one.Nickname
	nickname, err := ParseSelector(one.Nickname)
	if err != nil {
		t.Fatal(err)
	}
	id, err := ParseSelector(one.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		s    Selector
		r    netdoc.Relay
		want bool
	}{
		{"nickname", nickname, one, true},
		{"nickname of several", nickname, two, true},
		{"other nickname", nickname, relay(3), false},
		{"ID", id, one, true},
		{"other ID", id, two, false},
		{"nobody", Selector{}, netdoc.Relay{}, false},
	} {
		if got := test.s.Matches(&test.r); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func selectors(t testing.TB, list string) Selectors {
	t.Helper()
	s, err := ParseSelectors(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestChosenExit(t *testing.T) {
	c := network(t, 8, 3)
	rnd := seeded(5)
	seen := map[string]bool{}
	for range 200 {
		route, err := Choose(c, Request{Hops: 3, Exit: selectors(t, "r1,"+testID(2).String()), Exclude: selectors(t, "r5,"+testID(6).String())}, rnd)
		if err != nil {
			t.Fatal(err)
		}
		seen[route[2].Nickname] = true
		for _, r := range route {
			if r.Nickname == "r5" || r.Nickname == "r6" {
				t.Fatalf("%s is excluded", r.Nickname)
			}
		}
	}
	if len(seen) != 2 || !seen["r1"] || !seen["r2"] {
		t.Errorf("exits %v, want r1 and r2", seen)
	}
}
