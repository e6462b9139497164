package pagelinks

import (
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tdewolff/parse/v2"
	"github.com/tdewolff/parse/v2/css"
)

// CSS calls found with each link of a stylesheet at base, or of a style attribute. What is wrong in it is
// left out, as browsers do. It changes nothing of sheet and keeps nothing.
func CSS(sheet []byte, base *url.URL, found func(Link)) {
	s := styles{lexer: css.NewLexer(parse.NewInputString(string(sheet))), base: base, found: found}
	for s.next() && len(s.rules) <= maxBlocks {
		s.token()
	}
}

// maxBlocks is how deep blocks may stand in one another. A stylesheet with more is read no further.
const maxBlocks = 64

// styles is the state of reading a stylesheet.
type styles struct {
	lexer *css.Lexer
	base  *url.URL
	found func(Link)

	kind   css.TokenType // the token at hand
	text   string
	unread bool // it is to be seen again

	rules []rule // the blocks that are open
	at    string // the at-rule whose head is being read, in lower case
	head  strings.Builder
	where string // the property whose value is being read, in lower case
	face  face
}

// rule is an open block.
type rule struct {
	at   string // the at-rule it belongs to; "" is a style rule's
	skip bool   // of a medium that is no screen, or of unknown size
}

// face is what a @font-face has said so far.
type face struct {
	first, last, woff2 string // links of its source: the one to take if none is WOFF2, the one just read, WOFF2
	foreign            bool   // it is for other letters than those of Latin
}

func (s *styles) next() bool {
	if s.unread {
		s.unread = false
		return s.kind != css.ErrorToken
	}
	kind, text := s.lexer.Next()
	s.kind, s.text = kind, string(text)
	return kind != css.ErrorToken
}

func (s *styles) token() {
	switch s.kind {
	case css.AtKeywordToken:
		s.at, s.where = strings.ToLower(s.text), ""
		s.head.Reset()
	case css.LeftBraceToken:
		s.open()
	case css.RightBraceToken:
		s.close()
	case css.SemicolonToken:
		s.at, s.where = "", ""
	case css.IdentToken:
		s.ident()
	case css.UnicodeRangeToken:
		s.letters()
	case css.URLToken:
		s.link(inURL(s.text))
	case css.StringToken:
		if s.at == "@import" {
			s.link(unquoted(s.text))
		}
	case css.FunctionToken:
		s.function()
	}
	if s.at != "" && s.kind != css.AtKeywordToken && s.head.Len() < maxURL {
		s.head.WriteString(s.text)
	}
}

// ident may be the name of a property: what stands before a colon. Selectors have colons, too, but no links.
func (s *styles) ident() {
	if s.at == "" && s.where == "" {
		s.where = strings.ToLower(s.text)
	}
}

// function reads url("...") and the format of a font; of all others only the arguments matter.
func (s *styles) function() {
	name := strings.ToLower(s.text)
	if name != "url(" && name != "src(" && name != "format(" {
		return
	}
	for s.next() && s.kind == css.WhitespaceToken {
	}
	switch {
	case s.kind != css.StringToken:
		s.unread = true // a bracket, an end: whatever it is
	case name == "format(":
		s.format(unquoted(s.text))
	default:
		s.link(unquoted(s.text))
	}
}

func (s *styles) open() {
	outer := rule{}
	if n := len(s.rules); n > 0 {
		outer = s.rules[n-1]
	}
	r := rule{at: s.at, skip: outer.skip}
	if s.at == "@media" && !onScreen(s.head.String()) {
		r.skip = true
	}
	if s.at == "@font-face" {
		s.face = face{}
	}
	s.rules = append(s.rules, r)
	s.at, s.where = "", ""
}

func (s *styles) close() {
	n := len(s.rules)
	if n == 0 {
		return
	}
	last := s.rules[n-1]
	s.rules = s.rules[:n-1]
	s.at, s.where = "", ""
	if last.at != "@font-face" || last.skip || s.face.foreign {
		return
	}
	ref := s.face.first
	if s.face.woff2 != "" {
		ref = s.face.woff2
	}
	s.find(ref, Font)
}

// link is told of each url().
func (s *styles) link(ref string) {
	var in rule
	if n := len(s.rules); n > 0 {
		in = s.rules[n-1]
	}
	switch {
	case in.skip:
	case s.at == "@import":
		s.find(ref, Style)
		s.at = "@import " // what follows are its conditions
	case s.at != "":
		// a name space, a document's address: nothing to open
	case in.at == "@font-face":
		if s.where == "src" {
			s.face.source(ref)
		}
	case s.image():
		s.find(ref, Image)
	}
}

// image reports whether the property at hand shows images.
func (s *styles) image() bool {
	for _, p := range [...]string{"background", "background-image", "border-image", "border-image-source", "list-style", "list-style-image", "content", "mask", "mask-image"} {
		if s.where == p {
			return true
		}
	}
	return false
}

// format says what form the link before it has.
func (s *styles) format(name string) {
	if name == "woff2" && s.face.woff2 == "" && s.where == "src" {
		s.face.woff2 = s.face.last
	}
}

// source notes a link of the face.
func (f *face) source(ref string) {
	if f.last = ref; f.first == "" {
		f.first = ref
	}
	if f.woff2 == "" && strings.HasSuffix(ref, ".woff2") {
		f.woff2 = ref
	}
}

// letters reads one part of a unicode-range: a face without the letter "a" is for other scripts.
func (s *styles) letters() {
	low, high, _ := strings.Cut(s.text[2:], "-")
	if high == "" {
		high = strings.ReplaceAll(low, "?", "f")
	}
	from, err1 := strconv.ParseUint(strings.ReplaceAll(low, "?", "0"), 16, 32)
	to, err2 := strconv.ParseUint(high, 16, 32)
	if err1 == nil && err2 == nil && s.where == "unicode-range" {
		if from <= 'a' && 'a' <= to {
			s.face.foreign = false
			s.where = "" // it is for us, whatever else it has
		} else {
			s.face.foreign = true
		}
	}
}

func (s *styles) find(ref string, kind Kind) {
	if l, ok := resolve(s.base, ref, kind, kind == Font); ok {
		s.found(l)
	}
}

// inURL returns what stands in url(...) without quotes.
func inURL(text string) string {
	_, ref, _ := strings.Cut(text, "(")
	ref = strings.Trim(strings.TrimSuffix(ref, ")"), " \t\r\n\f")
	if len(ref) > 1 && (ref[0] == '"' || ref[0] == '\'') {
		return unquoted(ref)
	}
	return unescaped(ref)
}

func unquoted(text string) string {
	if len(text) < 2 || text[0] != text[len(text)-1] {
		return ""
	}
	return unescaped(text[1 : len(text)-1])
}

// unescaped resolves the escapes of CSS (CSS Syntax 3, section 4.3.7).
func unescaped(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			i++
			continue
		}
		i++
		digits := 0
		for digits < 6 && i+digits < len(s) && isHex(s[i+digits]) {
			digits++
		}
		switch {
		case digits > 0:
			code, _ := strconv.ParseUint(s[i:i+digits], 16, 32)
			b.WriteRune(rune(min(code, utf8.MaxRune)))
			if i += digits; i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n') {
				i++
			}
		case i < len(s) && s[i] == '\n':
			i++ // a line that goes on
		case i < len(s):
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
