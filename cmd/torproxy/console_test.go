//go:build clients

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// This file uses the console as a person does, in a real browser. What it looked like is kept by
// mkdir -p artifacts && .ci/test -artifacts -outputdir artifacts -run TestConsole

// tab is one of a running Chromium whose every request but those to the console goes through the proxy.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func startTab(t *testing.T, p program) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, chromedp.ProxyServer("http://"+p.http), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("proxy-bypass-list", "<-loopback>;"+p.http), chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true), chromedp.WindowSize(1100, 900))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("chromium does not start (.ci/test installs it): %v", err)
	}
	return &tab{t, ctx}
}

// do runs steps, which must be done within a while.
func (b *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.shoot("failed.png")
		b.t.Fatalf("%s: %v", what, err)
	}
}

// await waits until a JavaScript expression is true.
func (b *tab) await(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(100*time.Millisecond))); err != nil {
		b.shoot("failed.png")
		b.t.Fatalf("%s: %v: %s", what, err, expression)
	}
}

// value is that of a JavaScript expression.
func value[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// shoot keeps what the page looks like.
func (b *tab) shoot(name string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(b.t.ArtifactDir(), name), png, 0o644)
	}
	if err != nil {
		b.t.Errorf("%s: %v", name, err)
	}
}

// circuits of the console that carry a stream to a site, as a list of IDs.
const circuitsTo = `[...document.querySelectorAll('#circuit-list > li')].filter(li => li.querySelector('.streams').textContent.includes(%q)).map(li => li.dataset.key).join()`

// visited is a site that tells who comes.
type visited struct {
	*httptest.Server
	arrived chan struct{} // at /, where the answer does not end
	opened  chan string   // at /opened, to which /asks refers
}

func startVisited(t *testing.T) *visited {
	v := &visited{arrived: make(chan struct{}, 10), opened: make(chan string, 10)}
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

func (v *visited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	switch r.URL.Path {
	case "/asks":
		w.Header().Set("Refresh", "0; url=/opened?for=you")
	case "/opened":
		v.opened <- r.RequestURI
	}
	io.WriteString(w, "<title>a site</title><p>good day")
	w.(http.Flusher).Flush()
	if r.URL.Path == "/" {
		v.arrived <- struct{}{}
		<-r.Context().Done()
	}
}

// TestConsole uses every part of the console, one behind the other.
func TestConsole(t *testing.T) {
	site := startVisited(t)
	p := startProgram(t, build(t), "--hops", "3", "--browser", headless(t, "chromium", "--headless", "--no-sandbox"))
	b := startTab(t, p)
	b.do("a page through the proxy", chromedp.Navigate(site.URL+"/page"))
	if got := value[string](b, "document.body.textContent"); !strings.Contains(got, "good day") {
		t.Fatalf("the page is %q", got)
	}
	b.do("the console", chromedp.Navigate("http://"+p.http+"/"))
	b.await("ready", `document.getElementById('state').textContent === 'ready'`)
	b.await("twelve relays", `document.querySelectorAll('#relay-list tr').length === 12`)
	b.useCircuits(site, p)
	b.useRelays()
	b.useLinks(site, p)
	b.useKeyboard()
	b.wantNames()
	b.shoot("light.png")
	b.prefer("dark")
	b.shoot("dark.png")
	b.do("a phone", chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2)))
	if wide := value[int](b, `document.documentElement.scrollWidth`); wide > 390 {
		t.Errorf("the page is %d wide on a phone of 390", wide)
	}
	b.shoot("phone.png")
}

// useCircuits sees a circuit appear, another after a new identity, and what became of connections; and closes one.
func (b *tab) useCircuits(site *visited, p program) {
	b.t.Helper()
	host := strings.TrimPrefix(site.URL, "http://")
	open := func() {
		go func() {
			ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
			defer cancel()
			fetchThrough(ctx, p.http, site.URL+"/")
		}()
		<-site.arrived
	}
	open()
	b.await("its circuit", fmt.Sprintf(circuitsTo+" !== ''", host))
	b.await("and in the picture", `document.querySelector('#picture .circuit.busy') !== null`)
	first := value[string](b, fmt.Sprintf(circuitsTo, host))
	b.shoot("circuit.png")

	b.do("what became of it", chromedp.SendKeys("#why-host", "127.0.0.1"+kb.Enter))
	b.await("the steps", `document.querySelectorAll('#why-list .steps tr').length > 0`)
	b.do("new identity", chromedp.Click("#newnym"))
	b.await("told so", `document.getElementById('said').textContent.startsWith('New identity')`)
	b.await("what was shown is forgotten", `document.querySelectorAll('#why-list > li').length === 0`)
	open()
	b.await("another circuit", fmt.Sprintf(circuitsTo+".split(',').some(id => id !== %q)", host, first))

	b.do("what became of that", chromedp.SendKeys("#why-host", kb.Enter))
	b.await("its steps", `document.querySelectorAll('#why-list .steps tr').length > 0`)

	closed := value[string](b, `document.querySelector('#circuit-list > li').dataset.key`)
	b.do("close a circuit", chromedp.Click(`#circuit-list > li button`))
	b.await("it is gone", fmt.Sprintf(`document.querySelector('#circuit-list > li[data-key="%s"]') === null`, closed))
}

// useRelays stops a relay, starts it again, and adds one; the picture follows.
func (b *tab) useRelays() {
	b.t.Helper()
	says := func(relay, what string) string {
		return fmt.Sprintf(`document.querySelector('#relay-list tr[data-key="%s"] .running').textContent === '%s'`, relay, what)
	}
	relay := value[string](b, `document.querySelector('#relay-list tr').dataset.key`)
	b.do("stop a relay", chromedp.Click(`#relay-list tr button`))
	b.await("it is stopped", says(relay, "stopped"))
	b.await("also in the picture", `document.querySelector('#picture .relay.down') !== null`)
	b.shoot("stopped.png")
	b.do("start it again", chromedp.Click(`#relay-list tr button`))
	b.await("it runs", says(relay, "running"))
	b.do("one more", chromedp.Click("#add-relay"))
	b.await("thirteen relays", `document.querySelectorAll('#relay-list tr').length === 13`)
}

// useLinks lets a reply ask for a page, and opens it.
func (b *tab) useLinks(site *visited, p program) {
	b.t.Helper()
	if err := fetchThrough(b.t.Context(), p.http, site.URL+"/asks"); err != nil {
		b.t.Fatal(err)
	}
	b.await("the reply's wish", `!document.getElementById('links').hidden`)
	b.await("told of it", `document.getElementById('said').textContent.includes('asks to open')`)
	if got, want := value[string](b, `document.querySelector('#link-list .url').textContent`), site.URL+"/opened?for=you"; got != want {
		b.t.Errorf("the console asks for %q, want %q", got, want)
	}
	b.shoot("link.png")
	b.do("yes", chromedp.Click("#link-list button"))
	select {
	case got := <-site.opened:
		if got != "/opened?for=you" {
			b.t.Errorf("the browser opened %q", got)
		}
	case <-time.After(time.Minute):
		b.t.Error("no browser opened the link")
	}
	b.await("it is answered", `document.getElementById("said").textContent.startsWith("A browser has opened") && document.getElementById("links").hidden`)
}

// useKeyboard gets to the button for a new identity by Tab and presses it by Enter, as who has no mouse does.
func (b *tab) useKeyboard() {
	b.t.Helper()
	b.do("the top", chromedp.Reload())
	b.await("ready", `document.querySelectorAll('#relay-list tr').length > 0`)
	const focused = `document.activeElement.id`
	for range 5 {
		b.do("Tab", chromedp.KeyEvent(kb.Tab))
		if value[string](b, focused) == "newnym" {
			break
		}
	}
	b.do("Enter", chromedp.KeyEvent(kb.Enter))
	b.await("a new identity", `document.getElementById('said').textContent.startsWith('New identity')`)
	if at := value[string](b, focused); at != "newnym" {
		b.t.Errorf("the focus is at %q afterwards", at)
	}
}

// wantNames checks that who hears the page is told what each control, and each part that scrolls, is for.
func (b *tab) wantNames() {
	b.t.Helper()
	b.do("everything unfolded", chromedp.Evaluate[chromedp.Void](`document.querySelectorAll('details').forEach(d => d.open = true)`))
	tree, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	found := map[string]int{}
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil {
			continue
		}
		role := strings.Trim(string(n.Role.Value), `"`)
		found[role]++
		switch role {
		case "button", "textbox", "searchbox", "region", "image", "link", "meter":
			if n.Name == nil || strings.Trim(string(n.Name.Value), `" `) == "" {
				b.t.Errorf("a %s has no name", role)
			}
		}
	}
	if found["button"] < 15 || found["region"] < 5 || found["searchbox"] != 1 {
		b.t.Errorf("the page has %v", found)
	}
}

// prefer makes the browser prefer a colour scheme.
func (b *tab) prefer(scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestConsoleTellsOfFailure answers a link for which no browser can be started: the console says so, and why.
func TestConsoleTellsOfFailure(t *testing.T) {
	site := startVisited(t)
	broken := filepath.Join(t.TempDir(), "chromium")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho it is broken >&2\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, build(t), "--browser", broken)
	b := startTab(t, p)
	b.do("the console", chromedp.Navigate("http://"+p.http+"/"))
	if err := fetchThrough(t.Context(), p.http, site.URL+"/asks"); err != nil {
		t.Fatal(err)
	}
	b.await("the reply's wish", `!document.getElementById('links').hidden`)
	b.do("yes", chromedp.Click("#link-list button"))
	b.await("it is listed still", `document.querySelector('#link-list .outcome').textContent.includes('it is broken')`)
	b.await("and said", `document.querySelector('#said.bad').textContent.includes('was not opened')`)
	if value[bool](b, `document.querySelector('#link-list .row').checkVisibility()`) {
		t.Error("it can be answered again")
	}
	b.shoot("failed-link.png")
}

// fetchThrough gets a page through an HTTP proxy and reads it until ctx ends.
func fetchThrough(ctx context.Context, proxy, page string) error {
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy})}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, "GET", page, nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}
