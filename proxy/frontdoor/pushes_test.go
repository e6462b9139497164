package frontdoor

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Which requests are answered by what was pushed.
func TestPushesMatch(t *testing.T) {
	const request, ok = "GET http://page.test/a HTTP/1.1\nHost: page.test\nAccept-Encoding: gzip\nAccept-Language: de, en\n\n", true
	plain := func(headers string) string {
		return request + "HTTP/1.1 200 OK\nContent-Length: 6\n" + headers + "\npushed"
	}
	for name, test := range map[string]struct {
		push    string
		headers string // of the browser's request for http://page.test/a
		used    bool
	}{
		"nothing special":               {plain(""), "", ok},
		"from the page":                 {plain(""), "Referer: http://page.test/\n", ok},
		"from another page of the site": {plain(""), "Referer: http://page.test:80/other\n", ok},
		"from another site":             {plain(""), "Referer: http://other.test/\n", false},
		"from a site in TLS":            {plain(""), "Referer: https://page.test/\n", false},
		"a Referer that is none":        {plain(""), "Referer: ::\n", false},
		"two Referers":                  {plain(""), "Referer: http://page.test/\nReferer: http://page.test/\n", false},
		"with a cookie":                 {plain(""), "Cookie: a=b\n", false},
		"with a password":               {plain(""), "Authorization: Basic YTpi\n", false},
		"a part":                        {plain(""), "Range: bytes=0-1\n", false},
		"a newer one":                   {plain(""), "If-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT\n", false},
		"another one":                   {plain(""), "If-None-Match: \"x\"\n", false},
		"a reload":                      {plain(""), "Cache-Control: no-cache\n", false},
		"a reload the old way":          {plain(""), "Pragma: no-cache\n", false},
		"a gentle reload":               {plain(""), "Cache-Control: max-age=0\n", false},
		"an upgrade":                    {plain(""), "Connection: Upgrade\nUpgrade: websocket\n", false},

		"Vary that fits":                {plain("Vary: Accept-Language\n"), "Accept-Language: de,en\n", ok},
		"Vary in two lines":             {plain("Vary: Accept-Language\nVary: X-None\n"), "Accept-Language: de\nAccept-Language: en\n", ok},
		"Vary that does not":            {plain("Vary: X, accept-language\n"), "Accept-Language: en\n", false},
		"Vary on what is missing":       {plain("Vary: Origin\n"), "Origin: http://page.test\n", false},
		"Vary: *":                       {plain("Vary: *\n"), "", false},
		"a coding that fits":            {plain("Content-Encoding: gzip\n"), "Accept-Encoding: gzip\n", ok},
		"a coding that does not":        {plain("Content-Encoding: gzip\n"), "Accept-Encoding: br\n", false},
		"Vary on the agent, none known": {plain("Vary: User-Agent\n"), "", ok},

		"for an origin":     {plain(""), "Origin: http://page.test\n", false},
		"for that origin":   {strings.Replace(plain(""), "Host:", "Origin: http://page.test\nHost:", 1), "Origin: http://page.test\n", ok},
		"for another":       {strings.Replace(plain(""), "Host:", "Origin: http://x.test\nHost:", 1), "Origin: http://page.test\n", false},
		"for an origin, no": {strings.Replace(plain(""), "Host:", "Origin: http://x.test\nHost:", 1), "", false},

		"fresh":                 {plain("Cache-Control: public, max-age=60\n"), "", ok},
		"stale at once":         {plain("Cache-Control: max-age=0\n"), "", false},
		"stale for shared ones": {plain("Cache-Control: max-age=60, s-maxage=0\n"), "", false},
		"an age beyond reading": {plain("Cache-Control: max-age=x\n"), "", false},
		"old":                   {plain("Cache-Control: max-age=60\nAge: 60\n"), "", false},
		"expired":               {plain("Date: Mon, 01 Jan 2024 00:00:01 GMT\nExpires: Mon, 01 Jan 2024 00:00:00 GMT\n"), "", false},
		"not expired":           {plain("Date: Mon, 01 Jan 2024 00:00:00 GMT\nExpires: Mon, 01 Jan 2024 00:01:00 GMT\n"), "", ok},
		"expired without date":  {plain("Expires: 0\n"), "", false},
		"private":               {plain("Cache-Control: Private=\"x\"\n"), "", false},
		"no-store":              {plain("Cache-Control: max-age=60,no-store\n"), "", false},
		"no-cache":              {plain("Cache-Control: no-cache\n"), "", false},
		"Pragma: no-cache":      {plain("Pragma: no-cache\n"), "", false},
		"a cookie is set":       {plain("Set-Cookie: a=b\n"), "", false},
		"a part of it":          {request + "HTTP/1.1 206 Partial Content\nContent-Length: 6\n\npushed", "", false},
		"an error":              {request + "HTTP/1.1 500 No\nContent-Length: 6\n\npushed", "", false},
		"not found":             {request + "HTTP/1.1 404 No\nContent-Length: 6\n\npushed", "", false},
		"chunked":               {request + "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n6\npushed\n0\n\n", "", ok},
		"to the end":            {request + "HTTP/1.1 200 OK\n\npushed", "", ok},

		"another URL":          {strings.Replace(plain(""), "/a ", "/a? ", 1), "", false},
		"another port":         {strings.Replace(plain(""), "page.test/a", "page.test:81/a", 1), "", false},
		"the port said":        {strings.Replace(plain(""), "page.test/a", "PAGE.test:80/a", 1), "", ok},
		"a POST":               {strings.Replace(plain(""), "GET", "POST", 1), "", false},
		"in origin form":       {strings.Replace(plain(""), "http://page.test", "", 1), "", false},
		"https":                {strings.Replace(plain(""), "http:", "https:", 1), "", false},
		"credentials":          {strings.Replace(plain(""), "Host:", "Cookie: a=b\nHost:", 1), "", false},
		"a body":               {strings.Replace(plain(""), "Host:", "Content-Length: 1\nHost:", 1), "", false},
		"no HTTP":              {"\x00", "", false},
		"nothing":              {"", "", false},
		"half a reply":         {request + "HTTP/1.1 200", "", false},
		"a head without end":   {request + "HTTP/1.1 200 OK\nX: " + strings.Repeat("x", maxPushHead) + "\n\n", "", false},
		"our own address":      {strings.Replace(plain(""), "page.test", "localhost:8118", 1), "", false},
		"an answer in between": {request + "HTTP/1.1 103 Early Hints\n\n" + pushedReply, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			push := func(r Request) { whole(r, test.push) }
			withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
				b.page()
				synctest.Wait() // what was pushed has its name
				want, arrived := "itself", 2
				if test.used {
					want, arrived = "pushed", 1
				}
				if got := b.get("http://page.test/a", test.headers); got != want {
					t.Errorf("answered by %q, want %q", got, want)
				}
				if len(e.asked) != arrived {
					t.Errorf("arrived: %q", e.asked)
				}
				want = "itself"
				if strings.HasPrefix(test.headers, "Referer") && !test.used {
					want = "pushed" // the page itself may ask still
				}
				if got := b.get("http://page.test/a", ""); got != want {
					t.Errorf("a second time by %q", got)
				}
			})
		})
	}
}

// For which pages the exit is told to open the links.
func TestPrefetchIsAskedFor(t *testing.T) {
	for headers, asked := range map[string]bool{
		asPage:                                 true,
		"Accept: TEXT/HTML;level=1, */*\n":     true,
		"Accept: text/html;q=0.5\n":            true,
		"Accept: text/html;q=0\n":              false,
		"Accept: text/html; q=0.0, */*\n":      false,
		"Accept: text/*\n":                     false,
		"Accept: */*\n":                        false,
		"":                                     false,
		asPage + "Cookie: a=b\n":               false,
		asPage + "Authorization: x\n":          false,
		asPage + "Cache-Control: no-cache\n":   false,
		asPage + "Cache-Control: max-age=0\n":  false,
		asPage + "If-None-Match: \"x\"\n":      false,
		asPage + "Range: bytes=0-\n":           false,
		asPage + "Content-Length: 0\n":         true,
		"Torproxy-Prefetch: page\n":            false,
		asPage + "Torproxy-Prefetch: a\n":      true,
		asPage + "Torproxy-Open: http://x/\n":  true,
		asPage + "Connection: Accept\n":        true,
		asPage + "Upgrade: websocket\n":        false,
		asPage + "Upgrade: chat\n":             false,
		asPage + "X-Torproxy-Prefetch: page\n": true,
	} {
		for _, on := range []bool{true, false} {
			e := &pushingExit{}
			inVirtualTime(t, Config{Dial: e.dial, Prefetch: on}, func(t *testing.T, p *pipes, stop func() time.Duration) {
				b := p.browser(t)
				b.get("http://page.test/", headers)
				if got := strings.Contains(e.heads[0], "\nTorproxy-Prefetch: page\r\n"); got != (asked && on) {
					t.Errorf("prefetch %v, %q: %v\n%s", on, headers, got, e.heads[0])
				}
				if strings.Count(e.heads[0], "\nTorproxy-") > 1 || strings.Contains(e.heads[0], "Torproxy-Open") {
					t.Errorf("%q passes", e.heads[0])
				}
				b.c.Close()
				stop()
			})
		}
	}
}

const pushedRequest = "GET http://page.test/a HTTP/1.1\nHost: page.test\n\n"

// A request waits for a push that is on its way, named or not yet, and gets it the moment that it comes.
func TestRequestWaitsForPush(t *testing.T) {
	for name, test := range map[string]struct {
		before, after string
	}{
		"named":         {pushedRequest, pushedReply},
		"not named yet": {"", pushedRequest + pushedReply},
		"head only":     {pushedRequest + strings.TrimSuffix(pushedReply, "pushed"), "pushed"},
	} {
		t.Run(name, func(t *testing.T) {
			push := func(r Request) {
				c := pushed(r)
				write(c, test.before)
				go func() {
					defer c.Close()
					<-time.After(2 * time.Second)
					write(c, test.after)
				}()
			}
			withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
				b.page()
				before := time.Now()
				if got := b.get("http://page.test/a", "Referer: http://page.test/\n"); got != "pushed" {
					t.Errorf("answered by %q", got)
				}
				if d := time.Since(before); d != 2*time.Second {
					t.Errorf("after %v", d)
				}
			})
		})
	}
}

// A request whose push fails, or does not come within a bound, goes out itself.
func TestRequestDoesNotWaitInVain(t *testing.T) {
	for name, test := range map[string]struct {
		text  string
		after time.Duration // the stream's end
		waits time.Duration // of the browser's request for /a
	}{
		"it breaks":             {pushedRequest, time.Second, time.Second},
		"it breaks before":      {"", time.Second, time.Second},
		"no reply":              {pushedRequest, time.Hour, pushWait},
		"no name":               {"", time.Hour, pushWait},
		"it is for another URL": {strings.Replace(pushedRequest, "/a", "/b", 1), time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var ended chan time.Duration
			push := func(r Request) {
				c := pushed(r)
				ended = make(chan time.Duration, 1)
				write(c, test.text)
				begin := time.Now()
				go func() {
					defer c.Close()
					c.SetReadDeadline(time.Now().Add(test.after))
					c.Read(make([]byte, 1))
					ended <- time.Since(begin)
				}()
			}
			withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
				b.page()
				before := time.Now()
				if got := b.get("http://page.test/a", ""); got != "itself" {
					t.Errorf("answered by %q", got)
				}
				if d := time.Since(before); d != test.waits {
					t.Errorf("after %v, want %v", d, test.waits)
				}
				if d := <-ended; d > pushLifetime {
					t.Errorf("the stream was left open for %v", d)
				}
			})
		})
	}
}

// What nobody asks for is dropped after seconds, or when its reply is no longer fresh.
func TestPushesAreDropped(t *testing.T) {
	for cacheControl, lifetime := range map[string]time.Duration{"": pushLifetime, "Cache-Control: max-age=3\n": 3 * time.Second, "Cache-Control: max-age=60\n": pushLifetime} {
		push := func(r Request) {
			whole(r, pushedRequest+"HTTP/1.1 200 OK\nContent-Length: 6\n"+cacheControl+"\npushed")
		}
		withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
			s := server.Stats()
			for i, test := range []struct {
				after time.Duration
				want  string
			}{{lifetime - time.Millisecond, "pushed"}, {lifetime, "itself"}} {
				b.page()
				synctest.Wait()
				<-time.After(test.after)
				synctest.Wait()
				if got := b.get("http://page.test/a", ""); got != test.want {
					t.Errorf("after %v: answered by %q, want %q", test.after, got, test.want)
				}
				s = server.Stats()
				if s.PushesUsed != 1 || s.PushesUnused != int64(i) || s.PushesMissed+s.PushesRefused != 0 {
					t.Errorf("stats %+v", s)
				}
			}
			if s.PushBytesUsed == 0 || s.PushBytesUsed != s.PushBytesWasted {
				t.Errorf("bytes used %d, wasted %d", s.PushBytesUsed, s.PushBytesWasted)
			}
		})
	}
}

// Nothing that was pushed for one isolation, or one identity, serves another.
func TestPushesAreIsolated(t *testing.T) {
	const ann = "Proxy-Authorization: Basic YW5uOjE=\n"
	push := func(r Request) { whole(r, pushedRequest+pushedReply) }
	withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		if got := b.get("http://page.test/a", ann); got != "itself" {
			t.Errorf("another user's request is answered by %q", got)
		}
		newIdentity(p)
		if got := b.get("http://page.test/a", ""); got != "itself" {
			t.Errorf("after a new identity: answered by %q", got)
		}
	})
	// A stream that comes after the new identity, for a page before it.
	var late Request
	withPushes(t, func(r Request) { late = r }, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		newIdentity(p)
		c := pushed(late)
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the stream: %v", err)
		}
	})
}

func newIdentity(p *pipes) {
	in, c := p.dial("POST /api/newnym HTTP/1.1\nHost: localhost:8118\nConnection: close\n\n")
	io.ReadAll(in)
	c.Close()
}

// A style sheet that was pushed refers to a font of another origin that was pushed too.
func TestPushedLinksRefer(t *testing.T) {
	push := func(r Request) {
		whole(r, "GET http://cdn.test/a.css HTTP/1.1\nHost: cdn.test\n\n"+strings.Replace(pushedReply, "\n", "\nContent-Type: text/css; charset=utf-8\n", 1))
		whole(r, "GET http://cdn.test/b.png HTTP/1.1\nHost: cdn.test\n\n"+pushedReply)
		whole(r, "GET http://font.test/f?x HTTP/1.1\nHost: font.test\n\n"+pushedReply)
	}
	withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		for _, test := range []struct{ url, referer, want string }{
			{"http://font.test/f?x", "", "itself"}, // from nowhere
			{"http://font.test/f?x", "http://cdn.test/", "itself"},
			{"http://font.test/f?x", "http://cdn.test/a.css", "itself"}, // which the browser does not have
			{"http://cdn.test/b.png", "http://page.test/index", "pushed"},
			{"http://font.test/f?x", "http://cdn.test/b.png", "itself"}, // which is no style sheet
			{"http://cdn.test/a.css", "http://page.test/index", "pushed"},
			{"http://font.test/f?x", "http://cdn.test/a.css", "pushed"},
		} {
			headers := ""
			if test.referer != "" {
				headers = "Referer: " + test.referer + "\n"
			}
			if got := b.get(test.url, headers); got != test.want {
				t.Errorf("%s from %q: %q", test.url, test.referer, got)
			}
		}
	})
}

// A reply that breaks off while it is given to the browser must not look whole.
func TestCutOffPush(t *testing.T) {
	cut := make(chan struct{})
	push := func(r Request) {
		c := pushed(r)
		go func() {
			defer c.Close()
			write(c, pushedRequest+"HTTP/1.1 200 OK\nContent-Length: 60\n\nhalf")
			<-cut
		}()
	}
	withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		in, c := p.dial("GET http://page.test/a HTTP/1.1\nHost: x\n\n")
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		close(cut)
		if body, err := io.ReadAll(r.Body); err != io.ErrUnexpectedEOF {
			t.Errorf("%q, %v", body, err)
		}
		c.Close()
	})
}

// One that has broken off before anybody asked is forgotten: the browser's own request may do better.
func TestBrokenPush(t *testing.T) {
	push := func(r Request) { whole(r, pushedRequest+"HTTP/1.1 200 OK\nContent-Length: 60\n\nhalf") }
	withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		synctest.Wait()
		if got := b.get("http://page.test/a", ""); got != "itself" {
			t.Errorf("answered by %q", got)
		}
	})
}

// No page to show is ever answered by what was pushed, whoever led to it.
func TestPushIsNoPage(t *testing.T) {
	push := func(r Request) { whole(r, pushedRequest+pushedReply) }
	withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		if got := b.get("http://page.test/a", "Accept: text/html,*/*\n"); got != "itself" {
			t.Errorf("answered by %q", got)
		}
	})
}

// Links to open are taken from the exit's own replies only, and what is between front door and exit never
// reaches the client.
func TestPushedRepliesAreCleaned(t *testing.T) {
	push := func(r Request) {
		whole(r, pushedRequest+"HTTP/1.1 200 OK\nContent-Length: 6\nTorproxy-Open: http://x.test/\nProxy-Status: evil\n\npushed")
	}
	withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		in, c := p.dial("GET http://page.test/a HTTP/1.1\nHost: x\n\n")
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Header.Get("Torproxy-Open")+r.Header.Get("Proxy-Status") != "" || len(server.Links()) > 0 {
			t.Errorf("%v, links %v", r.Header, server.Links())
		}
		io.Copy(io.Discard, r.Body)
		c.Close()
	})
}
