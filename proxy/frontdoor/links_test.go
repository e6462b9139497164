package frontdoor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// parseAny takes every http:// link as it is.
func parseAny(raw string) (url, host string, err error) {
	if rest, ok := strings.CutPrefix(raw, "http://"); ok {
		host, _, _ = strings.Cut(rest, "/")
		return raw, host, nil
	}
	return "", "", errors.New("no http:// link")
}

// states tells what has become of the links, oldest first.
func states(l *links) (s []string) {
	for _, k := range l.all() {
		s = append(s, k.ID+" "+k.URL+" "+string(k.State)+" "+k.Error)
	}
	return s
}

func wantLinks(t *testing.T, l *links, want ...string) {
	t.Helper()
	if got := states(l); !slices.Equal(got, want) {
		t.Errorf("links %q, want %q", got, want)
	}
}

func TestLinksAreAskedFor(t *testing.T) {
	opened := make(chan string, 4)
	var told []string
	l := newLinks(&Config{ParseLink: parseAny,
		Open:      func(_ context.Context, url string) error { opened <- url; return nil },
		LinkAsked: func(k Link) { told = append(told, k.ID+" "+k.From) },
	})
	defer l.serve(t.Context())()
	for _, url := range []string{"http://a.test/", "http://b.test/", "http://a.test/", "ftp://c.test/"} {
		if err := l.ask(url, "from.test:80"); (err != nil) != strings.HasPrefix(url, "ftp") {
			t.Errorf("%s: %v", url, err)
		}
	}
	wantLinks(t, l, "1 http://a.test/ waiting ", "2 http://b.test/ waiting ")
	if !slices.Equal(told, []string{"1 from.test:80", "2 from.test:80"}) {
		t.Errorf("told of %q", told)
	}
	changed := l.watch()
	for id, want := range map[string]error{"1": nil, "9": ErrNoLink} {
		if err := l.answer(id, true); err != want {
			t.Errorf("answer %s: %v", id, err)
		}
	}
	if err := l.answer("2", false); err != nil {
		t.Error(err)
	}
	if url := <-opened; url != "http://a.test/" {
		t.Errorf("opened %s", url)
	}
	<-changed
	l.openings.Wait()
	wantLinks(t, l, "1 http://a.test/ opened ", "2 http://b.test/ refused ")
	if err := l.answer("2", true); err != ErrNoLink {
		t.Errorf("a refused link: %v", err)
	}
	if len(opened) > 0 {
		t.Error("opened more than one")
	}
}

func TestLinksThatCannotBeOpened(t *testing.T) {
	l := newLinks(&Config{ParseLink: parseAny, Open: func(context.Context, string) error { return errors.New("no\nbrowser.") }})
	end := l.serve(t.Context())
	l.ask("http://a.test/", "")
	l.answer("1", true)
	l.openings.Wait()
	end()
	l.ask("http://b.test/", "")
	l.answer("2", true) // nobody waits for it any more
	wantLinks(t, l, "1 http://a.test/ failed no browser", "2 http://b.test/ failed there is no browser to open it with")
}

func TestLinksNever(t *testing.T) {
	l := newLinks(&Config{ParseLink: parseAny, OpenLinks: Never, LinkAsked: func(Link) { t.Error("asked") }})
	l.ask("http://a.test/", "")
	wantLinks(t, l)
}

// Always opens, but not more than a few at a time: the rest is asked for.
func TestLinksAlways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, asked := 0, 0
		l := newLinks(&Config{ParseLink: parseAny, OpenLinks: Always, LinkAsked: func(Link) { asked++ }})
		l.cfg.Open = func(context.Context, string) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			opened++
			return nil
		}
		defer l.serve(t.Context())()
		burst := func(from, to int) {
			for i := from; i < to; i++ {
				l.ask(fmt.Sprintf("http://a.test/%d", i), "")
			}
			synctest.Wait()
		}
		burst(0, 6)
		if opened != maxOpenings || asked != 6-maxOpenings {
			t.Errorf("%d opened, %d asked for", opened, asked)
		}
		<-time.After(openingSpan)
		burst(6, 8)
		if opened != maxOpenings+2 {
			t.Errorf("%d opened later", opened)
		}
	})
}

// A flood of links neither grows the list nor pushes out what waits.
func TestLinksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinks(&Config{ParseLink: parseAny, Open: func(context.Context, string) error { return nil }})
		defer l.serve(t.Context())()
		for round := range 5 {
			for i := range 100 {
				l.ask(fmt.Sprintf("http://a.test/%d/%d", round, i), "")
			}
			list := l.all()
			if n := len(list); n > maxWaiting+maxAnswered {
				t.Fatalf("%d links", n)
			}
			for _, k := range list {
				if i, _ := strings.CutPrefix(k.URL, fmt.Sprintf("http://a.test/%d/", round)); k.State == LinkWaiting && len(i) > 2 {
					t.Errorf("%s waits in round %d", k.URL, round)
				}
				l.answer(k.ID, round%2 == 0)
			}
			synctest.Wait()
		}
		l.ask("http://a.test/last", "")
		<-time.After(waitingTime)
		for _, k := range l.all() {
			if k.State == LinkWaiting {
				t.Errorf("%s waits for ever", k.URL)
			}
		}
	})
}

// Closing the front door waits for a link that is being opened, whose context has ended.
func TestLinksEnd(t *testing.T) {
	began, ended := make(chan struct{}), false
	l := newLinks(&Config{ParseLink: parseAny, Open: func(ctx context.Context, _ string) error {
		close(began)
		<-ctx.Done()
		ended = true
		return ctx.Err()
	}})
	end := l.serve(t.Context())
	l.ask("http://a.test/", "")
	l.answer("1", true)
	<-began
	l.renew()
	wantLinks(t, l)
	end()
	if !ended {
		t.Error("it was not waited for")
	}
}

func TestLinksOverTheAPI(t *testing.T) {
	opened := make(chan string, 1)
	f := start(t, func(c *Config) {
		c.ParseLink = parseAny
		c.Open = func(_ context.Context, url string) error { opened <- url; return nil }
	})
	for _, url := range []string{"http://a.test/?x", "http://b.test:1/"} {
		if err := f.front.links.ask(url, "from.test:80"); err != nil {
			t.Fatal(err)
		}
	}
	_, body := f.do("GET /api/links HTTP/1.1\nHost: SELF\n\n")
	var list []Link
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 2 || list[0].Asked.IsZero() {
		t.Fatalf("%q: %v", body, err)
	}
	list[1].Asked = Time{}
	if want := (Link{ID: "2", URL: "http://b.test:1/", Host: "b.test:1", From: "from.test:80", State: LinkWaiting}); list[1] != want {
		t.Errorf("%+v, want %+v", list[1], want)
	}
	post := func(id, body string) int {
		r, _ := f.do(fmt.Sprintf("POST /api/links/%s HTTP/1.1\nHost: SELF\nContent-Length: %d\n\n%s", id, len(body), body))
		return r.StatusCode
	}
	for _, body := range []string{"", "{}", "true", `{"open":1}`, `{"open":null}`, `{"open":tru`, strings.Repeat(" ", maxAnswer) + `{"open":true}`} {
		if status := post("1", body); status != 400 {
			t.Errorf("%.20q: %d", body, status)
		}
	}
	if status := post("3", `{"open":true}`); status != 404 {
		t.Errorf("no such link: %d", status)
	}
	if status := post("1", `{"open":true}`); status != 200 || <-opened != "http://a.test/?x" {
		t.Errorf("open: %d", status)
	}
	if err := f.front.AnswerLink("2", false); err != nil {
		t.Error(err)
	}
	if status := post("2", `{"open":true}`); status != 404 {
		t.Errorf("a refused link: %d", status)
	}
	f.do("POST /api/newnym HTTP/1.1\nHost: SELF\n\n")
	if list := f.front.Links(); len(list) != 0 {
		t.Errorf("after a new identity: %v", list)
	}
}
