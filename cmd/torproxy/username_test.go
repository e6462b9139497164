package main

import (
	"errors"
	"strings"
	"testing"

	"torproxy/proxy/route"
)

var someID = strings.Repeat("0123456789abcdef", 4)

func TestUserName(t *testing.T) {
	for _, c := range []struct {
		user, exit, exclude string
		err                 error
	}{
		{user: ""},
		{user: "ann"},
		{user: "ann+ben"},
		{user: "+"},
		{user: "torsocks-4711:1700000000"},
		{user: "\x00\xff+ +exit+exclude"},
		{user: "ann+exit=relay9", exit: "relay9"},
		{user: "+exit=relay9", exit: "relay9"},
		{user: "exit=relay9", exit: "relay9"},
		{user: "ann+exit=relay9,relay8", exit: "relay8,relay9"},
		{user: "ann+exit=" + someID, exit: someID},
		{user: "ann+exit=" + strings.ToUpper(someID) + "+exclude=relay1,relay2", exit: someID, exclude: "relay1,relay2"},
		{user: "+exclude=relay1+ann+exit=relay9+x", exit: "relay9", exclude: "relay1"},

		{user: "ann+exti=relay9", err: errUserOption},
		{user: "ann+Exit=relay9", err: errUserOption},
		{user: "ann+=relay9", err: errUserOption},
		{user: "ann+ exit=relay9", err: errUserOption},
		{user: "c2VjcmV0Cg==", err: errUserOption},
		{user: "ann+exit=", err: errUserExit},
		{user: "ann+exit=relay9,", err: errUserExit},
		{user: "ann+exit=relay 9", err: errUserExit},
		{user: "ann+exit=relay9=relay8", err: errUserExit},
		{user: "ann+exit=" + someID + "0", err: errUserExit},
		{user: "ann+exclude=", err: errUserExclude},
		{user: "ann+exclude=a,,b", err: errUserExclude},
		{user: "ann+exit=relay9+exit=relay9", err: errUserTwice},
		{user: "exclude=a+exclude=b", err: errUserTwice},
	} {
		got, err := parseUserName(c.user)
		if !errors.Is(err, c.err) || got.exit.String() != c.exit || got.exclude.String() != c.exclude {
			t.Errorf("%q: exit %v, exclude %v, %v; want %s, %s, %v", c.user, got.exit, got.exclude, err, c.exit, c.exclude, c.err)
		}
	}
}

// FuzzUserName: what is read says the same as the text, and an error says nothing of it.
func FuzzUserName(f *testing.F) {
	for _, s := range []string{"", "ann", "ann+exit=a", "exit=a,b+x+exclude=" + someID, "+exit==", "exit=a+exit=b", "a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, user string) {
		got, err := parseUserName(user)
		if err != nil {
			if got.exit != nil || got.exclude != nil {
				t.Fatalf("%q: a choice with an error: %+v", user, got)
			}
			return
		}
		for key, list := range map[string]route.Selectors{"exit": got.exit, "exclude": got.exclude} {
			if (list != nil) != strings.Contains("+"+user, "+"+key+"=") {
				t.Fatalf("%q: %s is %v", user, key, list)
			}
			again, err := parseUserName("x+" + key + "=" + list.String())
			if list != nil && (err != nil || again.exit.String()+again.exclude.String() != list.String()) {
				t.Fatalf("%q: %s %v is read again as %+v, %v", user, key, list, again, err)
			}
		}
		if options := strings.Count(user, "="); options > 0 && got.exit == nil && got.exclude == nil {
			t.Fatalf("%q: an option was ignored", user)
		}
	})
}
