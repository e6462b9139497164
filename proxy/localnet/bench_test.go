package localnet_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
)

// BenchmarkStart starts the embedded network of 4 authorities and 12 relays and a client with circuits of
// five hops, until the first circuit stands (ready-ms) and the first page has arrived (page-ms).
func BenchmarkStart(b *testing.B) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page") }))
	defer site.Close()
	var ready, page time.Duration
	for range b.N {
		began := time.Now()
		n, err := localnet.Start(localnet.Config{})
		if err != nil {
			b.Fatal(err)
		}
		p, err := proxy.New(proxy.Config{Network: n.File(), Hops: 5})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		<-p.Ready()
		ready += time.Since(began)
		via := &http.Client{Transport: &http.Transport{DialContext: p.Dialer("").DialContext, DisableKeepAlives: true}}
		if got := get(b, via, site.URL); got != "page" {
			b.Fatalf("got %q", got)
		}
		page += time.Since(began)
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
		if err := n.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(ready.Milliseconds())/float64(b.N), "ready-ms")
	b.ReportMetric(float64(page.Milliseconds())/float64(b.N), "page-ms")
}

// BenchmarkDownload fetches 16 MiB through circuits of 3 and 5 hops, every node in this process.
func BenchmarkDownload(b *testing.B) {
	const size = 16 << 20
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, size)) }))
	defer site.Close()
	n := startNetwork(b, localnet.Config{})
	for _, hops := range []int{3, 5} {
		b.Run(map[int]string{3: "hops=3", 5: "hops=5"}[hops], func(b *testing.B) {
			c := startClient(b, n, proxy.Config{Hops: hops}).awaitReady(b)
			via := c.viaSOCKS(b)
			b.SetBytes(size)
			for b.Loop() {
				resp, err := via.Get(site.URL)
				if err != nil {
					b.Fatal(err)
				}
				if got, err := io.Copy(io.Discard, resp.Body); got != size || err != nil {
					b.Fatalf("%d bytes, %v", got, err)
				}
				resp.Body.Close()
			}
		})
	}
}

// BenchmarkRequest fetches a small page over a kept connection through a circuit that stands.
func BenchmarkRequest(b *testing.B) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page") }))
	defer site.Close()
	c := startClient(b, startNetwork(b, localnet.Config{}), proxy.Config{Hops: 5}).awaitReady(b)
	via := c.viaSOCKS(b)
	get(b, via, site.URL)
	for b.Loop() {
		get(b, via, site.URL)
	}
}
