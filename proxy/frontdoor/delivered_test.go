package frontdoor

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What the browser may have kept is not taken again, as long as it is fresh, and only of the page's own site.
func TestPushesThatTheBrowserHas(t *testing.T) {
	const sheet = "HTTP/1.1 200 OK\nContent-Length: 6\nCache-Control: max-age=60\n\npushed"
	push := func(r Request) {
		whole(r, pushedRequest+sheet)
		whole(r, strings.ReplaceAll(pushedRequest, "page.test", "cdn.test")+sheet)
	}
	withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		const fromPage = "Referer: http://page.test/\n"
		load := func(known int64) {
			t.Helper()
			b.page()
			synctest.Wait()
			if s := server.Stats(); s.PushesKnown != known {
				t.Errorf("%d pushes were known, want %d", s.PushesKnown, known)
			}
		}
		load(0)
		for _, host := range []string{"page.test", "cdn.test"} {
			if got := b.get("http://"+host+"/a", fromPage); got != "pushed" {
				t.Errorf("%s: %q", host, got)
			}
		}
		load(1) // that of page.test; whether the other site was visited is not told
		if got := b.get("http://page.test/a", fromPage); got != "itself" {
			t.Errorf("asked for all the same: %q", got)
		}
		<-time.After(time.Minute)
		load(1)
		if got := b.get("http://page.test/a", fromPage); got != "pushed" {
			t.Errorf("when it was old: %q", got)
		}
		newIdentity(p)
		load(1)
		b.get("http://page.test/a", fromPage)
		b.get("http://page.test/", asPage+"Proxy-Authorization: Basic YW5uOjE=\n") // another user
		synctest.Wait()
		if s := server.Stats(); s.PushesKnown != 1 {
			t.Errorf("%d pushes were known to another user", s.PushesKnown)
		}
	})
}

// What a browser does not keep, or was not asked for by a page, is not remembered.
func TestDelivered(t *testing.T) {
	for fields, remembered := range map[string]bool{
		"Referer: x":                                                 false,
		"Referer: x|Cache-Control: max-age=60":                       true,
		"|Cache-Control: max-age=60":                                 false, // no page
		"Referer: x|Cache-Control: private, max-age=60":              true,
		"Referer: x|Cache-Control: s-maxage=60":                      false,
		"Referer: x|Cache-Control: s-maxage=0, max-age=60":           true,
		"Referer: x|Cache-Control: no-cache, max-age=60":             false,
		"Referer: x|Cache-Control: no-store, max-age=60":             false,
		"Referer: x|Cache-Control: max-age=60|Age: 60":               false,
		"Referer: x|Cache-Control: max-age=60|Age: 59":               true,
		"Referer: x|Expires: Mon, 01 Jan 2024 00:00:00 GMT":          false,
		"Referer: x|Cache-Control: max-age=99999999999999999999|a:b": false,
	} {
		d := newDelivered()
		asked, answered, _ := strings.Cut(fields, "|")
		d.note(pushName{path: "/"}, &http.Request{Method: "GET", Header: header(asked)}, &http.Response{StatusCode: 200, Header: header(answered)})
		if d.has(pushName{path: "/"}) != remembered || d.has(pushName{path: "/", identity: 1}) {
			t.Errorf("%q: remembered %v", fields, !remembered)
		}
	}
}

// header reads fields that are parted by bars.
func header(fields string) http.Header {
	h := http.Header{}
	for f := range strings.SplitSeq(fields, "|") {
		if name, value, ok := strings.Cut(f, ":"); ok {
			h.Add(name, strings.TrimSpace(value))
		}
	}
	return h
}

func TestDeliveredIsBounded(t *testing.T) {
	d := newDelivered()
	asked, answered := &http.Request{Method: "GET", Header: header("Referer: x")}, &http.Response{StatusCode: 200, Header: header("Cache-Control: max-age=60")}
	for i := range maxDelivered + 10 {
		d.note(pushName{path: fmt.Sprint(i)}, asked, answered)
		d.note(pushName{path: fmt.Sprint(i)}, asked, answered) // the same again takes no more room
	}
	if len(d.until) != maxDelivered || d.has(pushName{path: "9"}) || !d.has(pushName{path: "10"}) {
		t.Errorf("%d are remembered", len(d.until))
	}
	d.renew()
	if len(d.until) != 0 || d.has(pushName{path: "100"}) {
		t.Error("a new identity is told of the old one")
	}
}
