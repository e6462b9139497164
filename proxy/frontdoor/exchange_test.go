package frontdoor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// deadStream is a stream whose reads say what has become of it.
type deadStream struct {
	net.Conn
	err    error
	closed atomic.Bool
}

func (s *deadStream) Read([]byte) (int, error)    { return 0, s.err }
func (s *deadStream) Write(p []byte) (int, error) { return len(p), nil }
func (s *deadStream) Close() error                { s.closed.Store(true); return nil }

// lazyDialer is a Dial that learns only from After that a stream came to nothing, as streams over which exits make
// requests do.
type lazyDialer struct {
	streams []net.Conn // to give out, one after the other
	refuse  error      // when there are no more
	asked   []Request
}

func (l *lazyDialer) dial(_ context.Context, r Request) (net.Conn, error) {
	l.asked = append(l.asked, r)
	if r.After != nil {
		r.After.Close()
	}
	if len(l.streams) == 0 {
		return nil, l.refuse
	}
	next := l.streams[0]
	l.streams = l.streams[1:]
	return next, nil
}

// answering is a stream that answers one request.
func answering(answer string) net.Conn {
	near, far := net.Pipe()
	go func() {
		readHead(bufio.NewReader(far))
		io.WriteString(far, strings.ReplaceAll(answer, "\n", "\r\n"))
		far.Close()
	}()
	return near
}

const emptyAnswer = "HTTP/1.1 200 OK\nContent-Length: 0\n\n"

// Which requests go out a second time: a GET or HEAD without body that nothing was answered to.
func TestForwardTriesAgain(t *testing.T) {
	gone := &wire.EndError{Reason: wire.ReasonShutdown, Remote: true}
	half, full := "HTTP/1.1 200 OK\nContent-", emptyAnswer
	for name, test := range map[string]struct {
		request string
		first   func() net.Conn
		dials   int
		status  int
	}{
		"GET":              {"GET http://a.test/ HTTP/1.1\nHost: x\n\n", func() net.Conn { return &deadStream{err: gone} }, 2, 200},
		"HEAD":             {"HEAD http://a.test/ HTTP/1.1\nHost: x\n\n", func() net.Conn { return &deadStream{err: gone} }, 2, 200},
		"a broken circuit": {"GET http://a.test/ HTTP/1.1\nHost: x\n\n", func() net.Conn { return &deadStream{err: errors.New("broken")} }, 2, 200},
		"DELETE":           {"DELETE http://a.test/ HTTP/1.1\nHost: x\n\n", func() net.Conn { return &deadStream{err: gone} }, 1, 502},
		"POST":             {"POST http://a.test/ HTTP/1.1\nHost: x\n\n", func() net.Conn { return &deadStream{err: gone} }, 1, 502},
		"GET with a body":  {"GET http://a.test/ HTTP/1.1\nHost: x\nContent-Length: 1\n\nx", func() net.Conn { return &deadStream{err: gone} }, 1, 502},
		"an upgrade":       {"GET http://a.test/ HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n\n", func() net.Conn { return &deadStream{err: gone} }, 1, 502},
		"half an answer":   {"GET http://a.test/ HTTP/1.1\nHost: x\n\n", func() net.Conn { return answering(half) }, 1, 502},
		"no answer at all": {"GET http://a.test/ HTTP/1.1\nHost: x\n\n", func() net.Conn { return answering("") }, 1, 502},
		"an interim one":   {"GET http://a.test/ HTTP/1.1\nHost: x\n\n", func() net.Conn { return answering("HTTP/1.1 103 Early Hints\n\n") }, 1, 103},
		"a whole answer":   {"GET http://a.test/ HTTP/1.1\nHost: x\n\n", func() net.Conn { return answering(full) }, 1, 200},
	} {
		t.Run(name, func(t *testing.T) {
			first := test.first()
			l := &lazyDialer{streams: []net.Conn{first, answering(full)}}
			f := start(t, func(c *Config) { c.Dial = l.dial })
			r := f.send(test.request).head("GET")
			f.stop()
			for _, unused := range l.streams {
				unused.Close()
			}
			if r.StatusCode != test.status || len(l.asked) != test.dials {
				t.Errorf("%s after %d dials, want %d after %d", r.Status, len(l.asked), test.status, test.dials)
			}
			if dead, ok := first.(*deadStream); ok && !dead.closed.Load() {
				t.Error("the stream that failed is open still")
			}
			if test.dials == 2 && (l.asked[1].After != first || l.asked[0].After != nil || !l.asked[1].HTTP || l.asked[1].Target != "a.test:80") {
				t.Errorf("dialled %+v", l.asked)
			}
		})
	}
}

// What Dial says in the end is what the client is told, and it need not end by itself.
func TestForwardStopsTrying(t *testing.T) {
	l := &lazyDialer{refuse: fmt.Errorf("three circuits: %w", &wire.EndError{Reason: wire.ReasonDNS, Remote: true})}
	l.streams = []net.Conn{&deadStream{err: io.ErrUnexpectedEOF}}
	f := start(t, func(c *Config) { c.Dial = l.dial })
	r, body := f.do("GET http://a.test/ HTTP/1.1\nHost: x\n\n")
	if r.StatusCode != 502 || !strings.Contains(body, "does not resolve") || len(l.asked) != 2 {
		t.Errorf("%s %q after %d dials", r.Status, body, len(l.asked))
	}
	l.asked, l.streams = nil, slices.Repeat([]net.Conn{&deadStream{err: io.ErrUnexpectedEOF}}, 100)
	if r, body = f.do("GET http://a.test/ HTTP/1.1\nHost: x\n\n"); r.StatusCode != 502 || len(l.asked) != maxAttempts {
		t.Errorf("%s %q after %d dials", r.Status, body, len(l.asked))
	}
}

// An exit that makes no requests still carries them.
func TestForwardFallsBack(t *testing.T) {
	unsupported := &wire.EndError{Reason: wire.ReasonUnsupported, Remote: true}
	var asked []Request
	f := start(t, func(c *Config) {
		c.Prefetch, c.ParseLink = true, parseAny
		c.Dial = func(_ context.Context, r Request) (net.Conn, error) {
			asked = append(asked, r)
			switch {
			case r.After != nil:
				return nil, fmt.Errorf("no other exit either: %w", unsupported)
			case r.HTTP:
				return &deadStream{err: unsupported}, nil
			}
			return answering("HTTP/1.1 200 OK\nContent-Length: 2\nTorproxy-Open: http://evil.test/\n\nok"), nil
		}
	})
	r, body := f.do("GET http://a.test/ HTTP/1.1\nHost: x\nAccept: text/html\n\n")
	if body != "ok" || len(asked) != 3 || asked[2].HTTP || asked[2].After != nil || r.Header.Get("Torproxy-Open") != "" {
		t.Errorf("%s %v %q after %+v", r.Status, r.Header, body, asked)
	}
	if links := f.front.Links(); len(links) != 0 {
		t.Errorf("a destination has asked to open %v", links)
	}
	if r, _ := f.do("POST http://a.test/ HTTP/1.1\nHost: x\nContent-Length: 1\n\nx"); r.StatusCode != 502 {
		t.Errorf("a POST was sent twice: %s", r.Status)
	}
}

// Upgrades to WebSocket are the exit's business, others go through a plain stream; the request's own words
// for the front door and its exit pass neither way.
func TestForwardKindOfStream(t *testing.T) {
	for headers, http := range map[string]bool{
		"": true,
		"Upgrade: websocket\nConnection: Upgrade\n": true,
		"Upgrade: WebSocket\nConnection: upgrade\n": true,
		"Upgrade: chat\nConnection: Upgrade\n":      false,
	} {
		l := &lazyDialer{streams: []net.Conn{answering(emptyAnswer)}}
		f := start(t, func(c *Config) { c.Dial = l.dial })
		f.do("GET http://a.test/ HTTP/1.1\nHost: x\n" + headers + "\n")
		if len(l.asked) != 1 || l.asked[0].HTTP != http || l.asked[0].Pushed != nil {
			t.Errorf("%q: dialled %+v", headers, l.asked)
		}
	}
}

// The Host field says what is dialled, whatever the client's way of writing it.
func TestForwardSaysTheHost(t *testing.T) {
	f := start(t)
	for url, want := range map[string]string{
		"http://web.test/":            "web.test web.test:80",
		"http://WEB.test:80/":         "web.test web.test:80",
		"http://web.test:81/":         "web.test:81 web.test:81",
		"http://web.test./":           "web.test. web.test.:80",
		"http://0x7f.1/":              "127.0.0.1 127.0.0.1:80",
		"http://[::ffff:192.0.2.1]/":  "192.0.2.1 192.0.2.1:80",
		"http://[2001:DB8::1]:80/":    "[2001:db8::1] [2001:db8::1]:80",
		"http://[2001:db8::1]:8080/x": "[2001:db8::1]:8080 [2001:db8::1]:8080",
	} {
		host, target, _ := strings.Cut(want, " ")
		heads := f.recorder(target, emptyOK)
		f.do("GET " + url + " HTTP/1.1\nHost: other.test\n\n")
		if head := <-heads; !strings.Contains(head, "\r\nHost: "+host+"\r\n") || strings.Count(head, "Host:") != 1 {
			t.Errorf("%s: %q", url, head)
		}
	}
}

// Links that a reply asks to open: of the exit, not shown by a browser, and not too many.
func TestForwardFindsLinksToOpen(t *testing.T) {
	f := start(t, func(c *Config) { c.ParseLink = parseAny })
	many := ""
	for i := range maxOpens + 2 {
		many += fmt.Sprintf("Torproxy-Open: http://b.test/%d\n", i)
	}
	heads := f.recorder("a.test:80", "HTTP/1.1 200 OK\nContent-Length: 0\nTorproxy-Open: ftp://b.test/\n"+many+"Torproxy-X: y\n\n")
	if r, _ := f.do("GET http://a.test/ HTTP/1.1\nHost: x\nAccept: text/html\n\n"); len(f.front.Links()) != 0 || r.Header.Get("Torproxy-Open") != "" {
		t.Errorf("a browser's own: %v, %v", f.front.Links(), r.Header)
	}
	if f.do("GET http://a.test/ HTTP/1.1\nHost: x\nTorproxy-Open: self\n\n"); len(f.front.Links()) != 0 {
		t.Errorf("of who opens them itself: %v", f.front.Links())
	}
	r, _ := f.do("GET http://a.test/ HTTP/1.1\nHost: x\nTorproxy-Open: http://c.test/\n\n")
	for range 3 {
		if head := <-heads; strings.Contains(head, "Torproxy-Open") {
			t.Errorf("the exit gets %q", head)
		}
	}
	list := f.front.Links()
	if len(list) != maxOpens-1 || list[0].URL != "http://b.test/0" || list[0].From != "a.test:80" {
		t.Errorf("links %v", list)
	}
	if r.Header.Get("Torproxy-Open")+r.Header.Get("Torproxy-X") != "" {
		t.Errorf("the client gets %v", r.Header)
	}
}

// What tells of the client does not leave this machine.
func TestForwardStripsNames(t *testing.T) {
	f := start(t)
	heads := f.recorder("web.test:80", emptyOK)
	f.do("GET http://web.test/ HTTP/1.1\nHost: x\nX-Real-IP: 1\nTrue-Client-IP: 1\nCF-Connecting-IP: 1\nX_Forwarded_For: 1\nFrom: me@x.test\n" +
		"X-Cluster-Client-Ip: 1\nTorproxy-Prefetch: page\nReferer: http://web.test/\nOrigin: http://web.test\nX-Requested-With: kept\n\n")
	want := "GET / HTTP/1.1\r\nHost: web.test\r\nOrigin: http://web.test\r\nReferer: http://web.test/\r\nX-Requested-With: kept\r\n\r\n"
	if got := <-heads; got != want {
		t.Errorf("arrived:\n%s\nwant:\n%s", got, want)
	}
}

// Trailers that would have been stripped as headers are not let through behind the body.
func TestForwardStripsTrailers(t *testing.T) {
	f := start(t)
	arrived := make(chan string, 1)
	f.origin("web.test:80", func(c net.Conn) {
		in := bufio.NewReader(c)
		head, _ := readHead(in)
		rest, _ := readHead(in) // the chunks and the trailer end in an empty line, too
		arrived <- head + rest
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	f.do("POST http://web.test/ HTTP/1.1\nHost: x\nTrailer: X-Sum, X-Forwarded-For, Via\nTransfer-Encoding: chunked\n\n1\na\n0\nVia: 1\nX-Forwarded-For: 1\nX-Sum: 2\nX-Other: 3\n\n")
	want := "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 2\r\n\r\n"
	if got := <-arrived; got != want {
		t.Errorf("arrived:\n%q\nwant:\n%q", got, want)
	}
}

// A body that has no end is not waited for when the answer is there.
func TestForwardAnswerBeforeTheUploadsEnd(t *testing.T) {
	dial := func(context.Context, Request) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			in := bufio.NewReader(far)
			readHead(in)
			io.ReadFull(in, make([]byte, 4))
			io.WriteString(far, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
			io.Copy(io.Discard, in)
		}()
		return near, nil
	}
	inVirtualTime(t, Config{Dial: dial}, func(t *testing.T, p *pipes, stop func() time.Duration) {
		before := time.Now()
		in, c := p.dial("POST http://a.test/ HTTP/1.1\nHost: x\nContent-Length: 10\n\nhalf")
		r, err := http.ReadResponse(in, nil)
		if err != nil || r.StatusCode != 413 {
			t.Fatal(r, err)
		}
		if body, err := io.ReadAll(r.Body); string(body) != "no" || err != nil || time.Since(before) != 0 {
			t.Errorf("%q, %v, after %v", body, err, time.Since(before))
		}
		if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
			t.Errorf("then %q, %v", rest, err)
		}
		if d := time.Since(before); d < uploadLinger || d > uploadLinger+time.Second {
			t.Errorf("the connection ends after %v", d)
		}
		c.Close()
		stop()
	})
}

// A client that breaks its upload off ends the request at its destination.
func TestForwardBrokenUpload(t *testing.T) {
	for name, end := range map[string]string{"hangs up": "", "sends no chunk": "zz\r\n"} {
		t.Run(name, func(t *testing.T) {
			var got []byte
			var ended chan struct{}
			dial := func(context.Context, Request) (net.Conn, error) {
				ended = make(chan struct{})
				near, far := net.Pipe()
				go func() {
					got, _ = io.ReadAll(far)
					close(ended)
				}()
				return near, nil
			}
			inVirtualTime(t, Config{Dial: dial}, func(t *testing.T, p *pipes, stop func() time.Duration) {
				_, c := p.dial("POST http://a.test/ HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n4\nhalf\n" + strings.ReplaceAll(end, "\r", ""))
				synctest.Wait()
				if end != "" {
					go io.Copy(io.Discard, c)
				} else {
					c.Close()
				}
				<-ended
				if !bytes.HasSuffix(got, []byte("4\r\nhalf\r\n")) {
					t.Errorf("arrived: %q", got)
				}
				c.Close()
				stop()
			})
		})
	}
}

// CONNECT with Optimistic is answered before the exit has.
func TestConnectOptimistic(t *testing.T) {
	for _, optimistic := range []bool{false, true} {
		l := &lazyDialer{streams: []net.Conn{&deadStream{err: &wire.EndError{Reason: wire.ReasonDNS, Remote: true}}}}
		f := start(t, func(c *Config) { c.Dial, c.Optimistic = l.dial, optimistic })
		c := f.send("CONNECT a.test:443 HTTP/1.1\n\n")
		wantStatus(t, c.head("CONNECT"), 200)
		if rest := c.rest(); rest != "" {
			t.Errorf("%q", rest)
		}
		if l.asked[0].Early != optimistic || l.asked[0].HTTP {
			t.Errorf("dialled %+v", l.asked)
		}
	}
}

// Whatever request net/http takes in, exactly one goes out, for the same thing, in a form that only one
// reading fits.
func FuzzRequestHead(f *testing.F) {
	for _, seed := range []string{
		"GET http://a.test/ HTTP/1.1\r\nHost: b\r\n\r\n", "GET http://a.test?x=;%zz HTTP/1.1\r\nHost: b\r\nUser-Agent: x\r\nA: b\r\nA: c\r\n\r\n",
		"OPTIONS http://a.test HTTP/1.1\r\nHost: b\r\n\r\n", "POST http://1/ HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\nTrailer: x\r\n\r\nabc",
		"POST http://[::1]:81//x HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n\r\n", "GET http://a/\xff HTTP/1.0\r\nX: \xff\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	d := &door{Config: Config{Prefetch: true, Log: slog.New(slog.DiscardHandler)}}
	d.forwarder = newForwarder(d, newPushes(&counts{}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		in, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil || !in.URL.IsAbs() || in.Method == http.MethodConnect {
			return
		}
		j, fail := d.plan(in)
		if fail != nil {
			return
		}
		strip(in.Header)
		if in.ContentLength == 0 {
			in.Body = nil
		}
		head := requestHead(in, j)
		r := bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")))
		out, err := http.ReadRequest(r)
		if err != nil {
			t.Fatalf("%q is sent as %q: %v", raw, head, err)
		}
		if out.Method != in.Method || out.RequestURI != j.path || out.URL.IsAbs() || out.Host != j.target.authority() || out.ContentLength != in.ContentLength {
			t.Errorf("%q is sent as %q", raw, head)
		}
		if rest, _ := r.Peek(13); string(rest) != "GET /smuggled" {
			t.Errorf("%q is sent as %q, which does not end where its head ends", raw, head)
		}
	})
}

// Whatever an exit pushes is refused, or a reply with a name that a request can have.
func FuzzPushed(f *testing.F) {
	for _, seed := range []string{pushedRequest + pushedReply, pushedRequest, "GET http://1/ HTTP/1.1\n\nHTTP/1.1 404 x\nCache-Control: max-age=5, private\nVary: a,b\n\n"} {
		f.Add([]byte(strings.ReplaceAll(seed, "\n", "\r\n")))
	}
	d := &door{Config: Config{}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := newPushes(&counts{})
		s.serve(d)
		g := s.newPage(pushName{})
		p := &push{page: g, conn: &deadStream{}}
		if s.admit(p) == nil {
			t.Fatal("refused")
		}
		defer d.running.Done()
		defer s.close()
		if p.readHeads(d, bufio.NewReader(bytes.NewReader(raw))) != nil {
			return
		}
		if again, err := parseTarget(p.name.target, 0); err != nil || again.String() != p.name.target || p.name.path == "" || s.named[p.name] != p {
			t.Errorf("%q is named %+v", raw, p.name)
		}
		if p.reply.StatusCode != http.StatusOK || hasCredentials(p.request.Header) {
			t.Errorf("%q may be used", raw)
		}
	})
}

// A 101 that nobody asked for, or to something else, would make the client's connection a pipe to the
// destination, which would then get the client's next requests, whatever host they are for.
func TestUnaskedSwitch(t *testing.T) {
	for _, test := range []struct{ asked, answered string }{
		{"", ""}, {"", "Connection: Upgrade\r\nUpgrade: websocket\r\n"},
		{"Upgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n"}, // not named in Connection
		{"Connection: Upgrade\r\nUpgrade: websocket\r\n", ""},
		{"Connection: Upgrade\r\nUpgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: other\r\n"},
		{"Connection: Upgrade\r\nUpgrade: other\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n"}, // a plain stream
	} {
		f := start(t)
		f.origin("a.test:80", func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 101 x\r\n"+test.answered+"\r\n")
		})
		r, _ := f.do("GET http://a.test/ HTTP/1.1\nHost: x\n" + strings.ReplaceAll(test.asked, "\r\n", "\n") + "\n")
		if r.StatusCode != http.StatusBadGateway {
			t.Errorf("asked %q, answered %q: the client gets %s", test.asked, test.answered, r.Status)
		}
	}
}

// What is larger than exits take goes through a plain stream from the start.
func TestLargeHeadGoesPlain(t *testing.T) {
	var http []bool
	f := start(t, func(c *Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, r Request) (net.Conn, error) {
			http = append(http, r.HTTP)
			return dial(ctx, r)
		}
	})
	f.origin("a.test:80", func(c net.Conn) {
		io.ReadFull(c, make([]byte, exitHead))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	r, _ := f.do("GET http://a.test/" + strings.Repeat("x", exitHead) + " HTTP/1.1\nHost: x\n\n")
	if r.StatusCode != 200 || len(http) != 1 || http[0] {
		t.Errorf("%s; by exits: %v", r.Status, http)
	}
}
