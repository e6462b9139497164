package socks

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/proxy"
	"torproxy/wire"
)

// dialTo is a Config.Dial that reaches one address whatever the target, and reports the request.
func dialTo(addr string, seen func(Request)) func(context.Context, Request) (net.Conn, error) {
	return func(ctx context.Context, r Request) (net.Conn, error) {
		seen(r)
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
}

// A page through golang.org/x/net/proxy, the SOCKS5 client of most Go programs.
func TestXNetProxy(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s got %q", r.Host, body)
	}))
	defer web.Close()
	requests := make(chan Request, 1)
	addr := serveTCP(t, Config{Dial: dialTo(web.Listener.Addr().String(), func(r Request) { requests <- r })})
	for _, auth := range []*proxy.Auth{nil, {User: "alice", Password: "one"}, {User: "bob", Password: "two"}} {
		dialer, err := proxy.SOCKS5("tcp", addr, auth, nil)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{DialContext: dialer.(proxy.ContextDialer).DialContext}
		client := http.Client{Transport: transport}
		resp, err := client.Post("http://web.test/", "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		transport.CloseIdleConnections()
		if string(body) != `web.test got "hello"` {
			t.Errorf("page: %q", body)
		}
		if auth == nil {
			auth = &proxy.Auth{}
		}
		if r := <-requests; r.Target != "web.test:80" || r.User != auth.User || r.Password != auth.Password {
			t.Errorf("request for %s by %q with %q", r.Target, r.User, r.Password)
		}
	}
}

func TestXNetProxyError(t *testing.T) {
	for reason, want := range map[wire.Reason]string{
		wire.ReasonRefused:        "connection refused",
		wire.ReasonDNS:            "host unreachable",
		wire.ReasonNetUnreachable: "network unreachable",
		wire.ReasonPolicy:         "connection not allowed by ruleset",
		wire.ReasonShutdown:       "general SOCKS server failure",
	} {
		addr := serveTCP(t, Config{Dial: func(context.Context, Request) (net.Conn, error) {
			return nil, &wire.EndError{Reason: reason}
		}})
		dialer, err := proxy.SOCKS5("tcp", addr, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dialer.Dial("tcp", "web.test:80"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", reason, err, want)
		}
	}
}

// Many at once, on fewer connections than there are clients: each gets its own answer.
func TestParallelClients(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.URL.Path)
	}))
	defer web.Close()
	addr := serveTCP(t, Config{MaxConns: 10, Dial: dialTo(web.Listener.Addr().String(), func(Request) {})})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: addr, User: url.UserPassword(fmt.Sprint(i), "x")}), DisableKeepAlives: true}
			client := http.Client{Transport: transport}
			want := fmt.Sprintf("/%d", i)
			resp, err := client.Get("http://web.test" + want)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); string(body) != want || err != nil {
				t.Errorf("%q, %v; want %q", body, err, want)
			}
		})
	}
	wg.Wait()
}
