package echo

import (
	"errors"
	"strings"
)

// Why an Authorization header is not read.
var (
	errParams = errors.New("the Authorization header is not a list of NAME=VALUE")
	errTwice  = errors.New("the Authorization header has a parameter twice")
)

// parseParams reads the parameters of credentials (RFC 9110 section 11.4): names in lower case, values
// without their quotes. A name that is there twice is an error: two programs could read two things.
func parseParams(s string) (map[string]string, error) {
	all := map[string]string{}
	for {
		s = strings.TrimLeft(s, ", \t")
		if s == "" {
			return all, nil
		}
		name, rest := cutToken(s)
		rest, ok := strings.CutPrefix(strings.TrimLeft(rest, " \t"), "=")
		if name == "" || !ok {
			return nil, errParams
		}
		value, rest, err := cutValue(strings.TrimLeft(rest, " \t"))
		if err != nil {
			return nil, err
		}
		name = strings.ToLower(name)
		if _, twice := all[name]; twice {
			return nil, errTwice
		}
		all[name] = value
		if s = strings.TrimLeft(rest, " \t"); s != "" && s[0] != ',' {
			return nil, errParams
		}
	}
}

// cutValue takes a token or a quoted string off the front of s.
func cutValue(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		if value == "" {
			return "", "", errParams
		}
		return value, rest, nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] == '"' {
			return b.String(), s[i+1:], nil
		}
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return "", "", errParams
		}
		b.WriteByte(s[i])
	}
	return "", "", errParams // no closing quote
}

// cutToken takes a token (RFC 9110 section 5.6.2) off the front of s; "" if there is none.
func cutToken(s string) (token, rest string) {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

func isTokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
