package frontdoor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// server runs a net/http origin under a name of the network.
func (f *fixture) server(target string, h http.HandlerFunc) {
	s := httptest.NewServer(h)
	f.t.Cleanup(func() {
		f.stop()
		s.Close()
	})
	f.network.add(target, s.Listener.Addr().String())
}

// httpClient is a net/http client that uses the front door as its proxy.
func (f *fixture) httpClient() *http.Client {
	t := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: f.addr}), DisableCompression: true}
	f.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

func TestForwardLeavesTheTargetAlone(t *testing.T) {
	f := start(t)
	heads := f.recorder("web.test:80", emptyOK)
	for url, want := range map[string]string{
		"http://web.test/":                             "/",
		"http://web.test":                              "/",
		"http://web.test?":                             "/?",
		"http://web.test?a=1":                          "/?a=1",
		"http://web.test/?":                            "/?",
		"http://web.test/a;b//c/../d?x=1;y=2&z=%zz":    "/a;b//c/../d?x=1;y=2&z=%zz",
		"http://web.test/?b=2&a=1&&a=+%20%&c":          "/?b=2&a=1&&a=+%20%&c",
		"http://web.test//etc//./passwd":               "//etc//./passwd",
		"http://web.test/../../x/..":                   "/../../x/..",
		"http://web.test/%2e%2E/%2f/%41":               "/%2e%2E/%2f/%41",
		"http://web.test/a|b^c\"d{e}<f>[g]`h":          "/a|b^c\"d{e}<f>[g]`h",
		"http://web.test//a|b":                         "//a|b",
		"http://web.test/\xc3\xbc\xff?\xc3\xbc\xff":    "/\xc3\xbc\xff?\xc3\xbc\xff",
		"http://web.test/a?b?c=http://x.test/?;":       "/a?b?c=http://x.test/?;",
		"http://web.test/?" + strings.Repeat("&", 1e4): "/?" + strings.Repeat("&", 1e4),
		"HTTP://WEB.test/A":                            "/A",
	} {
		r, _ := f.do("GET " + url + " HTTP/1.1\nHost: web.test\n\n")
		wantStatus(t, r, 200)
		if r.StatusCode != 200 {
			t.Fatalf("for %.80s", url)
		}
		if line, _, _ := strings.Cut(<-heads, "\r\n"); line != "GET "+want+" HTTP/1.1" {
			t.Errorf("%.80s arrived as %.80q", url, line)
		}
	}
	f.do("OPTIONS http://web.test HTTP/1.1\nHost: web.test\n\n")
	if head := <-heads; !strings.HasPrefix(head, "OPTIONS * HTTP/1.1\r\n") {
		t.Errorf("OPTIONS of a whole server: %q", head)
	}
}

func TestForwardStripsRequestHeaders(t *testing.T) {
	f := start(t)
	heads := f.recorder("web.test:80", emptyOK)
	f.do(`GET http://web.test/ HTTP/1.1
Host: other.test
Connection: close, X-Hop, keep-alive
X-Hop: 1
Keep-Alive: 300
Proxy-Connection: keep-alive
Proxy-Authorization: Basic YTpi
Proxy-Anything: 1
TE: trailers
Trailer: X-T
Via: 1.1 secret
Forwarded: for=10.0.0.1
X-Forwarded-For: 10.0.0.1
X-Forwarded-Host: h
X-Forwarded-Proto: http
X-Forwarded-Port: 1
X-Forwarded-Anything: 1
X-End-To-End: kept
Cookie: a=b

`)
	if got, want := <-heads, "GET / HTTP/1.1\r\nHost: web.test\r\nCookie: a=b\r\nX-End-To-End: kept\r\n\r\n"; got != want {
		t.Errorf("arrived:\n%s\nwant:\n%s", got, want)
	}
	f.do("GET http://web.test/ HTTP/1.1\nHost: x\nUser-Agent: curl/8\nAccept-Encoding: br\n\n")
	if got, want := <-heads, "GET / HTTP/1.1\r\nHost: web.test\r\nUser-Agent: curl/8\r\nAccept-Encoding: br\r\n\r\n"; got != want {
		t.Errorf("arrived:\n%s\nwant:\n%s", got, want)
	}
}

func TestForwardStripsResponseHeaders(t *testing.T) {
	f := start(t)
	f.recorder("web.test:80", `HTTP/1.1 200 OK
Connection: X-Resp-Hop
X-Resp-Hop: 1
Keep-Alive: timeout=5
Proxy-Authenticate: Basic
Proxy-Status: evil
Content-Length: 7
Set-Cookie: a=b
Set-Cookie: c=d

<html>!`)
	r, body := f.do("GET http://web.test/ HTTP/1.1\nHost: x\n\n")
	if body != "<html>!" {
		t.Errorf("body %q", body)
	}
	r.Header.Del("Date")
	if got, want := fmt.Sprint(r.Header), "map[Content-Length:[7] Set-Cookie:[a=b c=d]]"; got != want {
		t.Errorf("headers %s, want %s: nothing stripped may stay, nothing guessed be added", got, want)
	}
}

// Whether net/http guesses depends on how soon the body follows the head, so this test leaves the proxy out.
func TestVerbatimGuessesNoType(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/typed" {
			w.Header().Set("Content-Type", "text/x-own")
		}
		verbatim{w, nil}.WriteHeader(200)
		io.WriteString(w, "<html>")
	}))
	defer s.Close()
	for path, want := range map[string]string{"/": "", "/typed": "text/x-own"} {
		r, err := s.Client().Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if got := r.Header.Get("Content-Type"); got != want {
			t.Errorf("%s: Content-Type %q, want %q", path, got, want)
		}
	}
}

func TestForwardPassesEarlyHints(t *testing.T) {
	f := start(t)
	f.recorder("web.test:80", "HTTP/1.1 103 Early Hints\nLink: </a.css>\n\nHTTP/1.1 200 OK\nContent-Length: 6\n\n<html>")
	c := f.send("GET http://web.test/ HTTP/1.1\nHost: x\n\n")
	if r := c.head("GET"); r.StatusCode != 103 || r.Header.Get("Link") != "</a.css>" {
		t.Errorf("first answer %s %v", r.Status, r.Header)
	}
	if r, body := c.answer("GET"); body != "<html>" || r.Header["Content-Type"] != nil {
		t.Errorf("second answer %s %v %q", r.Status, r.Header, body)
	}
}

func TestForwardFollowsNoRedirect(t *testing.T) {
	f := start(t)
	f.recorder("web.test:80", "HTTP/1.1 302 Found\nLocation: http://elsewhere.test/\nContent-Length: 0\n\n")
	r, _ := f.do("GET http://web.test/ HTTP/1.1\nHost: x\n\n")
	if r.StatusCode != 302 || r.Header.Get("Location") != "http://elsewhere.test/" {
		t.Errorf("answer %s %v", r.Status, r.Header)
	}
	if got := f.network.dialled(); !slices.Equal(got, []string{"web.test:80 "}) {
		t.Errorf("dialled %q", got)
	}
}

func TestForwardRefusesOtherURLs(t *testing.T) {
	f := start(t)
	for url, say := range map[string]string{
		"https://web.test/":        "use CONNECT",
		"https://web.test:80/":     "use CONNECT",
		"ftp://web.test/":          "http:// URLs only",
		"ws://web.test/":           "http:// URLs only",
		"http:web.test":            "http:// URLs only",
		"http:///path":             "host is missing",
		"http://u:secret@web.test": "user name before the host",
		"http://web.test:0/":       "between 1 and 65535",
		"http://a..test/":          "0 bytes",
	} {
		r, body := f.do("GET " + url + " HTTP/1.1\nHost: web.test\n\n")
		if r.StatusCode != 400 || !strings.Contains(body, say) || strings.Contains(body, "secret") {
			t.Errorf("%s: %s %q", url, r.Status, body)
		}
	}
	if got := f.network.dialled(); len(got) != 0 {
		t.Errorf("dialled %q", got)
	}
}

// Every request has a stream of its own, under its own isolation key, that ends with its answer: nothing is
// left that a later request, or another identity, could share.
func TestForwardTakesAStreamForEachRequest(t *testing.T) {
	f := start(t)
	ended := make(chan error, 8)
	f.origin("web.test:80", func(c net.Conn) {
		in := bufio.NewReader(c)
		readHead(in)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, err := in.ReadByte()
		ended <- err
	})
	c := f.connect()
	const ann, ben = "Proxy-Authorization: Basic YW5uOjE=\n", "Proxy-Authorization: Basic YmVuOjE=\n"
	for _, headers := range []string{"", "", ann, ann, ben, ""} {
		c.send("GET http://web.test/ HTTP/1.1\nHost: x\n" + headers + "\n")
		if r, body := c.answer("GET"); body != "ok" {
			t.Fatalf("%s %q", r.Status, body)
		}
		if err := <-ended; err != io.EOF {
			t.Errorf("the stream: %v", err)
		}
	}
	var keys []string
	for _, dial := range f.network.dialled() {
		_, key, _ := strings.Cut(dial, " ")
		keys = append(keys, key)
	}
	if len(keys) != 6 || keys[0] != "" || keys[1] != "" || keys[5] != "" || keys[2] != keys[3] || keys[2] == "" || keys[4] == "" || keys[4] == keys[2] {
		t.Errorf("isolation keys %q", keys)
	}
}

func TestIsolation(t *testing.T) {
	f := start(t)
	f.recorder("web.test:80", "HTTP/1.1 200 OK\nContent-Length: 0\nConnection: close\n\n")
	key := func(headers string) string {
		f.do("GET http://web.test/ HTTP/1.1\nHost: x\n" + headers + "\n")
		all := f.network.dialled()
		_, key, _ := strings.Cut(all[len(all)-1], " ")
		return key
	}
	none, ann := key(""), key("Proxy-Authorization: Basic YW5uOjE=\n")
	if none != "" || len(ann) != 32 || strings.Contains(ann, "ann") {
		t.Errorf("keys %q and %q", none, ann)
	}
	for headers, same := range map[string]bool{
		"Proxy-Authorization: Basic YW5uOjE=\n":     true,
		"proxy-authorization: bAsIc YW5uOjE=\n":     true,
		"Proxy-Authorization: Basic YW5uOjI=\n":     false, // ann:2
		"Proxy-Authorization: Basic YW46bjE=\n":     false, // an:n1
		"Proxy-Authorization: Basic YW5uOjE6\n":     false, // ann:1:
		"Proxy-Authorization: Basic OmFubjE=\n":     false, // :ann1
		"Authorization: Basic YW5uOjE=\n":           false,
		"Proxy-Authorization: Basic Og==\nX-Y: z\n": false, // empty
	} {
		if got := key(headers); (got == ann) != same {
			t.Errorf("%q gives %q", headers, got)
		}
	}
	if got := key("Proxy-Authorization: Basic Og==\n"); got != "" {
		t.Errorf("empty credentials give %q", got)
	}
	other := start(t)
	other.origin("web.test:7", func(c net.Conn) {})
	other.send("CONNECT web.test:7 HTTP/1.1\nProxy-Authorization: Basic YW5uOjE=\n\n").head("CONNECT")
	if got := other.network.dialled()[0]; strings.HasSuffix(got, ann) {
		t.Error("two processes give credentials the same key")
	}
}

func TestBadCredentials(t *testing.T) {
	f := start(t)
	for _, headers := range []string{
		"Proxy-Authorization: Bearer secret\n", "Proxy-Authorization: Basic !secret\n", "Proxy-Authorization: Basic c2VjcmV0\n",
		"Proxy-Authorization:\n", "Proxy-Authorization: Basic YTpi\nProxy-Authorization: Basic YTpi\n",
	} {
		for _, line := range []string{"CONNECT web.test:80", "GET http://web.test/"} {
			r, body := f.do(line + " HTTP/1.1\nHost: x\n" + headers + "\n")
			if r.StatusCode != 407 || !strings.HasPrefix(r.Header.Get("Proxy-Authenticate"), "Basic ") || strings.Contains(body, "secret") {
				t.Errorf("%s with %q: %s %v %q", line, headers, r.Status, r.Header, body)
			}
		}
	}
	if got := f.network.dialled(); len(got) != 0 {
		t.Errorf("dialled %q", got)
	}
}

func TestForwardLargeBothWays(t *testing.T) {
	f := start(t)
	f.server("echo.test:80", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	sent, got := sha256.New(), sha256.New()
	body := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{8}), 64<<20), sent)
	r, err := f.httpClient().Post("http://echo.test/", "application/octet-stream", body)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	n, err := io.Copy(got, r.Body)
	if err != nil || n != 64<<20 || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d bytes came back (%v), the hashes are %x and %x", n, err, sent.Sum(nil), got.Sum(nil))
	}
}

// Each piece is sent only after the one before it has come back: nothing on the way may wait for more.
func TestForwardStreamsBothWays(t *testing.T) {
	f := start(t)
	f.server("echo.test:80", func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		c.EnableFullDuplex()
		c.Flush()
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			fmt.Fprintf(w, "%s back\n", lines.Text())
			c.Flush()
		}
	})
	upload, pieces := io.Pipe()
	r, err := f.httpClient().Post("http://echo.test/", "text/plain", upload)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	in := bufio.NewReader(r.Body)
	for i := range 5 {
		fmt.Fprintf(pieces, "%d\n", i)
		if line, err := in.ReadString('\n'); line != fmt.Sprintf("%d back\n", i) {
			t.Fatalf("piece %d: %q, %v", i, line, err)
		}
	}
	pieces.Close()
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}

func TestForwardCutOffAnswer(t *testing.T) {
	f := start(t)
	f.origin("cut.test:80", func(c net.Conn) {
		readHead(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
	})
	c := f.send("GET http://cut.test/ HTTP/1.1\nHost: x\n\n")
	if body, err := io.ReadAll(c.head("GET").Body); err != io.ErrUnexpectedEOF {
		t.Errorf("%q, %v: the client takes half an answer for a whole one", body, err)
	}
}

func TestForwardExpectContinue(t *testing.T) {
	f := start(t)
	f.server("picky.test:80", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/yes" {
			http.Error(w, "no", http.StatusExpectationFailed)
			return
		}
		io.Copy(w, r.Body)
	})
	const head = " HTTP/1.1\nHost: x\nContent-Length: 4\nExpect: 100-continue\n\n"
	r, _ := f.do("POST http://picky.test/no" + head) // and never a body
	wantStatus(t, r, 417)
	c := f.send("POST http://picky.test/yes" + head)
	wantStatus(t, c.head("POST"), 100)
	c.send("body")
	if r, body := c.answer("POST"); body != "body" {
		t.Errorf("%s %q", r.Status, body)
	}
}

func TestForwardTrailers(t *testing.T) {
	f := start(t)
	f.server("web.test:80", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "x")
		w.Header().Set("X-Sum", r.Trailer.Get("X-Up"))
	})
	r, body := f.do("POST http://web.test/ HTTP/1.1\nHost: x\nTrailer: X-Up\nTransfer-Encoding: chunked\n\n1\na\n0\nX-Up: up\n\n")
	if body != "x" || r.Trailer.Get("X-Sum") != "up" {
		t.Errorf("%s %q, trailer %v", r.Status, body, r.Trailer)
	}
}

// echoWebSocket runs a server that sends back what it gets.
func echoWebSocket(t *testing.T) (addr string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		kind, message, err := c.Read(r.Context())
		if err == nil {
			c.Write(r.Context(), kind, message)
		}
		c.Read(r.Context()) // the closing handshake
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// sayHello has a conversation with echoWebSocket at ws.test.
func sayHello(t *testing.T, transport *http.Transport) {
	t.Helper()
	defer transport.CloseIdleConnections()
	c, _, err := websocket.Dial(t.Context(), "ws://ws.test/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, message, err := c.Read(t.Context()); err != nil || string(message) != "hello" {
		t.Errorf("came back: %q, %v", message, err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestWebSocketByUpgrade(t *testing.T) {
	f := start(t)
	f.network.add("ws.test:80", echoWebSocket(t))
	sayHello(t, &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: f.addr})})
}

// Some protocols speak before they see the 101.
func TestUpgradeKeepsEarlyBytes(t *testing.T) {
	f := start(t)
	f.origin("up.test:80", func(c net.Conn) {
		in := bufio.NewReader(c)
		head, _ := readHead(in)
		if strings.Contains(head, "Connection: Upgrade\r\n") && strings.Contains(head, "Upgrade: chat\r\n") {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
		}
		io.Copy(c, in)
	})
	c := f.send("GET http://up.test/ HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: chat\n\nearly")
	wantStatus(t, c.head("GET"), 101)
	io.WriteString(c.Conn, " late")
	c.Conn.(*net.TCPConn).CloseWrite()
	if got := c.rest(); got != "early late" {
		t.Errorf("came back: %q", got)
	}
}

// The environment of the process names a proxy: it is not asked.
func TestForwardIgnoresTheEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:1")
	f := start(t)
	f.recorder("web.test:80", emptyOK)
	r, _ := f.do("GET http://web.test/ HTTP/1.1\nHost: x\n\n")
	wantStatus(t, r, 200)
}

// An origin that the client hangs up on sees its connection end.
func TestHangUpCancelsRequest(t *testing.T) {
	f := start(t)
	asked, gone := make(chan struct{}), make(chan struct{})
	f.server("slow.test:80", func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	r, _ := http.NewRequestWithContext(ctx, "GET", "http://slow.test/", nil)
	if _, err := f.httpClient().Do(r); err == nil {
		t.Error("an answer came")
	}
	<-gone
}
