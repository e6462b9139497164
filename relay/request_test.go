package relay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func parse(text, authority string) (*request, *bufio.Reader, error) {
	r := bufio.NewReaderSize(strings.NewReader(text), 16) // small, so that lines are longer
	q, err := readRequest(r, authority)
	return q, r, err
}

// TestRequestRefused holds what two programs could read in two ways, and what no front door sends.
func TestRequestRefused(t *testing.T) {
	const authority = "a.test:80"
	good := "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
	if _, _, err := parse(good, authority); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":                       "",
		"empty lines first":             "\r\n" + good,
		"bare line feeds":               "GET / HTTP/1.1\nHost: a.test\n\n",
		"bare line feed at the end":     "GET / HTTP/1.1\r\nHost: a.test\r\n\n",
		"bare line feed in a header":    "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\nY: b\r\n\r\n",
		"bare carriage return":          "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rY: b\r\n\r\n",
		"NUL in a header":               "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\x00b\r\n\r\n",
		"DEL in a header":               "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\x7fb\r\n\r\n",
		"folded line":                   "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\n b\r\n\r\n",
		"folded first line":             "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n",
		"folded by tab":                 "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\n\tTransfer-Encoding: chunked\r\n\r\n",
		"space before the colon":        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length : 5\r\n\r\nhello",
		"tab before the colon":          "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
		"no name":                       "GET / HTTP/1.1\r\nHost: a.test\r\n: a\r\n\r\n",
		"no colon":                      "GET / HTTP/1.1\r\nHost: a.test\r\nX\r\n\r\n",
		"name with a space":             "GET / HTTP/1.1\r\nHost: a.test\r\nX Y: a\r\n\r\n",
		"name beyond ASCII":             "GET / HTTP/1.1\r\nHost: a.test\r\nX\xe4: a\r\n\r\n",
		"cut short":                     "GET / HTTP/1.1\r\nHost: a.test\r\n",
		"no host":                       "GET / HTTP/1.1\r\n\r\n",
		"empty host":                    "GET / HTTP/1.1\r\nHost:\r\n\r\n",
		"two hosts":                     "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
		"another host":                  "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n",
		"another port":                  "GET / HTTP/1.1\r\nHost: a.test:81\r\n\r\n",
		"port with a sign":              "GET / HTTP/1.1\r\nHost: a.test:+80\r\n\r\n",
		"empty port":                    "GET / HTTP/1.1\r\nHost: a.test:\r\n\r\n",
		"host with a user":              "GET / HTTP/1.1\r\nHost: x@a.test\r\n\r\n",
		"host with a path":              "GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n",
		"host list":                     "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
		"host with a dot behind":        "GET / HTTP/1.1\r\nHost: a.test.\r\n\r\n",
		"two spaces":                    "GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"space in the target":           "GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"tab in the target":             "GET /a\tb HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"no target":                     "GET HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"absolute form":                 "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"absolute form, another place":  "GET http://10.0.0.1/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"relative":                      "GET a HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"asterisk":                      "GET * HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"CONNECT":                       "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"CONNECT with a path":           "CONNECT / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"HTTP/1.0":                      "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n",
		"HTTP/2":                        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HTTP/0.9":                      "GET /\r\n\r\n",
		"lower case version":            "GET / http/1.1\r\nHost: a.test\r\n\r\n",
		"long version":                  "GET / HTTP/1.1 x\r\nHost: a.test\r\n\r\n",
		"method with a colon":           "GET: / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"long method":                   strings.Repeat("G", maxMethod+1) + " / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"length and coding":             "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"coding and length":             "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"coding and length, other case": "POST / HTTP/1.1\r\nHost: a.test\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
		"two lengths":                   "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"two equal lengths":             "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
		"list of lengths":               "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5, 5\r\n\r\nhello",
		"length with a sign":            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +5\r\n\r\nhello",
		"negative length":               "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: -5\r\n\r\nhello",
		"hexadecimal length":            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0x5\r\n\r\nhello",
		"underscored length":            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1_0\r\n\r\nhello",
		"empty length":                  "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length:\r\n\r\nhello",
		"length beyond 64 bits":         "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
		"unknown coding":                "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"coding, vertical tab":          "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
		"coding, parameter":             "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
		"two codings":                   "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two codings, one identity":     "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"identity":                      "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: identity\r\n\r\n",
		"bad trailer":                   "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: a b\r\n\r\n0\r\n\r\n",
		"upgrade with a body":           "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
		"upgrade of a POST":             "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"long head":                     "GET / HTTP/1.1\r\nHost: a.test\r\nX: " + strings.Repeat("x", maxRequestHead) + "\r\n\r\n",
		"long line without end":         "GET /" + strings.Repeat("x", maxRequestHead),
		"many lines":                    "GET / HTTP/1.1\r\nHost: a.test\r\n" + strings.Repeat("X: y\r\n", maxFields) + "\r\n",
		"second request in the head":    "GET / HTTP/1.1\r\nHost: a.test\r\nGET /b HTTP/1.1\r\nHost: a.test\r\n\r\n",
	} {
		if q, _, err := parse(text, authority); err == nil {
			t.Errorf("%s: accepted as %+v", name, q)
		} else if name != "nothing" && name != "cut short" && !strings.HasPrefix(name, "long line") && !errors.Is(err, errRequest) {
			t.Errorf("%s: %v is not a malformed request", name, err)
		}
	}
}

// TestRequestHosts checks which Host fields go with which destination of a stream.
func TestRequestHosts(t *testing.T) {
	for _, test := range []struct {
		host, authority string
		ok              bool
	}{
		{"a.test", "a.test:80", true},
		{"a.test:80", "a.test:80", true},
		{"A.Test", "a.test:80", true},
		{"a_b-c.test:8080", "a_b-c.test:8080", true},
		{"127.0.0.1:8080", "127.0.0.1:8080", true},
		{"[::1]", "[::1]:80", true},
		{"[::1]:81", "[::1]:81", true},
		{"::1", "[::1]:80", false},
		{"[::1", "[::1]:80", false},
		{"[::1%25lo]", "[::1%25lo]:80", false},
		{"[127.0.0.1]", "[127.0.0.1]:80", false},
		{"a.test", "a.test:8080", false},
		{"a.test:08", "a.test:8", false},
		{"a.test:http", "a.test:http", false},
		{"a%2etest", "a%2etest:80", false},
	} {
		q, _, err := parse("GET / HTTP/1.1\r\nHost: "+test.host+"\r\n\r\n", test.authority)
		if (err == nil) != test.ok || err == nil && q.host != test.host {
			t.Errorf("%s for %s: %v", test.host, test.authority, err)
		}
	}
}

// TestRequestBodies checks what is read as the body, and that reading stops behind it.
func TestRequestBodies(t *testing.T) {
	const start = "POST / HTTP/1.1\r\nHost: a.test\r\n"
	for name, test := range map[string]struct {
		text, body, trailer, rest string
		err                       error
	}{
		"none":    {text: "\r\nnext", rest: "next"},
		"length":  {text: "Content-Length: 5\r\n\r\nhellonext", body: "hello", rest: "next"},
		"chunks":  {text: "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\nnext", body: "hello!", rest: "next"},
		"trailer": {text: "Transfer-Encoding: chunked\r\nTrailer: x-a, Host\r\n\r\n1\r\n!\r\n0\r\nX-A: 1\r\nX-B: 2\r\nHost: b\r\n\r\nnext", body: "!", trailer: "map[X-A:[1]]", rest: "next"},
		"short":   {text: "Content-Length: 50\r\n\r\nhello", body: "hello", err: io.ErrUnexpectedEOF},
		"ends":    {text: "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", body: "hello", err: io.ErrUnexpectedEOF},
		"smuggle": {text: "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\nZ: a\r\n\r\n", err: errRequest},
	} {
		q, r, err := parse(start+test.text, "a.test:80")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, err := io.ReadAll(q.body(r))
		if string(body) != test.body || !errors.Is(err, test.err) {
			t.Errorf("%s: %q, %v; want %q, %v", name, body, err, test.body, test.err)
		}
		if test.trailer != "" && fmt.Sprint(q.trailer) != test.trailer {
			t.Errorf("%s: trailer %v, want %s", name, q.trailer, test.trailer)
		}
		if rest, _ := io.ReadAll(r); err == nil && string(rest) != test.rest {
			t.Errorf("%s: left %q, want %q", name, rest, test.rest)
		}
	}
}

// FuzzRequest checks that whatever is accepted goes out as one request that a strict server reads alike,
// with the same target byte for byte and nothing of what must not pass.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET //a;b%zz?x=1;y HTTP/1.1\r\nHost: a.test:80\r\nX-A: b\r\nVia: c\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
		"POST /a HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n5\r\nhello\r\n0\r\nX-A: b\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: x, y\r\nX: 1\r\nX-Forwarded-For: 1\r\nTorproxy-Prefetch: page\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a.test\r\nTorproxyh: another's name, which passes\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, r, err := parse(text, "a.test:80")
		if err != nil {
			return
		}
		body, bodyErr := io.ReadAll(q.body(r))
		if bodyErr != nil {
			return
		}
		sent := &http.Request{Method: q.method, URL: q.url("a.test:80"), Host: q.host, Header: q.header.Clone(), ContentLength: q.length, Trailer: q.trailer}
		if q.length != 0 {
			sent.Body = io.NopCloser(bytes.NewReader(body))
		}
		var wire bytes.Buffer
		if err := sent.Write(&wire); err != nil {
			t.Fatalf("%q cannot be sent on: %v", text, err)
		}
		line, _, _ := strings.Cut(wire.String(), "\r\n")
		if want := q.method + " " + q.target + " HTTP/1.1"; line != want && line != q.method+" http://"+q.host+q.target+" HTTP/1.1" {
			t.Errorf("sent on as %q, want %q", line, want)
		}
		checkRead(t, q, bufio.NewReader(&wire), body)
	})
}

// checkRead reads what was sent on as a server does.
func checkRead(t *testing.T, q *request, wire *bufio.Reader, body []byte) {
	line, err := wire.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_ = line // a server may refuse the target itself, which is the destination's business
	got, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader("POST / HTTP/1.1\r\n"), wire)))
	if err != nil {
		t.Fatalf("a server cannot read it: %v", err)
	}
	read, err := io.ReadAll(got.Body)
	if err != nil || !bytes.Equal(read, body) || got.Host != q.host {
		t.Errorf("a server reads the body %q for %s, %v; want %q for %s", read, got.Host, err, body, q.host)
	}
	for name := range got.Header {
		if !passes(name) || strings.HasPrefix(name, "Torproxy-") {
			if !slices.Contains([]string{"Content-Length", "Trailer"}, name) {
				t.Errorf("%s has passed", name)
			}
		}
	}
	if rest, _ := io.ReadAll(wire); len(rest) > 0 {
		t.Errorf("a second request is behind the first: %q", rest)
	}
}
