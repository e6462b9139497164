package relay

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/wire"
)

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
	host := serve(t, site{"/": `<img src=http://10.0.0.1/a><img src=http://localhost:2/b><img src=http://2130706433/c>
		<img src="http://[::ffff:10.0.0.1]/d"><img src=http://0x7f.1/e><img src="http://a b/f"><img src=http://ä.test/g>`}.ServeHTTP)
	configure := func(i int, c *Config) {
		if i == 1 {
			c.Policy = policy(t, "reject 10.0.0.0/8:*,reject private:2,accept private:*,accept *:*")
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
					if name == "push" {
						<-began
					} else {
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
