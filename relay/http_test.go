package relay

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// TestHTTPBadReplies checks which replies give the client an END, and which are cut short.
func TestHTTPBadReplies(t *testing.T) {
	for name, test := range map[string]struct {
		reply, want string // what comes before the END
	}{
		"nothing":           {"\x00", ""},
		"no HTTP":           {"hello\x00", ""},
		"HTTP/0.9":          {"<html>\r\n\r\n\x00", ""},
		"two lengths":       {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nyes\x00", ""},
		"strange coding":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n\x00", ""},
		"status 099":        {"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", ""},
		"unasked 101":       {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", ""},
		"long head":         {"HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", maxReplyHead) + "\r\n\r\n\x00", ""},
		"many interim ones": {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxInterim+1) + ok, ""},
		"short body":        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nyes\x00", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nyes"},
		"short chunks":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n\x00", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nyes\r\n"},
		"control character": {"HTTP/1.1 200 OK\r\nX-A: a\rTorproxy-Open: http://a/\r\n\r\n\x00", ""},
		"bad chunk":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\nyes\r\n\x00", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"long trailer":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: " + strings.Repeat("a", maxReplyHead) + "\r\n\r\n\x00", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			server := serveRaw(t, test.reply)
			onLoopback(t, nil, func(b *bed) {
				got, err := io.ReadAll(b.get(b.session(0, 1), server.addr(), "/", "").in)
				if string(got) != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
				wantEnd(t, name, err, wire.ReasonReset)
			})
		})
	}
}

// TestHTTPPool checks that requests of one circuit share a connection, that another circuit has its own, and
// that they end with their circuits.
func TestHTTPPool(t *testing.T) {
	server := serveRaw(t, ok)
	onLoopback(t, nil, func(b *bed) {
		first, second := b.session(0, 1), b.session(0, 1)
		for range 3 {
			b.get(first, server.addr(), "/", "").page("GET")
			b.get(second, server.addr(), "/", "").page("GET")
		}
		if heads, conns := server.seen(); len(heads) != 6 || conns != 2 {
			t.Errorf("%d requests over %d connections, want 6 over 2", len(heads), conns)
		}
		first.Close(nil)
		second.Close(nil)
		server.open.Wait() // the server's ends have ended
		if n := b.relays[1].exits.Load(); n != 0 {
			t.Errorf("%d connections are counted", n)
		}
	})
}

// TestHTTPIdle checks, in virtual time, how long and how many connections wait for another request.
func TestHTTPIdle(t *testing.T) {
	var all []*destination
	answer := func(there net.Conn) {
		in := bufio.NewReader(there)
		for {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			<-time.After(time.Second)
			io.WriteString(there, ok)
		}
	}
	configure := exitTo(t, func(d *destination, there net.Conn) {
		all = append(all, d)
		go answer(there)
	})
	onBed(t, 2, configure, func(b *bed) {
		s := b.session(0, 1)
		var visits []*visit
		for range maxIdle + 3 {
			visits = append(visits, b.get(s, "198.41.0.4:80", "/", ""))
			<-time.After(100 * time.Millisecond) // the simulated destinations are made one by one
		}
		for _, v := range visits {
			v.page("GET")
		}
		idle := func() (n int) {
			for _, d := range all {
				select {
				case <-d.closed:
				default:
					n++
				}
			}
			return n
		}
		<-time.After(time.Second)
		if got := idle(); got != maxIdle {
			t.Errorf("%d connections wait, want %d", got, maxIdle)
		}
		<-time.After(idleTimeout)
		if got, counted := idle(), b.relays[1].exits.Load(); got != 0 || counted != 0 {
			t.Errorf("%d connections wait after %v, %d are counted", got, idleTimeout, counted)
		}
	})
}

// TestHTTPBothWays sends a body and reads the answer at the same time, more than every buffer holds, with
// trailers in both directions.
func TestHTTPBothWays(t *testing.T) {
	const size = 8 << 20
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(200)
		n, err := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", fmt.Sprint(n, err, r.Trailer))
	})
	onLoopback(t, nil, func(b *bed) {
		v := b.visit(b.session(0, 1), server, "POST / HTTP/1.1\r\nHost: "+server+"\r\nTransfer-Encoding: chunked\r\nTrailer: X-End, Via\r\n\r\n")
		sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		go func() {
			for rest := sent; len(rest) > 0; {
				n := min(len(rest), 100000)
				fmt.Fprintf(v.stream, "%x\r\n%s\r\n", n, rest[:n])
				rest = rest[n:]
			}
			io.WriteString(v.stream, "0\r\nX-End: yes\r\nVia: me\r\n\r\n")
		}()
		resp, body := v.page("POST")
		if body != string(sent) {
			t.Errorf("%d bytes came back of %d", len(body), len(sent))
		}
		if got, want := resp.Trailer.Get("X-Sum"), fmt.Sprint(size, "<nil>map[X-End:[yes]]"); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("trailer %q, want %q", got, want)
		}
	})
}

// TestHTTPUpload sends a body that is larger than the first credit to a destination that answers at its end.
func TestHTTPUpload(t *testing.T) {
	const size = 1 << 20
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, " ", err)
	})
	onLoopback(t, nil, func(b *bed) {
		v := b.visit(b.session(0, 1), server, fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", server, size))
		go v.stream.Write(make([]byte, size))
		if _, body := v.page("POST"); body != fmt.Sprint(size, " <nil>") {
			t.Errorf("the destination got %s", body)
		}
	})
}

// TestHTTPFlow lets a client read nothing: the exit stops reading the destination.
func TestHTTPFlow(t *testing.T) {
	wrote := make(chan int, 1)
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		total := 0
		for r.Context().Err() == nil && total < 64<<20 {
			n, err := w.Write(make([]byte, 64<<10))
			if total += n; err != nil {
				break
			}
		}
		wrote <- total
	})
	onLoopback(t, nil, func(b *bed) {
		v := b.get(b.session(0, 1), server, "/", "")
		v.head("GET")
		v.stream.Close()
		if total := <-wrote; total >= 64<<20 {
			t.Errorf("the destination wrote all of its %d bytes", total)
		}
	})
}

// TestHTTPGivenUp ends the stream, or the circuit, while the destination works: its request ends.
func TestHTTPGivenUp(t *testing.T) {
	for name, end := range map[string]func(v *visit, s *mux.Session){
		"stream":  func(v *visit, _ *mux.Session) { v.stream.Close() },
		"circuit": func(_ *visit, s *mux.Session) { s.Close(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			began, gone := make(chan struct{}), make(chan struct{})
			server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
				close(began)
				<-r.Context().Done()
				close(gone)
			})
			onLoopback(t, nil, func(b *bed) {
				s := b.session(0, 1)
				v := b.get(s, server, "/", "")
				<-began
				end(v, s)
				<-gone
			})
		})
	}
}

// TestHTTPExpect checks that a body waits for 100, and is not sent when another reply comes.
func TestHTTPExpect(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		body, _ := io.ReadAll(r.Body) // which says 100
		w.Write(body)
	})
	onLoopback(t, nil, func(b *bed) {
		s := b.session(0, 1)
		const lines = "Content-Length: 4\r\nExpect: 100-Continue\r\n\r\n"
		v := b.visit(s, server, "PUT / HTTP/1.1\r\nHost: "+server+"\r\n"+lines)
		if resp := v.head("PUT"); resp.StatusCode != http.StatusContinue {
			t.Errorf("got %s, want 100", resp.Status)
		}
		io.WriteString(v.stream, "body")
		if _, body := v.page("PUT"); body != "body" {
			t.Errorf("got %q", body)
		}
		v = b.visit(s, server, "PUT /no HTTP/1.1\r\nHost: "+server+"\r\n"+lines)
		if resp, _ := v.page("PUT"); resp.StatusCode != http.StatusExpectationFailed {
			t.Errorf("got %s, want 417", resp.Status)
		}
	})
}

// TestHTTPEarlyReply lets a destination answer and close while the request's body still comes.
func TestHTTPEarlyReply(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "too large")
	})
	onLoopback(t, nil, func(b *bed) {
		v := b.visit(b.session(0, 1), server, "POST / HTTP/1.1\r\nHost: "+server+"\r\nContent-Length: 100000000\r\n\r\n")
		go v.stream.Write(make([]byte, 100000000))
		resp := v.head("POST")
		if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusRequestEntityTooLarge || string(body) != "too large" {
			t.Errorf("got %s, %q, %v", resp.Status, body, err)
		}
		v.stream.Close()
	})
}

// TestHTTPFailures checks the reasons of requests that reach no destination.
func TestHTTPFailures(t *testing.T) {
	closed := serve(t, func(http.ResponseWriter, *http.Request) {})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	refusing := l.Addr().String()
	configure := func(i int, c *Config) {
		c.Resolver = zone{"private.test.": book.zone["private.test."], "nat64.test.": book.zone["inside.test."]}
		if i == 1 {
			c.Policy = policy(t, "accept 127.0.0.1:*,accept *:80")
		}
	}
	onLoopback(t, configure, func(b *bed) {
		s := b.session(0, 1)
		for target, want := range map[string]wire.Reason{
			refusing:                    wire.ReasonRefused,
			"missing.test:80":           wire.ReasonDNS,
			"private.test:80":           wire.ReasonPolicy,
			"nat64.test:80":             wire.ReasonPolicy,
			"10.0.0.1:80":               wire.ReasonPolicy,
			"[::ffff:10.0.0.1]:80":      wire.ReasonPolicy,
			"[64:ff9b::10.0.0.1]:80":    wire.ReasonPolicy,
			"169.254.169.254:80":        wire.ReasonPolicy,
			"2130706433:80":             wire.ReasonDNS,
			"0x7f.0.0.1:80":             wire.ReasonDNS,
			"198.41.0.4:81":             wire.ReasonPolicy,
			"no-port.test":              wire.ReasonDNS,
			"test:0":                    wire.ReasonDNS,
			"user@private.test:80":      wire.ReasonUnsupported,
			"private.test/path:80":      wire.ReasonUnsupported,
			"[fe80::1%25lo]:80":         wire.ReasonUnsupported,
			"private.test,localhost:80": wire.ReasonUnsupported,
		} {
			b.get(s, target, "/", "").fails(target, want)
		}
		_, err := io.ReadAll(b.visit(b.session(0), closed, "GET / HTTP/1.1\r\nHost: "+closed+"\r\n\r\n").in)
		wantEnd(t, "no exit", err, wire.ReasonPolicy)
	})
}

// TestHTTPMalformed sends requests that are refused, through a circuit, to a destination that must not see
// any of them; request_test.go has all the forms.
func TestHTTPMalformed(t *testing.T) {
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s arrived", r.RequestURI) })
	onLoopback(t, nil, func(b *bed) {
		s := b.session(0, 1)
		for _, text := range []string{
			"CONNECT " + server + " HTTP/1.1\r\nHost: " + server + "\r\n\r\n",
			"GET http://" + server + "/ HTTP/1.1\r\nHost: " + server + "\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: " + server + "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		} {
			b.visit(s, server, text).fails(text, wire.ReasonUnsupported)
		}
	})
}

// TestHTTPBadBody sends a body that breaks its own framing: the destination must not take it for whole.
func TestHTTPBadBody(t *testing.T) {
	got := make(chan error, 1)
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		got <- err
	})
	onLoopback(t, nil, func(b *bed) {
		s := b.session(0, 1)
		for name, text := range map[string]string{
			"cut short":    "Content-Length: 50\r\n\r\nyes",
			"cut chunk":    "Transfer-Encoding: chunked\r\n\r\n50\r\nyes",
			"no last one":  "Transfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n",
			"bad trailer":  "Transfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\nX Y: z\r\n\r\n",
			"long trailer": "Transfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\nX: " + strings.Repeat("z", maxTrailer) + "\r\n\r\n",
		} {
			v := b.visit(s, server, "POST / HTTP/1.1\r\nHost: "+server+"\r\n"+text)
			v.stream.CloseWrite()
			if _, err := io.ReadAll(v.in); err == nil {
				t.Errorf("%s: the client got a reply", name)
			}
			if err := <-got; err == nil {
				t.Errorf("%s: the destination took the body for whole", name)
			}
		}
	})
}

// TestHTTPBounds fills what all circuits share: one more is refused.
func TestHTTPBounds(t *testing.T) {
	configure := exitTo(t, func(_ *destination, there net.Conn) { go answerOnce(there) })
	onBed(t, 2, configure, func(b *bed) {
		r, s := b.relays[1], b.session(0, 1)
		for what, full := range map[string]struct {
			counter *atomic.Int64
			bound   int64
		}{"heads": {&r.heads, maxHeads}, "connections": {&r.exits, maxExits}} {
			full.counter.Add(full.bound)
			b.get(s, "198.41.0.4:80", "/", "").fails(what, wire.ReasonResourceLimit)
			full.counter.Add(-full.bound)
			if resp, _ := b.get(s, "198.41.0.4:80", "/", "").page("GET"); resp.StatusCode != http.StatusNoContent {
				t.Errorf("%s: with room again, got %s", what, resp.Status)
			}
		}
	})
}

// TestHTTPDialGivenUp ends a stream while its connection is being made: that ends too, at once.
func TestHTTPDialGivenUp(t *testing.T) {
	ended := make(chan error, 1)
	configure := func(i int, c *Config) {
		c.Policy = policy(t, "accept *:*")
		c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}
	}
	onBed(t, 2, configure, func(b *bed) {
		v := b.get(b.session(0, 1), "198.41.0.4:80", "/", "")
		<-time.After(time.Second)
		v.stream.Close()
		<-time.After(time.Second)
		select {
		case err := <-ended:
			if err != context.Canceled {
				t.Errorf("the dial ended with %v", err)
			}
		default:
			t.Error("the dial goes on")
		}
		if n := b.relays[1].exits.Load(); n != 0 {
			t.Errorf("%d connections are counted", n)
		}
	})
}

// TestHTTPTimeouts checks the time-outs exactly, in virtual time.
func TestHTTPTimeouts(t *testing.T) {
	const host = "198.41.0.4:80"
	for name, test := range map[string]struct {
		request, reply string // what is sent, and what the destination says to it
		after          time.Duration
		want           wire.Reason
	}{
		"no request":    {"GET / HTTP/1.1\r\n", "", requestTimeout, wire.ReasonTimeout},
		"no reply":      {"GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "", replyTimeout, wire.ReasonTimeout},
		"half a reply":  {"GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "HTTP/1.1 200 OK\r\n", replyTimeout, wire.ReasonTimeout},
		"quiet body":    {"GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nyes", quietTimeout, wire.ReasonReset},
		"quiet request": {"PUT / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 50\r\n\r\nyes", "", quietTimeout, wire.ReasonTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			configure := exitTo(t, func(_ *destination, there net.Conn) {
				go func() {
					in := bufio.NewReader(there)
					if _, err := readHead(in, maxRequestHead); err == nil {
						go io.WriteString(there, test.reply)
					}
					io.Copy(io.Discard, in)
				}()
			})
			onBed(t, 2, configure, func(b *bed) {
				s := b.session(0, 1)
				began := time.Now()
				v := b.visit(s, host, test.request)
				_, err := io.ReadAll(v.in)
				wantEnd(t, name, err, test.want)
				if took := time.Since(began).Truncate(time.Second); took != test.after {
					t.Errorf("after %v, want %v", took, test.after)
				}
			})
		})
	}
}

// changing is a resolver whose name moves to a private address after the first look.
type changing struct {
	zone
	asked map[string]int
	mu    sync.Mutex
}

func (c *changing) LookupNetIP(_ context.Context, network, _ string) ([]netip.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked[network]++; network == "ip6" {
		return nil, &net.DNSError{IsNotFound: true}
	}
	if c.asked[network] > 1 {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	return []netip.Addr{netip.MustParseAddr("198.41.0.4")}, nil
}

// TestHTTPSecondLookup lets a name point to a private address when it is looked up again: the circuit's next
// connection is refused like a first one.
func TestHTTPSecondLookup(t *testing.T) {
	configure := func(i int, c *Config) {
		exitTo(t, func(_ *destination, there net.Conn) { go answerOnce(there) })(i, c)
		c.Resolver = &changing{asked: map[string]int{}}
	}
	onBed(t, 2, configure, func(b *bed) {
		s := b.session(0, 1)
		for range 2 {
			if resp, _ := b.get(s, "moving.test:80", "/", "").page("GET"); resp.StatusCode != http.StatusNoContent {
				t.Errorf("got %s", resp.Status)
			}
		}
		<-time.After(nameLife)
		b.get(s, "moving.test:80", "/", "").fails("after its name has moved", wire.ReasonPolicy)
	})
}

// answerOnce answers one request and closes.
func answerOnce(there net.Conn) {
	defer there.Close()
	if _, err := http.ReadRequest(bufio.NewReader(there)); err == nil {
		io.WriteString(there, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	}
}
