package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"torproxy/cmd/torproxy/internal/browser"
	"torproxy/cmd/torproxy/internal/echo"
	"torproxy/proxy/frontdoor"
)

// fakeDoor is a front door in front of sites by name, and what came to it.
type fakeDoor struct {
	*httptest.Server
	sites map[string]http.Handler // by host as in the URL
	seen  []string                // URL, and the scheme of the Authorization header
	opens string                  // the newest request's Torproxy-Open
	why   []frontdoor.Why
}

func newFakeDoor(t *testing.T) *fakeDoor {
	leaks := goleak.IgnoreCurrent()
	d := &fakeDoor{sites: map[string]http.Handler{}}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/why" && !r.URL.IsAbs() {
			json.NewEncoder(w).Encode(d.why)
			return
		}
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		d.opens = r.Header.Get("Torproxy-Open")
		d.seen = append(d.seen, strings.TrimSpace(r.URL.String()+" "+scheme))
		site := d.sites[r.URL.Host]
		if site == nil {
			w.Header().Set("Proxy-Status", "torproxy; error=dns_error")
			http.Error(w, "torproxy: no such name.\nProbable cause: it does not exist.\nWhat to do: check the spelling.", http.StatusBadGateway)
			return
		}
		r.RequestURI = r.URL.RequestURI() // as the exit makes it
		site.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		d.Close()
		goleak.VerifyNone(t, leaks)
	})
	return d
}

// get runs the command; its stdin is a password.
func (d *fakeDoor) get(t *testing.T, password string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"get", "--http", d.Listener.Addr().String()}, args...), strings.NewReader(password), &out, &errs)
	return code, out.String(), errs.String()
}

func says(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, s := range wanted {
		if !strings.Contains(text, s) {
			t.Errorf("%q is not in\n%s", s, text)
		}
	}
}

func TestGetFollowsOnTheSite(t *testing.T) {
	d := newFakeDoor(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/page", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the page") })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/page#part", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://b.test/page", http.StatusFound)
	})
	mux.HandleFunc("/port", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://a.test:81/page", http.StatusFound)
	})
	mux.HandleFunc("/odd", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/nowhere", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusFound) })
	d.sites["a.test"], d.sites["b.test"] = mux, mux
	for _, c := range []struct {
		page   string
		code   int
		stdout string
		stderr string
		asked  []string
	}{
		{"/page", 0, "the page", "200 OK", []string{"/page"}},
		{"/moved", 0, "the page", "it is at http://a.test/page\n", []string{"/moved", "/page"}},
		{"/away", 1, "b.test", "the page is at another site: http://b.test/page", []string{"/away"}},
		{"/port", 1, "", "the page is at another site: http://a.test:81/page", []string{"/port"}},
		{"/odd", 1, "", "an address that cannot be followed", []string{"/odd"}},
		{"/nowhere", 1, "", "an address that cannot be followed", []string{"/nowhere"}},
		{"/loop", 1, "", "on and on: more than 10 times", slices.Repeat([]string{"/loop"}, maxRedirects+1)},
	} {
		d.seen = nil
		code, stdout, stderr := d.get(t, "", "http://a.test"+c.page)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: exit code %d, %q, %q", c.page, code, stdout, stderr)
		}
		for i := range c.asked {
			c.asked[i] = "http://a.test" + c.asked[i]
		}
		if !slices.Equal(d.seen, c.asked) {
			t.Errorf("%s: asked for %q", c.page, d.seen)
		}
	}
}

// The password is proved to the site that was asked for, at the pages that want it, and nowhere else.
func TestGetLogsIn(t *testing.T) {
	d := newFakeDoor(t)
	credential, err := echo.ParseCredential("ann:correct horse")
	if err != nil {
		t.Fatal(err)
	}
	secret := echo.New(echo.Config{Credential: credential})
	mux := http.NewServeMux()
	mux.Handle("/secret", secret)
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/secret", http.StatusFound) })
	mux.HandleFunc("/basic", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	mux.HandleFunc("/md5", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("WWW-Authenticate", `Digest realm="x", nonce="y", qop="auth", algorithm=MD5`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	stale := 0
	mux.HandleFunc("/stale", func(w http.ResponseWriter, r *http.Request) {
		stale++
		w.Header().Add("WWW-Authenticate", fmt.Sprintf(`Digest realm="x", nonce="%d", qop="auth", algorithm=SHA-256, stale=true`, stale))
		w.WriteHeader(http.StatusUnauthorized)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://other.test/secret", http.StatusFound)
	})
	d.sites["a.test"], d.sites["other.test"] = mux, mux
	for _, c := range []struct {
		page, password string
		code           int
		stdout, stderr string
		asked          []string
	}{
		{"/secret", "correct horse\n", 0, "You know the password", "200 OK", []string{"/secret", "/secret Digest"}},
		{"/secret", "wrong\n", 1, "", "does not let ann in", []string{"/secret", "/secret Digest"}},
		{"/moved", "correct horse", 0, "You know the password", "it is at", []string{"/moved", "/secret", "/secret Digest"}},
		{"/basic", "correct horse", 1, "", "a form that the exit could read", []string{"/basic"}},
		{"/md5", "correct horse", 1, "", "a form that the exit could read", []string{"/md5"}},
		{"/stale", "correct horse", 1, "", "does not let ann in", []string{"/stale", "/stale Digest", "/stale Digest", "/stale Digest", "/stale Digest"}},
		{"/away", "correct horse", 1, "", "another site", []string{"/away"}},
	} {
		d.seen = nil
		code, stdout, stderr := d.get(t, c.password, "--user", "ann", "--password-file", "-", "http://a.test"+c.page)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) || strings.Contains(stderr, "horse") {
			t.Errorf("%s with %q: exit code %d, %q, %q", c.page, c.password, code, stdout, stderr)
		}
		for i := range c.asked {
			c.asked[i] = "http://a.test" + c.asked[i]
		}
		if !slices.Equal(d.seen, c.asked) {
			t.Errorf("%s: asked for %q", c.page, d.seen)
		}
	}
}

// What the proxy says is told as a failure, not as the page.
func TestGetFails(t *testing.T) {
	d := newFakeDoor(t)
	code, stdout, stderr := d.get(t, "", "http://nx.test/")
	if code != exitFailed || stdout != "" {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	says(t, stderr, "error: no such name (Proxy-Status: torproxy; error=dns_error)\n", "cause: it does not exist\n",
		"to do: check the spelling; torproxy why nx.test says which relay said what\n")
}

// Over https the header is the site's own.
func TestIsProxyFailure(t *testing.T) {
	failed := &http.Response{StatusCode: http.StatusBadGateway, Header: http.Header{"Proxy-Status": {"torproxy; error=dns_error"}}}
	for scheme, want := range map[string]bool{"http": true, "https": false} {
		if got := isProxyFailure(&url.URL{Scheme: scheme, Host: "a.test"}, failed); got != want {
			t.Errorf("over %s: %v", scheme, got)
		}
	}
}

func TestGetTellsTheCircuit(t *testing.T) {
	d := newFakeDoor(t)
	d.sites["a.test"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Refresh", "5; url=/next")
		now := frontdoor.Time{Time: time.Now()}
		d.why = []frontdoor.Why{
			{Target: "a.test:443", Began: now, Steps: []frontdoor.Step{{Circuit: "1"}}},
			{Target: "a.test:80", Began: now, Path: []string{"one", "two\x1b[31m"}, Steps: []frontdoor.Step{{What: "build", Circuit: "2"}, {What: "open", Circuit: "3"}, {}}},
			{Target: "a.test:80", Began: now, Path: []string{"old"}, Steps: []frontdoor.Step{{Circuit: "4"}}},
		}
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, "short")
	})
	code, stdout, stderr := d.get(t, "", "http://a.test/")
	if code != exitFailed || stdout != "short" {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	if d.opens != "self" {
		t.Errorf("the front door is told %q of who opens links", d.opens)
	}
	says(t, stderr, "418 I'm a teapot, 5 bytes of text/plain\n", "through circuit 3: this machine, one, two [31m, a.test\n", "error: a.test answered 418")
	if strings.Contains(stderr, "\x1b") {
		t.Errorf("the terminal is told: %q", stderr)
	}
}

func TestCarrier(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 5_900_000, time.UTC)
	at := func(ms int) frontdoor.Time {
		return frontdoor.Time{Time: began.Truncate(time.Second).Add(time.Duration(ms) * time.Millisecond)}
	}
	w := frontdoor.Why{Target: "a.test:80", Path: []string{"x"}, Steps: []frontdoor.Step{{Circuit: "7"}}}
	for ms, want := range map[int]string{4: "", 5: "7", 9: "7"} {
		w.Began = at(ms)
		if circuit, _ := carrier([]frontdoor.Why{w}, "a.test:80", began); circuit != want {
			t.Errorf("began at %d ms: %q", ms, circuit)
		}
	}
}

func TestSite(t *testing.T) {
	for _, c := range []struct {
		from, to string
		same     bool
	}{
		{"http://a.test/", "http://A.test:80/x", true},
		{"http://a.test/", "https://a.test/", true},
		{"https://a.test/", "https://a.test:443/", true},
		{"http://a.test:8080/", "http://a.test:8080/", true},
		{"https://a.test/", "http://a.test/", false},
		{"http://a.test/", "http://a.test:8080/", false},
		{"http://a.test:8080/", "https://a.test/", false},
		{"http://a.test/", "https://a.test:8443/", false},
		{"http://a.test/", "http://www.a.test/", false},
		{"http://[::1]:80/", "http://[::1]/", true},
	} {
		from, _ := url.Parse(c.from)
		to, _ := url.Parse(c.to)
		if got := siteOf(from).has(to); got != c.same {
			t.Errorf("%s to %s: %v", c.from, c.to, got)
		}
	}
}

func TestChallengeOf(t *testing.T) {
	const digestOf = `Digest realm="r", nonce="n", qop="auth", algorithm=`
	for _, c := range []struct {
		offered      []string
		http, secure string
	}{
		{nil, "", ""},
		{[]string{"Basic realm=x"}, "", "Basic"},
		{[]string{digestOf + "MD5"}, "", "MD5"},
		{[]string{digestOf + "SHA-256"}, "SHA-256", "SHA-256"},
		{[]string{digestOf + "MD5", digestOf + "SHA-512-256"}, "SHA-512-256", "MD5"},
		{[]string{"Basic realm=x", digestOf + "SHA-256"}, "SHA-256", "Basic"},
		{[]string{`Digest realm="r", nonce="n", algorithm=SHA-256`}, "", "SHA-256"},
		{[]string{`Digest realm="r", nonce="n", qop="auth-int", algorithm=SHA-256`}, "", "SHA-256"},
		{[]string{"Negotiate", "Digest ", "Digest \x00"}, "", "MD5 by default"},
	} {
		for _, secure := range []bool{false, true} {
			want := map[bool]string{false: c.http, true: c.secure}[secure]
			got := ""
			if ch := challengeOf(http.Header{"Www-Authenticate": c.offered}, secure); ch != nil && ch.digest == nil {
				got = "Basic"
			} else if ch != nil {
				got = ch.digest.Algorithm
			}
			if got != want && !(want == "MD5 by default" && got == "") {
				t.Errorf("%q, secure %v: %q, want %q", c.offered, secure, got, want)
			}
		}
	}
}

func TestRefreshLink(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"5":                             "",
		"5;":                            "",
		"5; url=":                       "",
		"1; url=http://a.test/":         "http://a.test/",
		"1;URL = 'http://a.test/' x":    "http://a.test/",
		`0, "http://a.test/"`:           "http://a.test/",
		"0.5;http://a.test/?a;b=c":      "http://a.test/?a;b=c",
		" 3 ; url=/next":                "/next",
		"1; urls=x":                     "urls=x",
		"url=http://a.test/":            "",
		"http://a.test/":                "",
		`1; url="http://a.test/`:        "http://a.test/",
		"1 http://a.test/":              "",
		"99999999999999999999; url=x//": "x//",
	} {
		if got := refreshLink(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestListedLinks(t *testing.T) {
	got := listedLinks("# comment\r\nhttp://a.test/\r\n\r\n  https://b.test/x \n#\nrelative\nmailto:ann@a.test\n")
	if !slices.Equal(got, []string{"http://a.test/", "https://b.test/x", "mailto:ann@a.test"}) {
		t.Errorf("got %q", got)
	}
}

// FuzzAsked finds links in anything, and only such as may be opened.
func FuzzAsked(f *testing.F) {
	f.Add("1; url='/a'", "# x\r\nhttp://a.test/\r\n")
	f.Add("0,http://[::1]:80/", "javascript:x\n//b.test/\n")
	f.Fuzz(func(t *testing.T, refresh, list string) {
		base, _ := url.Parse("http://base.test/dir/")
		g := &getting{url: base}
		answer := &http.Response{Header: http.Header{"Refresh": {refresh}, "Content-Type": {uriList}}}
		a, err := g.asked(answer, strings.NewReader(list))
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range a.links {
			if again, err := browser.ParseLink(link.String()); err != nil || again != link {
				t.Errorf("%q and %q ask for %q: %v", refresh, list, link, err)
			}
		}
	})
}

func TestIsBinary(t *testing.T) {
	for in, want := range map[string]bool{"": false, "text\n": false, "ä€\U0001f600": false, "a\x00b": true, "\x89PNG": true, "cut off: \xe2\x82": false, "\x1b[31m": false} {
		if got := isBinary([]byte(in)); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}

// What a terminal obeys does not reach it, however the text is cut.
func TestCopyText(t *testing.T) {
	for in, want := range map[string]string{
		"":                   "",
		"two\r\nlines\tx":    "two\r\nlines\tx\n",
		"a\x1b[31mb\x07\n":   "a\ufffd[31mb\ufffd\n",
		"c1 \u009b31m \x9b.": "c1 \ufffd31m \ufffd.\n",
		"ä€\U0001f600\n":     "ä€\U0001f600\n",
	} {
		var out bytes.Buffer
		if err := copyText(&out, bufio.NewReaderSize(oneByOne{strings.NewReader(in)}, 16)); err != nil || out.String() != want {
			t.Errorf("%q: %q, %v", in, out.String(), err)
		}
	}
}

// oneByOne reads one byte at a time.
type oneByOne struct{ r *strings.Reader }

func (o oneByOne) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }
