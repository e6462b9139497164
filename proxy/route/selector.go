package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// maxSelectors bounds a list of selectors: each is compared with every relay of a network.
const maxSelectors = 64

// Selector names relays as users do: one by its ID, or all that bear a nickname. Nicknames are told apart by
// upper and lower case. It is comparable; the zero Selector names nobody.
type Selector struct {
	id       wire.ID
	nickname string // empty: by id
}

// ParseSelector reads a nickname or an ID of 64 hex digits, in whichever case.
func ParseSelector(s string) (Selector, error) {
	if id, err := wire.ParseID(strings.ToLower(s)); err == nil && !id.IsZero() {
		return Selector{id: id}, nil
	}
	if !isNickname(s) {
		return Selector{}, fmt.Errorf("%.80q is no relay's nickname (1 to %d letters, digits, hyphens) and no relay's ID (64 hex digits)",
			s, netdoc.MaxNickname)
	}
	return Selector{nickname: s}, nil
}

func isNickname(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		default:
			return false
		}
	}
	return len(s) >= 1 && len(s) <= netdoc.MaxNickname
}

// Matches reports whether the selector names a relay.
func (s Selector) Matches(r *netdoc.Relay) bool {
	if s.nickname != "" {
		return s.nickname == r.Nickname
	}
	return s.id == r.ID && !s.id.IsZero()
}

// String returns what ParseSelector reads.
func (s Selector) String() string {
	switch {
	case s.nickname != "":
		return s.nickname
	case s.id.IsZero():
		return ""
	default:
		return s.id.String()
	}
}

// Selectors name all the relays that one of them names.
type Selectors []Selector

// ParseSelectors reads a list of selectors with commas between, at most 64.
func ParseSelectors(list string) (Selectors, error) {
	var all Selectors
	for text := range strings.SplitSeq(list, ",") {
		s, err := ParseSelector(text)
		if err != nil {
			return nil, err
		}
		if all = append(all, s); len(all) > maxSelectors {
			return nil, errors.New("more than 64 relays in a list")
		}
	}
	return all, nil
}

// Match reports whether any of the selectors names the relay.
func (all Selectors) Match(r *netdoc.Relay) bool {
	return slices.ContainsFunc(all, func(s Selector) bool { return s.Matches(r) })
}

// String returns the list in one form for all lists of the same selectors, whatever their order: it serves as
// a key. ParseSelectors reads it unless it is empty.
func (all Selectors) String() string {
	texts := make([]string, len(all))
	for i, s := range all {
		texts[i] = s.String()
	}
	slices.Sort(texts)
	return strings.Join(slices.Compact(texts), ",")
}
