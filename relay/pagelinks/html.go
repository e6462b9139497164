package pagelinks

import (
	"errors"
	"io"
	"net/url"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// maxToken bounds one tag, text or comment, in bytes: a page with a longer one is read no further.
const maxToken = 256 << 10

// HTML calls found with each link of a page at base, in the order in which they stand, while the page is
// read from r. It returns at the end of r, nil, or the error of reading. found is called by the same
// goroutine; a link that stands twice is found twice.
func HTML(r io.Reader, base *url.URL, found func(Link)) error {
	p := page{tokens: html.NewTokenizer(r), base: base, found: found}
	p.tokens.SetMaxBuf(maxToken)
	for {
		switch p.tokens.Next() {
		case html.ErrorToken:
			if err := p.tokens.Err(); !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		case html.StartTagToken, html.SelfClosingTagToken:
			p.start(p.tokens.Token())
		case html.EndTagToken:
			name, _ := p.tokens.TagName()
			p.end(atom.Lookup(name))
		case html.TextToken:
			if p.style && !p.inert() {
				CSS(p.tokens.Text(), p.base, p.found)
			}
		}
	}
}

// page is the state of reading one.
type page struct {
	tokens *html.Tokenizer
	base   *url.URL
	based  bool // by a <base>, of which only the first counts
	found  func(Link)

	style    bool // inside <style>
	noscript int  // inside so many of these, whose contents a browser does not open
	template int
	picture  int // inside <picture>, whose choice depends on the window
}

// inert reports whether a browser opens nothing of what stands here.
func (p *page) inert() bool { return p.noscript > 0 || p.template > 0 }

// depth returns the counter of an element that can be inside itself; nil: it is none of those.
func (p *page) depth(a atom.Atom) *int {
	switch a {
	case atom.Noscript:
		return &p.noscript
	case atom.Template:
		return &p.template
	case atom.Picture:
		return &p.picture
	}
	return nil
}

func (p *page) end(a atom.Atom) {
	if d := p.depth(a); d != nil && *d > 0 {
		*d--
	}
	if a == atom.Style {
		p.style = false
	}
}

func (p *page) start(t html.Token) {
	if d := p.depth(t.DataAtom); d != nil && t.Type == html.StartTagToken {
		*d++
	}
	if p.inert() {
		return
	}
	switch t.DataAtom {
	case atom.Base:
		p.rebase(attribute(t, "href"))
	case atom.Style:
		p.style = t.Type == html.StartTagToken && onScreen(attribute(t, "media"))
	case atom.Link:
		p.link(t)
	case atom.Script:
		p.script(t)
	case atom.Img:
		p.image(t)
	case atom.Input:
		if strings.EqualFold(attribute(t, "type"), "image") {
			p.find(t, attribute(t, "src"), Image)
		}
	case atom.Video:
		p.find(t, attribute(t, "poster"), Image)
	}
	if css := attribute(t, "style"); strings.Contains(css, "(") {
		CSS([]byte(css), p.base, p.found)
	}
}

// find tells of a link of an element. Modules and fonts are always shared between origins by the rules, all
// else if the element says so.
func (p *page) find(t html.Token, ref string, kind Kind) {
	cors := has(t, "crossorigin") || kind == Font || t.DataAtom == atom.Script && isModule(t)
	if l, ok := resolve(p.base, ref, kind, cors); ok {
		p.found(l)
	}
}

func isModule(t html.Token) bool {
	return strings.EqualFold(strings.TrimSpace(attribute(t, "type")), "module")
}

// rebase follows the page's <base>.
func (p *page) rebase(href string) {
	if p.based || href == "" {
		return
	}
	if u, err := p.base.Parse(strings.TrimSpace(href)); err == nil {
		p.base, p.based = u, true
	}
}

// link follows the relations that a browser opens by itself.
func (p *page) link(t html.Token) {
	if has(t, "disabled") || !onScreen(attribute(t, "media")) {
		return
	}
	href := attribute(t, "href")
	rels := strings.Fields(strings.ToLower(attribute(t, "rel")))
	for _, rel := range rels {
		switch rel {
		case "alternate":
			return // a stylesheet to choose, or the page in another form
		case "stylesheet":
			p.find(t, href, Style)
			return
		case "icon":
			p.find(t, href, Image)
			return
		case "modulepreload":
			if l, ok := resolve(p.base, href, Script, true); ok {
				p.found(l)
			}
			return
		case "preload":
			if !has(t, "imagesrcset") {
				p.find(t, href, preloaded(attribute(t, "as")))
			}
			return
		}
	}
}

// preloaded is the kind for an "as" of a preload.
func preloaded(as string) Kind {
	switch strings.ToLower(as) {
	case "style":
		return Style
	case "script":
		return Script
	case "image":
		return Image
	case "font":
		return Font
	default:
		return Other
	}
}

// script follows scripts that run: not those for browsers without modules, and not data in a script's form.
func (p *page) script(t html.Token) {
	if has(t, "nomodule") {
		return
	}
	switch kind := strings.ToLower(strings.TrimSpace(attribute(t, "type"))); {
	case kind == "", kind == "module", strings.HasSuffix(kind, "/javascript"), strings.HasSuffix(kind, "/ecmascript"), strings.HasSuffix(kind, "/x-javascript"):
		p.find(t, attribute(t, "src"), Script)
	}
}

// image follows an image that does not wait to be scrolled to, and has no forms to choose from but by
// resolution, of which the first is taken: the screen is taken for an ordinary one.
func (p *page) image(t html.Token) {
	if p.picture > 0 || strings.EqualFold(attribute(t, "loading"), "lazy") {
		return
	}
	src := attribute(t, "src")
	if set := attribute(t, "srcset"); set != "" {
		ordinary, ok := plainest(set)
		if !ok {
			return
		}
		if ordinary != "" {
			src = ordinary
		}
	}
	p.find(t, src, Image)
}

// plainest returns the candidate of a srcset for a resolution of one, "" if there is none; ok is false if the
// candidates go by width.
func plainest(srcset string) (ref string, ok bool) {
	for candidate := range strings.SplitSeq(srcset, ", ") {
		fields := strings.Fields(strings.Trim(candidate, ", \t\n"))
		switch {
		case len(fields) == 0:
		case len(fields) == 1 || fields[1] == "1x":
			ref = fields[0]
		case !strings.HasSuffix(fields[1], "x"):
			return "", false
		}
	}
	return ref, true
}

// onScreen reports whether a media query may hold for a screen of any size.
func onScreen(media string) bool {
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "" || media == "all" || media == "screen" || strings.HasPrefix(media, "screen,") || strings.HasPrefix(media, "all,")
}

func attribute(t html.Token, name string) string {
	for _, a := range t.Attr {
		if a.Key == name && a.Namespace == "" {
			return a.Val
		}
	}
	return ""
}

func has(t html.Token, name string) bool {
	for _, a := range t.Attr {
		if a.Key == name && a.Namespace == "" {
			return true
		}
	}
	return false
}
