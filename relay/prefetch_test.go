package relay

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/relay/pagelinks"
	"torproxy/wire"
	"torproxy/wire/mux"
)

// reader is a client that takes what is pushed to it.
type reader struct {
	b       *bed
	session *mux.Session
	take    func(*pushed) // with each, once its request is there; nil reads the reply

	mu     sync.Mutex
	all    []*pushed
	taking sync.WaitGroup
}

// pushed is one pushed stream.
type pushed struct {
	stream  *mux.Stream
	in      *bufio.Reader
	request *http.Request
	resp    *http.Response // nil: there was none
	body    string
	err     error
}

// reader opens a circuit for one that takes pushes.
func (b *bed) reader(take func(*pushed)) *reader {
	b.t.Helper()
	s, codec := b.build(0, 1)
	r := &reader{b: b, take: take}
	r.session = mux.NewSession(mux.Config{Pushed: func(_ uint16, st *mux.Stream) {
		p := &pushed{stream: st, in: bufio.NewReader(st)}
		r.mu.Lock()
		r.all = append(r.all, p)
		r.mu.Unlock()
		r.taking.Go(func() { r.read(p) })
	}})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.session.Run(s, codec)
	}()
	b.done = append(b.done, func() { r.session.Close(nil); <-ended; r.taking.Wait() })
	return r
}

func (r *reader) read(p *pushed) {
	defer p.stream.Close()
	if p.request, p.err = http.ReadRequest(p.in); p.err != nil {
		return
	}
	if r.take != nil {
		r.take(p)
		return
	}
	if p.resp, p.err = http.ReadResponse(p.in, p.request); p.err == nil {
		var body []byte
		body, p.err = io.ReadAll(p.resp.Body)
		p.body = string(body)
	}
}

// caughtUp waits until all that the exit has sent so far has been read.
func (r *reader) caughtUp() []*pushed {
	st, err := r.session.Open(wire.KindEcho, wire.EchoTarget)
	if err != nil {
		r.b.t.Fatal(err)
	}
	st.Connected(r.b.t.Context()) // refused
	st.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// page reads a page whose links are to be opened, and all that is pushed for it, by URL.
func (r *reader) page(host, path, lines string) (body string, all map[string]*pushed) {
	r.b.t.Helper()
	_, body = r.b.get(r.session, host, path, "Torproxy-Prefetch: page\r\n"+lines).page("GET")
	known := -1
	for {
		list := r.caughtUp()
		if len(list) == known {
			all = map[string]*pushed{}
			for _, p := range list {
				if p.request == nil {
					r.b.t.Fatalf("a push without its request: %v", p.err)
				}
				if all[p.request.RequestURI] != nil {
					r.b.t.Errorf("%s is pushed twice", p.request.RequestURI)
				}
				all[p.request.RequestURI] = p
			}
			return body, all
		}
		known = len(list)
		r.taking.Wait()
	}
}

// site serves texts by their paths, HTML or as the path's ending says.
type site map[string]string

func (s site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, ok := s[r.URL.RequestURI()]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	for ending, kind := range map[string]string{".css": "text/css", ".png": "image/png", ".js": "text/javascript"} {
		if strings.HasSuffix(r.URL.Path, ending) {
			w.Header().Set("Content-Type", kind)
		}
	}
	io.WriteString(w, text)
}

const chromiumPage = "User-Agent: Mozilla/5.0 Chrome/156.0.0.0 Safari/537.36\r\nAccept-Language: en\r\nAccept-Encoding: gzip, deflate\r\n" +
	"Accept: text/html,image/jxl,image/avif,image/webp,image/apng,*/*;q=0.8\r\nSec-GPC: 1\r\nReferer: http://before.test/\r\n"

// TestPrefetch reads a page whose links lead to links: all are pushed, each once, and asked for as a browser
// would, without anything that says who asks.
func TestPrefetch(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]http.Header{}
	pages := site{
		"/dir/page":        `<link rel=stylesheet href=a.css><script src="/s.js"></script><img src=/i.png?x=1&amp;y><img src=/i.png?x=1&y><img src="https://s.test/no">`,
		"/dir/a.css":       `@import "sub/b.css"; p{background:url(bg.png)}`,
		"/dir/sub/b.css":   `@font-face{src:url(f.woff2)} q{background:url(/i.png?x=1&y)}`,
		"/dir/bg.png":      "background",
		"/dir/sub/f.woff2": "font",
		"/s.js":            "script",
		"/i.png?x=1&y":     "image",
	}
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.RequestURI] = r.Header
		mu.Unlock()
		pages.ServeHTTP(w, r)
	})
	onLoopback(t, nil, func(b *bed) {
		body, all := b.reader(nil).page(host, "/dir/page", chromiumPage)
		if body != pages["/dir/page"] {
			t.Errorf("the page arrived as %q", body)
		}
		delete(pages, "/dir/page")
		for path, text := range pages {
			p := all["http://"+host+path]
			if p == nil || p.err != nil || p.resp.StatusCode != http.StatusOK || p.body != text {
				t.Errorf("%s: %+v", path, p)
				continue
			}
			if want := p.request.Header; !sameHeader(want, asked[path]) {
				t.Errorf("%s: promised %v, asked %v", path, want, asked[path])
			}
			if h := asked[path]; h.Get("User-Agent") == "" || h.Get("Accept-Language") != "en" || h.Get("Sec-Gpc") != "1" || h["Referer"] != nil {
				t.Errorf("%s is asked for with %v", path, h)
			}
		}
		if len(all) != len(pages) {
			t.Errorf("%d links are opened, want %d", len(all), len(pages))
		}
		if n := asked["/dir/page"]; n.Get(wire.HeaderPrefetch) != "" {
			t.Errorf("the destination is told: %v", n)
		}
		for path, want := range map[string]string{
			"/i.png?x=1&y": "image/jxl,image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "/dir/a.css": "text/css,*/*;q=0.1", "/s.js": "*/*",
		} {
			if got := asked[path].Get("Accept"); got != want {
				t.Errorf("%s: Accept %q, want %q", path, got, want)
			}
		}
		if got := asked["/dir/sub/f.woff2"].Get("Origin"); got != "http://"+host {
			t.Errorf("the font is asked for with Origin %q", got)
		}
	})
}

func sameHeader(a, b http.Header) bool {
	return fmt.Sprint(a) == fmt.Sprint(b)
}

// TestPromisesComeFirst holds the links' replies back: all are promised before the page, and before the end
// of the stylesheet that names them. Then it lets the circuit go: their requests end.
func TestPromisesComeFirst(t *testing.T) {
	var waiting sync.WaitGroup
	waiting.Add(2)
	pages := site{"/": "<link rel=stylesheet href=a.css><img src=held.png>", "/a.css": "p{background:url(held2.png)}"}
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/held") {
			waiting.Done()
			<-r.Context().Done()
			return
		}
		pages.ServeHTTP(w, r)
	})
	onLoopback(t, nil, func(b *bed) {
		sheet := make(chan struct{})
		r := b.reader(nil)
		r.take = func(p *pushed) {
			if strings.HasSuffix(p.request.RequestURI, ".css") {
				io.ReadAll(p.in)
				close(sheet)
				return
			}
			_, p.err = p.in.ReadByte() // the held reply never comes
		}
		b.get(r.session, host, "/", "Torproxy-Prefetch: page\r\n").page("GET")
		if n := len(r.caughtUp()); n < 2 {
			t.Errorf("%d links were promised with the page, want 2", n)
		}
		<-sheet
		if n := len(r.caughtUp()); n != 3 {
			t.Errorf("%d links were promised with the stylesheet, want 3", n)
		}
		waiting.Wait()
	})
}

// TestNoPrefetch has requests and replies of which no links are opened.
func TestNoPrefetch(t *testing.T) {
	const ask = "Torproxy-Prefetch: page\r\n"
	for name, c := range map[string]struct{ request, head string }{
		"not asked for":        {"GET / HTTP/1.1\r\n", ""},
		"asked otherwise":      {"GET / HTTP/1.1\r\nTorproxy-Prefetch: all\r\n", ""},
		"POST":                 {"POST / HTTP/1.1\r\nContent-Length: 0\r\n" + ask, ""},
		"with a cookie":        {"GET / HTTP/1.1\r\nCookie: a=b\r\n" + ask, ""},
		"with credentials":     {"GET / HTTP/1.1\r\nAuthorization: Basic eDp5\r\n" + ask, ""},
		"no page":              {"GET / HTTP/1.1\r\n" + ask, "Content-Type: text/plain"},
		"no type":              {"GET / HTTP/1.1\r\n" + ask, "Content-Type:"},
		"to be saved":          {"GET / HTTP/1.1\r\n" + ask, "Content-Disposition: attachment; filename=x"},
		"in an unknown coding": {"GET / HTTP/1.1\r\n" + ask, "Content-Encoding: br"},
		"in two codings":       {"GET / HTTP/1.1\r\n" + ask, "Content-Encoding: gzip, gzip"},
		"broken coding":        {"GET / HTTP/1.1\r\n" + ask, "Content-Encoding: gzip"},
		"sets a cookie":        {"GET / HTTP/1.1\r\n" + ask, "Set-Cookie: a=b"},
		"an error":             {"GET / HTTP/1.1\r\n" + ask, "Status: 404"},
	} {
		t.Run(name, func(t *testing.T) {
			host := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				if field, value, _ := strings.Cut(c.head, ":"); field == "Status" {
					w.WriteHeader(http.StatusNotFound)
				} else if field != "" {
					w.Header().Set(field, strings.TrimSpace(value))
				}
				io.WriteString(w, "<img src=a.png>")
			})
			onLoopback(t, nil, func(b *bed) {
				r := b.reader(nil)
				if _, body := b.visit(r.session, host, c.request+"Host: "+host+"\r\n\r\n").page("GET"); body != "<img src=a.png>" {
					t.Errorf("got %q", body)
				}
				if n := len(r.caughtUp()); n != 0 {
					t.Errorf("%d links are opened", n)
				}
			})
		})
	}
}

// TestCodedPages reads pages in the codings that a browser names: links are found, the bytes are the same.
func TestCodedPages(t *testing.T) {
	const page = "<img src=a.png>"
	for name, coder := range map[string]func(io.Writer) io.WriteCloser{
		"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"Deflate": func(w io.Writer) io.WriteCloser { c, _ := flate.NewWriter(w, 9); return c },
	} {
		t.Run(name, func(t *testing.T) {
			var coded bytes.Buffer
			c := coder(&coded)
			io.WriteString(c, page)
			c.Close()
			host := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					w.Header().Set("Content-Encoding", name)
					w.Header().Set("Content-Type", "text/html")
					w.Write(coded.Bytes())
				}
			})
			onLoopback(t, nil, func(b *bed) {
				body, all := b.reader(nil).page(host, "/", "")
				if body != coded.String() || all["http://"+host+"/a.png"] == nil {
					t.Errorf("%d bytes, opened %v", len(body), all)
				}
			})
		})
	}
}

// TestHostilePages has pages that would make the exit work for nothing.
func TestHostilePages(t *testing.T) {
	var links strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&links, "<img src=%d.png>", i)
	}
	for name, c := range map[string]struct {
		page  string
		serve func(w http.ResponseWriter, path string)
		most  int
	}{
		"many links":         {links.String(), nil, maxPageLinks},
		"sheets without end": {"<link rel=stylesheet href=1.css>", func(w http.ResponseWriter, path string) { fmt.Fprintf(w, `@import "%d.css"`, len(path)) }, maxLevels},
		"a loop of sheets":   {"<link rel=stylesheet href=a.css>", func(w http.ResponseWriter, path string) { fmt.Fprint(w, `@import "a.css"; @import "/"`) }, 1},
		"a sheet of many links": {"<link rel=stylesheet href=a.css>", func(w http.ResponseWriter, _ string) {
			fmt.Fprintf(w, "<!--%s-->%s", links.String(), strings.Repeat("p{background:url(x)}", 1000))
		}, 2},
		"links behind the look": {"<p>" + strings.Repeat("<b>", maxLooked/3) + "<img src=a.png>", nil, 0},
		"large replies":         {links.String(), func(w http.ResponseWriter, _ string) { w.Header().Set("Content-Length", fmt.Sprint(maxPushedReply+1)) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int64
			host := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				if r.URL.Path == "/" {
					io.WriteString(w, c.page)
					return
				}
				requests.Add(1)
				w.Header().Set("Content-Type", "text/css")
				if c.serve != nil {
					c.serve(w, strings.Repeat("x", int(requests.Load())+1))
				}
			})
			onLoopback(t, nil, func(b *bed) {
				body, all := b.reader(nil).page(host, "/", "")
				came := 0
				for _, p := range all {
					if p.resp != nil {
						came++
					}
				}
				if body != c.page || came != c.most || requests.Load() > maxPageLinks {
					t.Errorf("%d bytes of %d; %d links opened, %d pushed, want %d", len(body), len(c.page), requests.Load(), came, c.most)
				}
			})
		})
	}
}

// TestEndlessPushes opens links to bodies without end: they stop where the client stops them, one by one, and
// the page is bounded in all.
func TestEndlessPushes(t *testing.T) {
	var ended sync.WaitGroup
	ended.Add(2)
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<img src=1.png><img src=2.png>")
			return
		}
		defer ended.Done()
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	onLoopback(t, nil, func(b *bed) {
		r := b.reader(func(p *pushed) { io.CopyN(io.Discard, p.in, maxPushedBytes) })
		b.get(r.session, host, "/", "Torproxy-Prefetch: page\r\n").page("GET")
		r.caughtUp()
		r.taking.Wait()
		ended.Wait() // both were given up
	})
}

// TestPushedBytes checks what a page may have pushed together.
func TestPushedBytes(t *testing.T) {
	p := &prefetch{left: maxPushedBytes, seen: map[string]bool{}}
	reply := func(length int64, size int) *http.Response {
		return &http.Response{ContentLength: length, Body: io.NopCloser(bytes.NewReader(make([]byte, size)))}
	}
	if p.admit(reply(maxPushedReply+1, 0)) || !p.admit(reply(maxPushedReply, 0)) || p.left != maxPushedBytes-maxPushedReply {
		t.Errorf("a reply of known length: %d bytes are left", p.left)
	}
	endless := reply(-1, maxPushedBytes)
	if !p.admit(endless) {
		t.Error("a reply of unknown length is refused")
	}
	if n, err := io.Copy(io.Discard, endless.Body); n != maxPushedBytes || err != nil {
		t.Errorf("it was cut short after %d bytes: %v", n, err)
	}
	if p.admit(reply(-1, 0)) || p.admit(reply(0, 0)) || p.worth(mustParse(t, "http://a.test/")) {
		t.Error("more is pushed")
	}
}

// TestPushesKeepToPolicy lets a page lead to places where the exit does not go.
func TestPushesKeepToPolicy(t *testing.T) {
	var mu sync.Mutex
	var dialled []string
	host := serve(t, site{"/": `<img src=http://10.0.0.1/a><img src=http://localhost:1/b><img src=http://2130706433/c>
		<img src="http://[::ffff:10.0.0.1]/d"><img src=http://0x7f.1/e><img src="http://a b/f"><img src=http://ä.test/g>`}.ServeHTTP)
	configure := func(i int, c *Config) {
		if i == 1 {
			c.Policy = policy(t, "reject 10.0.0.0/8:*,reject private:1,accept private:*,accept *:*")
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				mu.Lock()
				dialled = append(dialled, address)
				mu.Unlock()
				return new(net.Dialer).DialContext(ctx, network, address)
			}
		}
	}
	onLoopback(t, configure, func(b *bed) {
		_, all := b.reader(nil).page(host, "/", "")
		if len(all) != 5 {
			t.Errorf("%d links were tried, want 5", len(all))
		}
		for link, p := range all {
			if p.resp != nil {
				t.Errorf("%s was opened", link)
			}
		}
		if len(dialled) != 1 || dialled[0] != host {
			t.Errorf("dialled %v", dialled)
		}
	})
}

// TestPushesEnd ends what waits for its reply: the pushed stream, the page's stream, the circuit. The
// requests end, too.
func TestPushesEnd(t *testing.T) {
	for _, name := range []string{"push", "page", "circuit"} {
		t.Run(name, func(t *testing.T) {
			began, ended, whole := make(chan struct{}), make(chan struct{}), make(chan struct{})
			host := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					w.Header().Set("Content-Type", "text/html")
					io.WriteString(w, "<img src=1.png> ")
					http.NewResponseController(w).Flush()
					<-whole
					return
				}
				close(began)
				<-r.Context().Done()
				close(ended)
			})
			onLoopback(t, nil, func(b *bed) {
				taken := make(chan struct{})
				r := b.reader(func(p *pushed) {
					if name != "push" {
						<-taken
					}
				})
				v := b.get(r.session, host, "/", "Torproxy-Prefetch: page\r\n")
				v.head("GET")
				<-began
				switch name {
				case "page":
					v.stream.Close()
				case "circuit":
					r.session.Close(nil)
				}
				<-ended
				close(whole)
				close(taken)
			})
		})
	}
}

func TestMayKeep(t *testing.T) {
	for head, want := range map[string]bool{
		"":                                   true,
		"Cache-Control: public, max-age=60":  true,
		"Cache-Control: max-age=0":           false,
		"Cache-Control: max-age=60\nAge: 60": false,
		"Cache-Control: max-age=60\nAge: 59": true,
		"Cache-Control: max-age=60\nAge: 99999999999999999": false,
		"Cache-Control: max-age=0, s-maxage=5":              true,
		"Cache-Control: s-maxage=0, max-age=5":              false,
		"Cache-Control: max-age=x":                          false,
		"Cache-Control: Private":                            false,
		"Cache-Control: no-store":                           false,
		"Cache-Control: no-cache=\"x\"":                     false,
		"Pragma: no-cache":                                  false,
		"Pragma: no-cache\nCache-Control: max-age=5":        true,
		"Set-Cookie: a=b":                                   false,
		"Vary: Accept, *":                                   false,
		"Vary: Accept":                                      true,
		"Expires: 0":                                        false,
		"Expires: Thu, 01 Jan 2026 00:00:09 GMT":            false,
		"Expires: Thu, 01 Jan 2026 00:00:09 GMT\nDate: Thu, 01 Jan 2026 00:00:00 GMT": true,
		"Expires: Thu, 01 Jan 2026 00:00:09 GMT\nDate: Thu, 01 Jan 2026 00:00:09 GMT": false,
	} {
		resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}}
		for line := range strings.SplitSeq(head, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			if name != "" {
				resp.Header.Add(name, value)
			}
		}
		if got := mayKeep(resp); got != want {
			t.Errorf("%q: %v", head, got)
		}
		resp.StatusCode = http.StatusFound
		if mayKeep(resp) {
			t.Errorf("%q: a redirect is pushed", head)
		}
	}
}

// TestAsker checks the fields by which browsers differ.
func TestAsker(t *testing.T) {
	page := mustParse(t, "http://Page.test:80/x")
	firefox := http.Header{"User-Agent": {"Mozilla/5.0 (X11; rv:153.0) Gecko/20100101 Firefox/153.0"}, "Accept": {"text/html,*/*;q=0.8"}}
	chromium := http.Header{"Accept": {"text/html,image/avif,image/webp,image/apng,*/*;q=0.8"}}
	for _, c := range []struct {
		name           string
		header         http.Header
		kind           pagelinks.Kind
		cors           bool
		url            string
		accept, origin string
	}{
		{"Firefox, image", firefox, pagelinks.Image, false, "http://page.test/a", "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", ""},
		{"Firefox, own font", firefox, pagelinks.Font, true, "http://page.test/a", "application/font-woff2;q=1.0,application/font-woff;q=0.9,*/*;q=0.8", ""},
		{"Firefox, script elsewhere", firefox, pagelinks.Script, true, "http://page.test:81/a", "*/*", "http://page.test"},
		{"Chromium, image", chromium, pagelinks.Image, false, "http://b.test/a", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", ""},
		{"Chromium, own font", chromium, pagelinks.Font, true, "http://page.test/a", "*/*", "http://page.test"},
		{"Chromium, sheet", chromium, pagelinks.Style, false, "http://page.test/a", "text/css,*/*;q=0.1", ""},
		{"another, image", http.Header{}, pagelinks.Image, false, "http://page.test/a", "*/*", ""},
	} {
		q := newAsker(c.header, page).request(pagelinks.Link{URL: mustParse(t, c.url), Kind: c.kind, CORS: c.cors})
		if q.header.Get("Accept") != c.accept || q.header.Get("Origin") != c.origin {
			t.Errorf("%s: %v", c.name, q.header)
		}
	}
}

// TestTurns lets those that wait go on by urgency, then in order.
func TestTurns(t *testing.T) {
	turns := turns{free: 1}
	turns.take(t.Context(), 0)
	queue := func(urgency, place int) chan struct{} {
		turns.waiting[urgency] = append(turns.waiting[urgency], make(chan struct{}))
		return turns.waiting[urgency][place]
	}
	late, first, second := queue(3, 0), queue(1, 0), queue(1, 1)
	for i, want := range []chan struct{}{first, second, late} {
		turns.leave()
		select {
		case <-want:
		default:
			t.Errorf("turn %d is another's", i)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if turns.take(gone, 2) || len(turns.waiting[2]) != 0 {
		t.Error("one who does not wait has a turn")
	}
	if turns.leave(); turns.free != 1 || !turns.take(t.Context(), 4) {
		t.Error("a turn was lost")
	}
}

// TestLook gives a body in pieces: each is read before it passes, and a broken body ends the reader.
func TestLook(t *testing.T) {
	broken := errors.New("broken")
	body := &script{pieces: []string{"one ", "two ", "three"}, end: broken}
	var seen strings.Builder
	var end error
	l := newLook(&http.Response{Body: body}, func(r io.Reader) { _, end = io.Copy(&seen, r) })
	afters := 0
	l.after = func() { afters++ }
	passed := ""
	buf := make([]byte, 100)
	for {
		n, err := l.Read(buf)
		passed += string(buf[:n])
		if seen.String() != passed {
			t.Errorf("passed %q, seen %q", passed, seen.String())
		}
		if err != nil {
			if !errors.Is(err, broken) || !errors.Is(end, io.ErrUnexpectedEOF) || afters != 3 {
				t.Errorf("%v, %v, %d", err, end, afters)
			}
			break
		}
	}
	l.stop()
}

// script is a body of pieces.
type script struct {
	pieces []string
	end    error
}

func (s *script) Close() error { return nil }

func (s *script) Read(b []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, s.end
	}
	n := copy(b, s.pieces[0])
	s.pieces = s.pieces[1:]
	return n, nil
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// onVirtualSite runs f in virtual time with an exit whose every connection leads to h, and all that is pushed
// is left to take.
func onVirtualSite(t *testing.T, h func(w io.Writer, path string), take func(*pushed), f func(b *bed, r *reader)) {
	t.Helper()
	accept := func(_ *destination, there net.Conn) {
		go func() {
			defer there.Close()
			in := bufio.NewReader(there)
			for {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				h(there, r.URL.Path)
			}
		}()
	}
	onBed(t, 2, exitTo(t, accept), func(b *bed) { f(b, b.reader(take)) })
}

const virtualHost = "198.41.0.4:80"

// TestPushTimeout opens a link that gets no reply: the client is told after pushTimeout.
func TestPushTimeout(t *testing.T) {
	answer := func(w io.Writer, path string) {
		if path == "/" {
			io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<img src=a.png>")
		}
	}
	onVirtualSite(t, answer, nil, func(b *bed, r *reader) {
		began := time.Now()
		_, all := r.page(virtualHost, "/", "")
		p := all["http://198.41.0.4/a.png"]
		if p == nil {
			t.Fatalf("opened %v", all)
		}
		_, err := p.in.ReadByte()
		wantEnd(t, "no reply", err, wire.ReasonTimeout)
		if took := time.Since(began); took < pushTimeout || took > pushTimeout+time.Second {
			t.Errorf("after %v", took)
		}
	})
}

// TestStalledPushes has as many replies that the client does not take as are sent at a time: those behind
// them come all the same.
func TestStalledPushes(t *testing.T) {
	answer := func(w io.Writer, path string) {
		head := "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
		switch {
		case path == "/":
			page := strings.Repeat("<script src=big%d.js></script>", maxBodies) + "<img src=small.png>"
			for i := range maxBodies {
				page = strings.Replace(page, "%d", fmt.Sprint(i), 1)
			}
			fmt.Fprintf(w, "%sContent-Length: %d\r\n\r\n%s", head, len(page), page)
		case strings.HasPrefix(path, "/big"):
			fmt.Fprintf(w, "%sContent-Length: %d\r\n\r\n", head, maxPushedReply)
			w.Write(make([]byte, maxPushedReply))
		default:
			<-time.After(100 * time.Millisecond) // behind the others
			fmt.Fprintf(w, "%sContent-Length: 5\r\n\r\nsmall", head)
		}
	}
	var small chan time.Time
	var enough chan struct{}
	take := func(p *pushed) {
		if strings.HasPrefix(p.request.URL.Path, "/big") {
			<-enough
			return
		}
		if resp, err := http.ReadResponse(p.in, p.request); err != nil {
			t.Error(err)
		} else if body, err := io.ReadAll(resp.Body); string(body) != "small" {
			t.Errorf("%q, %v", body, err)
		}
		small <- time.Now()
	}
	onVirtualSite(t, answer, take, func(b *bed, r *reader) {
		small, enough = make(chan time.Time, 1), make(chan struct{})
		began := time.Now()
		b.get(r.session, virtualHost, "/", "Torproxy-Prefetch: page\r\n").page("GET")
		if took := (<-small).Sub(began); took < bodyPatience || took > bodyPatience+time.Second {
			t.Errorf("the reply behind the others came after %v", took)
		}
		close(enough)
	})
}
