package wire

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// An answer of a stream of KindResolve (section 4.1); a stream carries 1 to MaxAnswers of them:
//
//	0      1         5        6           6+length
//	+------+---------+--------+------------+
//	| type | ttl     | length | value      |
//	+------+---------+--------+------------+

// Bounds of the answers of one stream.
const (
	MaxAnswers     = 64
	MaxAnswersSize = MaxAnswers * (answerHead + maxName) // bytes of all of them
	MinTTL         = 60 * time.Second
	MaxTTL         = 30 * time.Minute

	answerHead = 1 + 4 + 1
	maxName    = 253 // of a host name in text (RFC 1035 section 3.1, without the dot at the end)
)

// The types of answers: those of IPv4 and IPv6 speak for themselves, 12 is that of PTR in DNS.
const (
	answerIPv4 = 4
	answerIPv6 = 6
	answerName = 12
)

// Answer is one address of a name, or one name of an address: either Addr is valid or Name is not empty.
type Answer struct {
	Addr netip.Addr
	Name string
	TTL  time.Duration // how long it may be used
}

// AppendAnswers appends answers as a resolve stream carries them, the first MaxAnswers of those that can
// be: an address loses its zone and an IPv4 address its IPv6 clothes, a name the dot at its end, and the
// TTL is clipped to MinTTL and MaxTTL. An answer with no valid address and no valid name is left out.
func AppendAnswers(b []byte, answers []Answer) []byte {
	n := 0
	for _, a := range answers {
		if n == MaxAnswers {
			break
		}
		kind, value := a.value()
		if kind == 0 {
			continue
		}
		ttl := uint32(min(max(a.TTL, MinTTL), MaxTTL) / time.Second)
		b = append(b, kind, byte(ttl>>24), byte(ttl>>16), byte(ttl>>8), byte(ttl), byte(len(value)))
		b = append(b, value...)
		n++
	}
	return b
}

// value returns the answer's type and value, type 0 if it cannot be sent.
func (a Answer) value() (kind byte, value []byte) {
	name := strings.TrimSuffix(a.Name, ".")
	switch addr := a.Addr.Unmap().WithZone(""); {
	case addr.Is4():
		return answerIPv4, addr.AsSlice()
	case addr.Is6():
		return answerIPv6, addr.AsSlice()
	case validName(name):
		return answerName, []byte(name)
	default:
		return 0, nil
	}
}

// ParseAnswers reads the whole of what a resolve stream carried. It accepts only what AppendAnswers
// writes; what else came, no part of it is used. The exit that sent it broke its word and not the
// protocol, so the error is no violation.
func ParseAnswers(b []byte) ([]Answer, error) {
	if len(b) == 0 {
		return nil, errors.New("wire: no answers")
	}
	var answers []Answer
	for s := cryptobyte.String(b); !s.Empty(); {
		if len(answers) == MaxAnswers {
			return nil, errors.New("wire: more answers than a stream may carry")
		}
		a, ok := readAnswer(&s)
		if !ok {
			return nil, errors.New("wire: malformed answers")
		}
		answers = append(answers, a)
	}
	return answers, nil
}

func readAnswer(s *cryptobyte.String) (a Answer, ok bool) {
	var kind uint8
	var ttl uint32
	var value cryptobyte.String
	if !s.ReadUint8(&kind) || !s.ReadUint32(&ttl) || !s.ReadUint8LengthPrefixed(&value) {
		return Answer{}, false
	}
	a.TTL = time.Duration(ttl) * time.Second
	switch kind {
	case answerIPv4:
		a.Addr, ok = netip.AddrFromSlice(value)
		ok = ok && a.Addr.Is4()
	case answerIPv6:
		a.Addr, ok = netip.AddrFromSlice(value)
		ok = ok && a.Addr.Is6() && !a.Addr.Is4In6()
	case answerName:
		a.Name = string(value)
		ok = validName(a.Name)
	}
	return a, ok && a.TTL >= MinTTL && a.TTL <= MaxTTL
}

// validName reports whether a name is one that may be shown and used as a host: whoever owns an address
// writes its names.
func validName(name string) bool {
	if name == "" || len(name) > maxName || name[0] == '.' || name[len(name)-1] == '.' {
		return false
	}
	for _, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
