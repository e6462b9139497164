package localnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	xproxy "golang.org/x/net/proxy"

	"torproxy/proxy"
	"torproxy/proxy/frontdoor"
	"torproxy/proxy/localnet"
	"torproxy/proxy/socks"
	"torproxy/wire"
)

// readyWithin bounds waits for a network to come up on a busy machine; nothing measures time by it.
const readyWithin = 60 * time.Second

func TestMain(m *testing.M) {
	ballast := make([]byte, 32<<20) // as the command has, for the collector: benchmarks measure what people run
	defer runtime.KeepAlive(ballast)
	if os.Getenv(nodeEnv) != "" {
		if err := runAsNode(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	runtime.KeepAlive(ballast) // os.Exit runs nothing deferred
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString("goroutines are left behind: " + err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

// startNetwork runs a network until the test ends.
func startNetwork(t testing.TB, cfg localnet.Config) *localnet.Network {
	t.Helper()
	n, err := localnet.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("network: %v", err)
		}
	})
	return n
}

// client is a running proxy with a SOCKS port and a front door, all ended with the test.
type client struct {
	*proxy.Proxy
	socks, http string
}

func startClient(t testing.TB, n *localnet.Network, cfg proxy.Config) *client {
	t.Helper()
	cfg.Network = n.File()
	p, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := socks.New(socks.Config{Dial: func(ctx context.Context, r socks.Request) (net.Conn, error) {
		return p.Dial(ctx, proxy.Request{Target: r.Target, Isolation: r.User + "\x00" + r.Password})
	}})
	f := frontdoor.New(frontdoor.Config{Backend: noBackend{}, Dial: func(ctx context.Context, r frontdoor.Request) (net.Conn, error) {
		wanted := proxy.Request{Target: r.Target, Isolation: "http" + r.Isolation, Early: r.Early, After: r.After, Pushed: r.Pushed}
		if r.HTTP {
			wanted.Kind = wire.KindHTTP
		}
		return p.Dial(ctx, wanted)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	serve := func(run func(context.Context) error) {
		ended := make(chan error, 1)
		go func() { ended <- run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("client: %v", err)
			}
		})
	}
	c := &client{Proxy: p}
	serve(p.Run)
	socksPort, httpPort := listen(t), listen(t)
	c.socks, c.http = socksPort.Addr().String(), httpPort.Addr().String()
	serve(func(ctx context.Context) error { return s.Serve(ctx, socksPort) })
	serve(func(ctx context.Context) error { return f.Serve(ctx, httpPort) })
	return c
}

func (c *client) awaitReady(t testing.TB) *client {
	t.Helper()
	select {
	case <-c.Ready():
	case <-time.After(readyWithin):
		t.Fatalf("the client is not ready: %+v", c.Progress())
	}
	return c
}

// noBackend is a front door's backend of which these tests need no more than that it is there.
type noBackend struct{ frontdoor.Backend }

func (noBackend) Status() frontdoor.Status { return frontdoor.Status{} }

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dialSOCKS connects through the client's SOCKS port.
func (c *client) dialSOCKS(t testing.TB, target string) net.Conn {
	t.Helper()
	conn, err := c.trySOCKS(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (c *client) trySOCKS(target string) (net.Conn, error) {
	d, err := xproxy.SOCKS5("tcp", c.socks, nil, nil)
	if err != nil {
		return nil, err
	}
	return d.Dial("tcp", target)
}

// viaSOCKS and viaFrontDoor are HTTP clients whose only way out is the proxy.
func (c *client) viaSOCKS(t testing.TB) *http.Client {
	return c.via(t, "socks5://"+c.socks)
}

func (c *client) viaFrontDoor(t testing.TB) *http.Client {
	return c.via(t, "http://"+c.http)
}

func (c *client) via(t testing.TB, proxyURL string) *http.Client {
	t.Helper()
	u, err := url.Parse(proxyURL)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{Proxy: http.ProxyURL(u)}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// get fetches a page and returns its body.
func get(t testing.TB, c *http.Client, url string) string {
	t.Helper()
	body, err := tryGet(c, url)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func tryGet(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status + ": " + strings.TrimSpace(string(body)))
	}
	return string(body), err
}
