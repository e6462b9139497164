//go:build clients

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestChromiumPage loads a page in Chromium through the front door: the exit opens the links of its three
// levels, what it pushes fits what the browser asks for, and the site is asked for each thing once.
func TestChromiumPage(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	files := map[string]string{
		"/":          `text/html <!DOCTYPE html><link rel="stylesheet" href="a.css"><script src="a.js"></script><p>text</p><img src="a.svg">`,
		"/a.css":     `text/css @import "b.css"; p { background: url(b.svg) }`,
		"/b.css":     `text/css p { border-image: url(c.svg) 1 }`,
		"/a.js":      `text/javascript document.title = "the script ran"`,
		"/a.svg":     `image/svg+xml <svg xmlns="http://www.w3.org/2000/svg"/>`,
		"/b.svg":     `image/svg+xml <svg xmlns="http://www.w3.org/2000/svg"/>`,
		"/c.svg":     `image/svg+xml <svg xmlns="http://www.w3.org/2000/svg"/>`,
		"/not-asked": "text/plain x",
	}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Path]++
		mu.Unlock()
		kind, body, ok := strings.Cut(files[r.URL.Path], " ")
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Vary", "Accept, Accept-Language, User-Agent") // as browsers differ in them
		io.WriteString(w, body)
	}))
	defer site.Close()
	c := startClient(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	browser := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--user-data-dir="+t.TempDir(),
		"--proxy-server=http://"+c.at.http, "--proxy-bypass-list=<-loopback>", "--virtual-time-budget=10000", "--dump-dom", site.URL+"/")
	dom, err := browser.Output()
	if err != nil || !strings.Contains(string(dom), "<title>the script ran</title>") {
		t.Fatalf("chromium: %v (.ci/test installs it)\n%s", err, dom)
	}
	mu.Lock()
	defer mu.Unlock()
	for path := range files {
		if n := asked[path]; n != 1 && path != "/not-asked" {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
	answer, err := direct().Get("http://" + c.at.http + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	metrics, _ := io.ReadAll(answer.Body)
	if want := fmt.Sprintf("torproxy_client_pushes_total{result=\"used\"} %d\n", len(files)-2); !strings.Contains(string(metrics), want) {
		t.Errorf("the metrics lack %s%s", want, metrics)
	}
}
