package echo

import (
	"maps"
	"strings"
	"testing"
)

func TestParseParams(t *testing.T) {
	for in, want := range map[string]map[string]string{
		"":                               {},
		" , ,":                           {},
		`a=b`:                            {"a": "b"},
		`A = "b c" ,, d="e\"f\\", g=h\t`: nil,
		`A = "b c" ,, d="e\"f\\", g=h	`:  {"a": "b c", "d": `e"f\`, "g": "h"},
		`username="ann", uri="/a,b=c"`:   {"username": "ann", "uri": "/a,b=c"},
		`a=b c=d`:                        nil,
		`a="b`:                           nil,
		`a="b\`:                          nil,
		`a`:                              nil,
		`a=`:                             nil,
		`=b`:                             nil,
		`a="b"c`:                         nil,
		`a=b, A=c`:                       nil,
		"a=\"b\nc\"":                     nil,
		"a=\x00":                         nil,
	} {
		got, err := parseParams(in)
		if (err != nil) != (want == nil) || !maps.Equal(got, want) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// FuzzParseResponse reads any header without harm, and whatever it takes has the shape that the checks rely
// on. Parameters that are written down again are read again as the same.
func FuzzParseResponse(f *testing.F) {
	f.Add(`Digest username="ann", realm="torproxy echo", nonce="n", uri="/secret", algorithm=SHA-256, cnonce="c", qop=auth, nc=00000001, response="` + strings.Repeat("0", 64) + `"`)
	f.Add(`Digest a="\"", b=c,,`)
	f.Add("Da=\" b\\\x00c,=b  \",")
	f.Add("Basic YW5uOnB3")
	f.Fuzz(func(t *testing.T, header string) {
		if r, err := parseResponse(header); err == nil {
			if r.count == 0 || r.user == "" || len(r.user) > maxUser || r.cnonce == "" || len(r.nc) != 8 {
				t.Errorf("%q gives %+v", header, r)
			}
		}
		params, err := parseParams(header)
		if err != nil {
			return
		}
		var again []string
		for name, value := range params {
			again = append(again, name+`="`+strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(value)+`"`)
		}
		if got, err := parseParams(strings.Join(again, ", ")); err != nil || !maps.Equal(got, params) {
			t.Errorf("%q gives %q, and that %q, %v", header, params, got, err)
		}
	})
}
