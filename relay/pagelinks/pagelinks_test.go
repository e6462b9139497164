package pagelinks

import (
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

var base, _ = url.Parse("http://site.test/dir/page.html?q=1")

// links are what was found, as "kind URL", with "cors" where it is so but for fonts, which always are.
type links []string

func (l *links) found(k Link) {
	text := k.Kind.String() + " " + k.URL.String()
	if k.CORS && k.Kind != Font {
		text += " cors"
	}
	*l = append(*l, text)
}

func TestHTML(t *testing.T) {
	for _, c := range []struct {
		name, page string
		want       links
	}{
		{"nothing", "<p>good day", nil},
		{"stylesheet", `<link rel=stylesheet href=a.css>`, links{"style http://site.test/dir/a.css"}},
		{"in capitals", `<LINK REL="StyleSheet" HREF="/a.css">`, links{"style http://site.test/a.css"}},
		{"for print", `<link rel=stylesheet media=print href=a.css>`, nil},
		{"for screens", `<link rel=stylesheet media="screen" href=a.css>`, links{"style http://site.test/dir/a.css"}},
		{"of unknown size", `<link rel=stylesheet media="(max-width: 600px)" href=a.css>`, nil},
		{"to choose", `<link rel="alternate stylesheet" href=a.css>`, nil},
		{"disabled", `<link rel=stylesheet disabled href=a.css>`, nil},
		{"icon", `<link rel="shortcut icon" href=/favicon.ico>`, links{"image http://site.test/favicon.ico"}},
		{"not opened by itself", `<link rel=next href=2.html><link rel=prefetch href=b><link rel=canonical href=c>`, nil},
		{"preload", `<link rel=preload as=font href=f.woff2><link rel=preload as=fetch href=d.json>`,
			links{"font http://site.test/dir/f.woff2", "other http://site.test/dir/d.json"}},
		{"preload by size", `<link rel=preload as=image href=i.png imagesrcset="i.png 100w">`, nil},
		{"module", `<link rel=modulepreload href=m.js><script type=module src=n.js></script>`,
			links{"script http://site.test/dir/m.js cors", "script http://site.test/dir/n.js cors"}},
		{"crossorigin", `<script crossorigin src=s.js></script><img crossorigin=anonymous src=i.png><link rel=stylesheet href=a.css crossorigin>`,
			links{"script http://site.test/dir/s.js cors", "image http://site.test/dir/i.png cors", "style http://site.test/dir/a.css cors"}},
		{"script", `<script src="s.js?a=1&amp;b=2"></script>`, links{"script http://site.test/dir/s.js?a=1&b=2"}},
		{"script of old browsers", `<script nomodule src=s.js></script>`, nil},
		{"data in a script", `<script type="text/template" src=s.js></script><script type="application/json" src=d></script>`, nil},
		{"links inside a script", `<script>var x = '<img src=no.png>'</script><img src=yes.png>`, links{"image http://site.test/dir/yes.png"}},
		{"image", `<img src=//cdn.test/i.png#top>`, links{"image http://cdn.test/i.png"}},
		{"image further down", `<img loading=lazy src=i.png>`, nil},
		{"image by resolution", `<img src=old.png srcset="i2.png 2x, i1.png 1x">`, links{"image http://site.test/dir/i1.png"}},
		{"image by width", `<img src=i.png srcset="a.png 100w, b.png 200w">`, nil},
		{"picture", `<picture><source srcset=a.webp><img src=a.png></picture><img src=b.png>`, links{"image http://site.test/dir/b.png"}},
		{"poster and button", `<video poster=p.jpg src=v.mp4></video><input type=image src=b.png><input src=c>`,
			links{"image http://site.test/dir/p.jpg", "image http://site.test/dir/b.png"}},
		{"noscript", `<noscript><img src=a.png><noscript></noscript><img src=b.png>`, links{"image http://site.test/dir/b.png"}}, // it does not nest: it is text
		{"template", `<template><img src=a.png></template><img src=c.png>`, links{"image http://site.test/dir/c.png"}},
		{"comment", `<!-- <img src=a.png> --><img src=c.png>`, links{"image http://site.test/dir/c.png"}},
		{"base", `<base href="http://other.test/x/"><base href=/y/><img src=c.png>`, links{"image http://other.test/x/c.png"}},
		{"base of a mailbox", `<base href="mailto:a@b"><img src=c.png>`, nil},
		{"other schemes", `<img src="https://site.test/i.png"><img src="data:image/png;base64,AA"><img src="javascript:x"><img src="">`, nil},
		{"with a name", `<img src="http://user:pw@site.test/i.png">`, nil},
		{"an anchor", `<img src="#a">`, nil},
		{"odd letters", `<img src="/ä b?q=ä 'b'&amp;c=%zz|">`, links{"image http://site.test/%C3%A4%20b?q=%C3%A4%20%27b%27&c=%zz|"}},
		{"a host in capitals", `<img src="HTTP://Site.TEST:80/A">`, links{"image http://site.test/A"}},
		{"broken over lines", "<img src=\"i\n.png\">", links{"image http://site.test/dir/i.png"}},
		{"style", `<style>@import "a.css"; body{background:url(b.png)}</style>`, links{"style http://site.test/dir/a.css", "image http://site.test/dir/b.png"}},
		{"style for print", `<style media=print>body{background:url(b.png)}</style><p>`, nil},
		{"style attribute", `<p style="background-image:url('b.png')">`, links{"image http://site.test/dir/b.png"}},
		{"cut short", `<img src=a.png><img src=b.p`, links{"image http://site.test/dir/a.png"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got links
			if err := HTML(iotest.OneByteReader(strings.NewReader(c.page)), base, got.found); err != nil {
				t.Error(err)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// No page makes a browser speak to a mail server, nor an exit.
func TestBlockedPorts(t *testing.T) {
	for host, ok := range map[string]bool{
		"site.test": true, "site.test:": true, "site.test:80": true, "site.test:81": true, "site.test:8080": true, "[2001:db8::1]:443": true, "site.test:65535": true,
		"site.test:25": false, "site.test:025": false, "[2001:db8::1]:25": false, "site.test:0": false, "site.test:22": false, "site.test:6667": false, "site.test:10080": false,
		"site.test:65536": false, "site.test:65561": false,
	} {
		var got links
		HTML(strings.NewReader(`<img src="http://`+host+`/a.png">`), base, got.found)
		if (len(got) == 1) != ok {
			t.Errorf("%s: found %q", host, got)
		}
	}
	if !slices.IsSorted(blocked) {
		t.Error("the ports are not in order")
	}
}

// A link is told of as soon as it has been read, and a page's error is returned.
func TestHTMLStreams(t *testing.T) {
	r, w := io.Pipe()
	found, broken := make(chan Link, 1), errors.New("the page broke off")
	done := make(chan error, 1)
	go func() { done <- HTML(r, base, func(l Link) { found <- l }) }()
	io.WriteString(w, "<img src=a.png> and then")
	if l := <-found; l.URL.Path != "/dir/a.png" {
		t.Errorf("found %v", l.URL)
	}
	w.CloseWithError(broken)
	if err := <-done; !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

func TestHTMLBounds(t *testing.T) {
	if err := HTML(strings.NewReader("<p "+strings.Repeat("a", maxToken+1)+">"), base, func(Link) {}); err == nil {
		t.Error("a tag without an end is read")
	}
	var got links
	HTML(strings.NewReader(`<img src="/`+strings.Repeat("a", maxURL)+`">`), base, got.found)
	if len(got) != 0 {
		t.Error("a link without an end is followed")
	}
}

func TestCSS(t *testing.T) {
	for _, c := range []struct {
		name, sheet string
		want        links
	}{
		{"import", `@import url(a.css); @import "b.css" screen; @import url("c.css") layer(x);`,
			links{"style http://site.test/dir/a.css", "style http://site.test/dir/b.css", "style http://site.test/dir/c.css"}},
		{"image", `a:hover, p[title="url(no)"] { color: red; background: #fff url( 'a.png' ) no-repeat, url(b.png) }`,
			links{"image http://site.test/dir/a.png", "image http://site.test/dir/b.png"}},
		{"in capitals", `P{BACKGROUND-IMAGE:URL(a.png)}`, links{"image http://site.test/dir/a.png"}},
		{"escaped", `p{background:url(a\28 1\29.png)}q{background:url("a\
b.png")}`, links{"image http://site.test/dir/a(1).png", "image http://site.test/dir/ab.png"}},
		{"not opened", `@namespace url(http://www.w3.org/1999/xhtml); p{cursor:url(c.cur);filter:url(f.svg);--x:url(y.png)}`, nil},
		{"comment", `/* url(a.png) */ p{/* background: */background:url(b.png)}`, links{"image http://site.test/dir/b.png"}},
		{"print", `@media print{p{background:url(a.png)}} p{background:url(b.png)}`, links{"image http://site.test/dir/b.png"}},
		{"of unknown size", `@media screen and (min-width:9px){p{background:url(a.png)}}`, nil},
		{"screen", `@media screen{p{background:url(a.png)}}`, links{"image http://site.test/dir/a.png"}},
		{"supports", `@supports (display:grid){p{background:url(a.png)}}`, links{"image http://site.test/dir/a.png"}},
		{"font", `@font-face{font-family:F;src:url(a.eot);src:url(a.woff) format("woff"),url(b) format('woff2'),url(c.ttf)}`, links{"font http://site.test/dir/b"}},
		{"font by its name", `@font-face{src:url(a.woff),url(a.woff2)}`, links{"font http://site.test/dir/a.woff2"}},
		{"font of one form", `@font-face{src:local("F"),url(a.ttf)}`, links{"font http://site.test/dir/a.ttf"}},
		{"font of other letters", `@font-face{src:url(a.woff2);unicode-range:U+0400-04FF, U+25??}`, nil},
		{"font of ours", `@font-face{src:url(a.woff2);unicode-range:U+0000-00FF, U+0131}`, links{"font http://site.test/dir/a.woff2"}},
		{"broken", `}}} p{background:url(a.png} q{background:url("b.png) ; @import`, nil},
		{"declarations alone", `color:red;background:url(a.png)`, links{"image http://site.test/dir/a.png"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got links
			CSS([]byte(c.sheet), base, got.found)
			if !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// check holds a found link against what callers rely on.
func check(t *testing.T, l Link) {
	if target := l.URL.RequestURI(); strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		t.Errorf("found %q, which is no request target", target)
	}
	if u := l.URL; u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" || l.Kind < Style || l.Kind > Other {
		t.Errorf("found %v %q", l.Kind, u)
	}
}

// What a stylesheet nests without end takes no memory, and what is nested too deep is read no further.
func TestCSSDepth(t *testing.T) {
	for _, deep := range []string{"src(", "url(", "format(", "{", "@media{", "url(url(", "src(format("} {
		var got links
		CSS([]byte("p{background:url(a.png)}"+strings.Repeat(deep, 1<<20/len(deep))), base, got.found)
		if !slices.Equal(got, links{"image http://site.test/dir/a.png"}) {
			t.Errorf("%q: found %q", deep, got)
		}
		if n := testing.AllocsPerRun(1, func() { CSS([]byte(strings.Repeat("{", 1<<16)), base, func(Link) {}) }); n > 1000 {
			t.Errorf("%.0f allocations for blocks that are read no further", n)
		}
	}
}

func FuzzHTML(f *testing.F) {
	f.Add([]byte(`<base href=/x/><img src=a srcset="b 1x, c 2x"><style>@import "d"</style><noscript><link rel=icon href=e>`))
	f.Add([]byte(`<picture><template><script src=//h/s></script></template><p style="background:url(\41)">`))
	f.Fuzz(func(t *testing.T, page []byte) {
		HTML(strings.NewReader(string(page)), base, func(l Link) { check(t, l) })
	})
}

func FuzzCSS(f *testing.F) {
	f.Add([]byte(`@import url("a");@media print{p{background:url(b)}}@font-face{src:url(c) format("woff2");unicode-range:U+4??}`))
	f.Add([]byte(`url(\ffffff);url('`))
	f.Fuzz(func(t *testing.T, sheet []byte) {
		CSS(sheet, base, func(l Link) { check(t, l) })
	})
}
