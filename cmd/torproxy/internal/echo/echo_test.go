package echo

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

const secret = "correct horse: battery"

// newServer returns a server that ann can log in at, and what it logs.
func newServer(t *testing.T) (*Server, *bytes.Buffer) {
	t.Helper()
	key, err := ParseCredential("ann:" + secret)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	return New(Config{Credential: key, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}), &log
}

// ask sends a request to a handler and returns the answer with its body.
func ask(h http.Handler, method, target, body string, headers ...string) (*http.Response, string) {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.RequestURI = strings.TrimPrefix(target, "http://"+r.Host)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func contains(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, s := range wanted {
		if !strings.Contains(text, s) {
			t.Errorf("%q is not in\n%s", s, text)
		}
	}
}

func TestEcho(t *testing.T) {
	s, _ := newServer(t)
	answer, text := ask(s, "POST", "http://echo.test/a;b//c?x=1;y=%zz", "some text", "User-Agent", "curl/8", "X-Two", "1", "X-Two", "2",
		"Via", "1.1 squid", "Torproxy-Prefetch", "page", "X-Forwarded-For", "192.0.2.9", "Authorization", "Basic YW5uOnB3", "X-Escape", "a\x1b[31mb")
	contains(t, text, "POST /a;b//c?x=1;y=%zz HTTP/1.1\nHost: echo.test\n", "User-Agent: curl/8\n", "X-Two: 1\nX-Two: 2\n", "\nsome text\n(the body: 9 bytes)",
		"  address: 192.0.2.1:1234\n", "  User-Agent: curl/8\n", "  Via: 1.1 squid\n", "  Torproxy-Prefetch: page\n", "  X-Forwarded-For: 192.0.2.9\n    an address that a proxy")
	if answer.Header.Get("Content-Type") != "text/plain; charset=utf-8" || answer.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", answer.Header)
	}
	if strings.Contains(text, "YW5uOnB3") || strings.Contains(text, "\x1b") || strings.Contains(text, "X-Two: 1\n    ") {
		t.Errorf("it tells too much:\n%q", text)
	}
}

func TestEchoBodies(t *testing.T) {
	s, _ := newServer(t)
	for _, c := range []struct{ body, want string }{
		{"", "\n\nWhat gives"},
		{"\x00\x1b[31m", "00000000  00 1b 5b 33 31 6d"},
		{strings.Repeat("x", maxBody), "(the body: 65536 bytes)"},
		{strings.Repeat("x", maxBody+1), "(the body: the first 65536 bytes; the rest was not read)"},
	} {
		_, text := ask(s, "PUT", "http://echo.test/", c.body)
		contains(t, text, c.want)
		if len(text) > maxBody+2000 {
			t.Errorf("an answer of %d bytes", len(text))
		}
	}
}

// The page shows the same, with nothing of the request as HTML and nothing from elsewhere.
func TestPage(t *testing.T) {
	s, _ := newServer(t)
	answer, text := ask(s, "GET", "http://echo.test/<script>alert(1)</script>?<b>", "", "Accept", "text/html,*/*", "User-Agent", "<img src=x>")
	contains(t, text, "<!DOCTYPE html>", `href="/secret"`, `href="/open"`, "&lt;script&gt;alert(1)", "&lt;img src=x&gt;")
	if strings.Contains(text, "<script>") || strings.Contains(text, "<img") || strings.Contains(text, "http://www") {
		t.Errorf("the page:\n%s", text)
	}
	contains(t, answer.Header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'sha256-")
}

func TestOpen(t *testing.T) {
	s, _ := newServer(t)
	answer, text := ask(s, "GET", "http://echo.test:7777/open", "")
	if got := answer.Header.Get("Refresh"); got != "1; url=http://echo.test:7777/opened" {
		t.Errorf("Refresh: %s", got)
	}
	contains(t, text, "http://echo.test:7777/opened")
	answer, text = ask(s, "GET", "http://echo.test:7777/open", "", "Accept", "text/uri-list, */*;q=0.5")
	if !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/uri-list") || !strings.HasSuffix(text, "\r\nhttp://echo.test:7777/opened\r\n") || answer.Header.Get("Refresh") != "" {
		t.Errorf("%v %q", answer.Header, text)
	}
	_, text = ask(s, "GET", "http://echo.test:7777/opened", "", "User-Agent", "browser")
	contains(t, text, "somebody has opened it", "User-Agent: browser")
}

// Serve ends with its context, and with its listener; nothing of it is left.
func TestServe(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	s, log := newServer(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://" + l.Addr().String() + "/path")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	contains(t, string(text), "GET /path HTTP/1.1")
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	contains(t, log.String(), "path=/path", "status=200")

	l, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Serve(t.Context(), l); err == nil {
		t.Error("a listener that is closed was served")
	}
}
