package main

import (
	"errors"
	"strings"

	"torproxy/proxy/route"
)

// The user name that a program gives to the SOCKS port, or to the front door in Proxy-Authorization, may
// say which relays its connections are to use:
//
//	LABEL[+exit=RELAY[,RELAY]...][+exclude=RELAY[,RELAY]...]
//
// RELAY is a nickname or an ID. A part without "=" belongs to the label, whatever is in it; a part with one
// is an option. Options may stand in any order, and before the label; each at most once. The whole user
// name and the password keep connections apart, options and all.
const userGrammar = "LABEL[+exit=RELAY,...][+exclude=RELAY,...]"

// The errors do not quote the user name: they are logged. An option is refused rather than ignored, or a
// program would use an exit that it was told not to.
var (
	errUserOption  = errors.New("a part with = in the user name is neither exit=... nor exclude=...; the form is " + userGrammar)
	errUserExit    = errors.New("exit= in the user name wants nicknames or IDs of relays, with commas between; the form is " + userGrammar)
	errUserExclude = errors.New("exclude= in the user name wants nicknames or IDs of relays, with commas between; the form is " + userGrammar)
	errUserTwice   = errors.New("an option stands twice in the user name; several relays are one list, with commas between")
)

// relayChoice is which relays somebody wants; nil lists are no wish.
type relayChoice struct {
	exit    route.Selectors // one of these is the last relay
	exclude route.Selectors // none of these is any
}

// parseUserName reads the options in a user name.
func parseUserName(user string) (relayChoice, error) {
	var c relayChoice
	for part := range strings.SplitSeq(user, "+") {
		key, value, found := strings.Cut(part, "=")
		if !found {
			continue
		}
		list, wrong := &c.exit, errUserExit
		switch key {
		case "exit":
		case "exclude":
			list, wrong = &c.exclude, errUserExclude
		default:
			return relayChoice{}, errUserOption
		}
		if *list != nil {
			return relayChoice{}, errUserTwice
		}
		var err error
		if *list, err = route.ParseSelectors(value); err != nil {
			return relayChoice{}, wrong
		}
	}
	return c, nil
}
