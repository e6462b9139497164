package localnet_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
	"torproxy/wire"
)

// TestExitMadeRequests lets exits make requests, through a whole network. Those of one label share a
// connection at the exit, those of two labels never do.
func TestExitMadeRequests(t *testing.T) {
	var mu sync.Mutex
	from := map[string]int{} // requests by the connection they came over
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr]++
		mu.Unlock()
		if len(r.Header) > 0 {
			t.Errorf("the destination got %v", r.Header)
		}
		body, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Method+" "+r.RequestURI+" "+string(body))
	}))
	t.Cleanup(site.Close)
	n := startNetwork(t, localnet.Config{Relays: 6, Exits: 1})
	c := startClient(t, n, proxy.Config{}).awaitReady(t)
	send := func(label, method, path, body string) string {
		req, err := http.NewRequestWithContext(t.Context(), method, site.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = -1 // chunked
		if body == "" {
			req.Body, req.ContentLength = http.NoBody, 0
		}
		req.Header.Set("X-Forwarded-For", "10.1.2.3")
		req.Header["User-Agent"] = nil
		tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return c.Dial(ctx, proxy.Request{Target: address, Isolation: label, Kind: wire.KindHTTP})
		}}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	for _, label := range []string{"one", "two"} {
		for range 3 {
			if got, want := send(label, "GET", "/a;b//c?x=1;y=%zz", ""), "GET /a;b//c?x=1;y=%zz "; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if got, want := send(label, "POST", "/", "what is sent"), "POST / what is sent"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(from) != 2 {
		t.Errorf("requests by connection: %v, want two connections", from)
	}
	for conn, n := range from {
		if n != 6 {
			t.Errorf("%d requests over %s, want 6", n, conn)
		}
	}
}
