package relay

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

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
