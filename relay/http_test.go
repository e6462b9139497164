package relay

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"

	"torproxy/wire"
	"torproxy/wire/mux"
)

// visit is one stream of kind http and what is read from it.
type visit struct {
	t      *testing.T
	stream *mux.Stream
	in     *bufio.Reader
}

// visit opens a stream of kind http and sends text on it.
func (b *bed) visit(s *mux.Session, target, text string) *visit {
	b.t.Helper()
	st, err := s.Open(wire.KindHTTP, target)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := io.WriteString(st, text); err != nil {
		b.t.Fatal(err)
	}
	return &visit{b.t, st, bufio.NewReader(st)}
}

// get sends a GET with further header lines, each with its line end.
func (b *bed) get(s *mux.Session, target, path, lines string) *visit {
	b.t.Helper()
	return b.visit(s, target, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, target, lines))
}

// head reads the head of the reply, or of one before it.
func (v *visit) head(method string) *http.Response {
	v.t.Helper()
	resp, err := http.ReadResponse(v.in, &http.Request{Method: method})
	if err != nil {
		v.t.Fatalf("no reply: %v", err)
	}
	return resp
}

// page reads the whole reply and checks that nothing follows it.
func (v *visit) page(method string) (*http.Response, string) {
	v.t.Helper()
	resp := v.head(method)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatalf("reply cut short: %v", err)
	}
	if rest, err := io.ReadAll(v.in); err != nil || len(rest) > 0 {
		v.t.Fatalf("behind the reply: %q, %v", rest, err)
	}
	v.stream.Close()
	return resp, string(body)
}

// fails checks how the stream ends without a reply.
func (v *visit) fails(what string, want wire.Reason) {
	v.t.Helper()
	_, err := v.in.ReadByte()
	wantEnd(v.t, what, err, want)
}

// serve runs an HTTP server on loopback and returns HOST:PORT.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// raw is a server that writes what it is told to, byte for byte, and keeps what it reads.
type raw struct {
	t        *testing.T
	listener net.Listener
	mu       sync.Mutex
	heads    []string // of each request, without the empty line
	conns    int
	open     sync.WaitGroup
}

// serveRaw answers each request on every connection with the next of replies, the last one again and
// again. A reply that ends with a zero byte ends the connection.
func serveRaw(t *testing.T, replies ...string) *raw {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{t: t, listener: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns++
			r.mu.Unlock()
			r.open.Go(func() { r.converse(c, replies) })
		}
	}()
	t.Cleanup(func() { l.Close(); r.open.Wait() })
	return r
}

func (r *raw) addr() string { return r.listener.Addr().String() }

func (r *raw) converse(c net.Conn, replies []string) {
	defer c.Close()
	in := textproto.NewReader(bufio.NewReader(c))
	for {
		var head []string
		for {
			line, err := in.ReadLine()
			if err != nil {
				return
			}
			if line == "" {
				break
			}
			head = append(head, line)
		}
		r.mu.Lock()
		reply := replies[min(len(r.heads), len(replies)-1)]
		r.heads = append(r.heads, strings.Join(head, "\n"))
		r.mu.Unlock()
		text, last := strings.CutSuffix(reply, "\x00")
		if _, err := io.WriteString(c, text); err != nil || last {
			return
		}
	}
}

func (r *raw) seen() (heads []string, conns int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.heads), r.conns
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// TestHTTPRequestAsWritten checks what reaches the destination, byte for byte: the target untouched, nothing
// added, and nothing that names the client.
func TestHTTPRequestAsWritten(t *testing.T) {
	server := serveRaw(t, ok)
	onLoopback(t, nil, func(b *bed) {
		s := b.session(0, 1)
		for i, test := range []struct{ request, want string }{
			{"GET / HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET / HTTP/1.1\nHost: HOST"},
			{"GET /a;b//c/../d?x=1;y=2&z=%zz HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /a;b//c/../d?x=1;y=2&z=%zz HTTP/1.1\nHost: HOST"},
			{"GET /%zz/%2F/\"<>\\^`{|}?? HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /%zz/%2F/\"<>\\^`{|}?? HTTP/1.1\nHost: HOST"},
			{"GET //two//slashes%2f? HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET //two//slashes%2f? HTTP/1.1\nHost: HOST"},
			{"GET //bad%zz?q HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET http://HOST//bad%zz?q HTTP/1.1\nHost: HOST"},
			{"GET /\xc3\xa4?\xc3\xa4 HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /\xc3\xa4?\xc3\xa4 HTTP/1.1\nHost: HOST"},
			{"OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n", "OPTIONS * HTTP/1.1\nHost: HOST"},
			{"QUERY_X! /m HTTP/1.1\r\nhost: HOST\r\n\r\n", "QUERY_X! /m HTTP/1.1\nHost: HOST"},
			{"POST /p HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n", "POST /p HTTP/1.1\nHost: HOST\nContent-Length: 0"},
			{
				"GET / HTTP/1.1\r\nHost: HOST\r\nUser-Agent: me\r\nAccept-Encoding: br\r\nCookie: a=b\r\nCookie: c=d\r\nAuthorization: Basic eDp5\r\n" +
					"Accept: text/html\r\nReferer: http://a.test/\r\nX-Empty:\r\nSec-Fetch-Mode: navigate\r\n\r\n",
				"GET / HTTP/1.1\nHost: HOST\nUser-Agent: me\nAccept: text/html\nAccept-Encoding: br\nAuthorization: Basic eDp5\nCookie: a=b\nCookie: c=d\n" +
					"Referer: http://a.test/\nSec-Fetch-Mode: navigate\nX-Empty: ",
			},
			{
				"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n" +
					"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nProxy-Anything: x\r\nTorproxy-Prefetch: page\r\nTorproxy-Else: x\r\n\r\n",
				"GET / HTTP/1.1\nHost: HOST",
			},
			{
				"GET / HTTP/1.1\r\nHost: HOST\r\nVia: 1.1 me\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: h\r\nX-Real-IP: 10.0.0.1\r\n" +
					"Client-IP: 10.0.0.1\r\nTrue-Client-IP: 10.0.0.1\r\nX_Client_IP: 10.0.0.1\r\nCF-Connecting-IP: 10.0.0.1\r\nX-Cluster-Client-IP: 10.0.0.1\r\nFrom: me@example.org\r\n" +
					"X-Original-Forwarded-For: 10.0.0.1\r\nWL-Proxy-Client-IP: 10.0.0.1\r\nX-Nokia-MSISDN: 49\r\nX-Bluecoat-Via: x\r\nX-UIDH: x\r\nX-Kept: x\r\n\r\n",
				"GET / HTTP/1.1\nHost: HOST\nX-Kept: x",
			},
		} {
			text := strings.ReplaceAll(test.request, "HOST", server.addr())
			if _, body := b.visit(s, server.addr(), text).page("GET"); body != "ok" {
				t.Errorf("%q: got %q", test.request, body)
			}
			heads, conns := server.seen()
			if got := strings.ReplaceAll(heads[len(heads)-1], server.addr(), "HOST"); got != test.want {
				t.Errorf("%q arrived as\n%q, want\n%q", test.request, got, test.want)
			}
			if conns != 1 || len(heads) != i+1 {
				t.Errorf("%d requests over %d connections", len(heads), conns)
			}
		}
	})
}

// TestHTTPReplies checks what the client gets for what a destination writes.
func TestHTTPReplies(t *testing.T) {
	for name, test := range map[string]struct {
		method, reply, want string
	}{
		"length":  {"GET", "HTTP/1.1 200 Fine by me\r\nContent-Length: 3\r\nX-B: 2\r\nx-a: 1\r\nX-B: 3\r\n\r\nyes", "HTTP/1.1 200 Fine by me\r\nContent-Length: 3\r\nX-A: 1\r\nX-B: 2\r\nX-B: 3\r\n\r\nyes"},
		"chunked": {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nyes\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nyes\r\n0\r\n\r\n"},
		"trailer": {
			"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest, Via, Torproxy-Open\r\n\r\n3\r\nyes\r\n0\r\nDigest: x\r\nVia: y\r\nTorproxy-Open: http://a/\r\nSet-Cookie: a=b\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTrailer: Digest\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nyes\r\n0\r\nDigest: x\r\n\r\n",
		},
		"until the end":    {"GET", "HTTP/1.0 200 OK\r\n\r\nyes\x00", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nyes\r\n0\r\n\r\n"},
		"HEAD":             {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"},
		"HEAD chunked":     {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"},
		"204":              {"GET", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"},
		"304":              {"GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\n\r\n"},
		"redirect":         {"GET", "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://10.0.0.1/\r\n\r\n"},
		"no phrase":        {"GET", "HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"},
		"cookies in order": {"GET", "HTTP/1.1 200 OK\r\nSet-Cookie: b=1\r\nSet-Cookie: a=2\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: b=1\r\nSet-Cookie: a=2\r\n\r\n"},
		"one hop": {
			"GET", "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Authenticate: Basic\r\nProxy-Status: x\r\nUpgrade: h2c\r\nVia: 1.1 there\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		},
		"ours": {"GET", "HTTP/1.1 200 OK\r\nTorproxy-Open: http://a/\r\ntorproxy-else: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"what is no field": {
			"GET", "HTTP/1.1 200 O\x01K\r\nX A: b\r\nTransfer-Encoding : chunked\r\nX-C: c\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-C: c\r\n\r\n",
		},
		"folded":          {"GET", "HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: a b\r\n\r\n"},
		"chunked, length": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nyes\r\n0\r\n\r\n"},
		"early hints":     {"GET", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nVia: x\r\n\r\n" + ok, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		"unasked 100":     {"GET", "HTTP/1.1 100 Continue\r\n\r\n" + ok, ok},
	} {
		t.Run(name, func(t *testing.T) {
			server := serveRaw(t, test.reply)
			onLoopback(t, nil, func(b *bed) {
				v := b.visit(b.session(0, 1), server.addr(), fmt.Sprintf("%s / HTTP/1.1\r\nHost: %s\r\n\r\n", test.method, server.addr()))
				got, err := io.ReadAll(v.in)
				if err != nil || string(got) != test.want {
					t.Errorf("got %q, %v\nwant %q", got, err, test.want)
				}
			})
		})
	}
}
