package localnet_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// website is a destination in virtual time, on two hosts, distant from every exit by one round trip.
type website struct {
	distance time.Duration // a round trip from the exit
	files    map[string]file

	mu    sync.Mutex
	asked map[string]int // requests by URL
	sent  int            // bytes of bodies
}

// file is what a URL leads to.
type file struct {
	kind, body, cache string
}

// newWebsite makes a page of 30 resources in three levels: the page names 4 stylesheets, 6 scripts and 12
// images, of which the stylesheets name 3 fonts and 5 images more. The images are on a host of their own.
// One of the scripts is for one user only, one image is for nobody to keep.
func newWebsite(distance time.Duration) *website {
	w := &website{distance: distance, files: map[string]file{}, asked: map[string]int{}}
	const site, static = "http://site.test", "http://static.test"
	var page strings.Builder
	page.WriteString("<!doctype html><title>A page</title>\n")
	for i := range 4 {
		fmt.Fprintf(&page, "<link rel=\"stylesheet\" href=\"/style%d.css\">\n", i)
		sheet := fmt.Sprintf("body { background: url(%s/back%d.png) }\n", static, i)
		if i < 3 {
			sheet += fmt.Sprintf("@font-face { font-family: F%d; src: url(/font%d.woff2) }\n", i, i)
			w.add(fmt.Sprint(site, "/font", i, ".woff2"), "font/woff2", "public, max-age=31536000", 24<<10, "")
		} else {
			sheet += fmt.Sprintf("p { background: url(%s/back4.png) }\n", static)
		}
		w.add(fmt.Sprint(site, "/style", i, ".css"), "text/css", "max-age=3600", 16<<10, sheet)
	}
	for i := range 6 {
		fmt.Fprintf(&page, "<script src=\"/script%d.js\"></script>\n", i)
		w.add(fmt.Sprint(site, "/script", i, ".js"), "text/javascript", map[int]string{5: "private"}[i], 30<<10, "")
	}
	for i := range 12 {
		fmt.Fprintf(&page, "<img src=\"%s/image%d.png\">\n", static, i)
		w.add(fmt.Sprint(static, "/image", i, ".png"), "image/png", map[int]string{11: "no-store"}[i], 12<<10+i*3<<10, "")
	}
	for i := range 5 {
		w.add(fmt.Sprint(static, "/back", i, ".png"), "image/png", "max-age=60", 10<<10, "")
	}
	w.add(site+"/", "text/html; charset=utf-8", "no-cache", 24<<10, page.String())
	return w
}

// add adds a file of size bytes that begins with text.
func (w *website) add(url, kind, cache string, size int, text string) {
	noise := make([]byte, size-len(text))
	rnd := rand.New(rand.NewPCG(uint64(size), uint64(len(url))))
	for i := range noise {
		noise[i] = 'a' + byte(rnd.IntN(26))
	}
	w.files[url] = file{kind, text + string(noise), cache}
}

// bytes is the size of all files.
func (w *website) bytes() (n int) {
	for _, f := range w.files {
		n += len(f.body)
	}
	return n
}

// Dial is a relay's: it connects after a round trip.
func (w *website) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	select {
	case <-time.After(w.distance):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	here, there := net.Pipe()
	go w.serve(there)
	return here, nil
}

// serve answers each request after a round trip.
func (w *website) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		<-time.After(w.distance)
		url := "http://" + r.Host + r.RequestURI
		f, ok := w.files[url]
		resp := &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: r, Header: http.Header{"Content-Type": {f.kind}}}
		if !ok {
			resp.StatusCode = http.StatusNotFound
		}
		if f.cache != "" {
			resp.Header.Set("Cache-Control", f.cache)
		}
		resp.ContentLength, resp.Body = int64(len(f.body)), io.NopCloser(strings.NewReader(f.body))
		w.mu.Lock()
		w.asked[url]++
		w.sent += len(f.body)
		w.mu.Unlock()
		if resp.Write(c) != nil {
			return
		}
	}
}

// LookupNetIP and LookupAddr are a relay's resolver: each name is somewhere.
func (w *website) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	if network == "ip6" || !strings.HasSuffix(host, ".test.") {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{198, 41, 0, byte(len(host))})}, nil
}

func (w *website) LookupAddr(context.Context, string) ([]string, error) {
	return nil, errors.New("no names here")
}
