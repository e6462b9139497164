package localnet_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// navigator loads pages as a browser does, but for running scripts: it reads the page as it comes, starts
// what it finds when it finds it, reads stylesheets when they are whole, and makes 6 connections to a host.
// Its rules for links are its own.
type navigator struct {
	proxy *url.URL // what kind of one
	dial  func(ctx context.Context, network, address string) (net.Conn, error)

	loading sync.WaitGroup
	mu      sync.Mutex
	hosts   map[string]*http.Transport
	seen    map[string]bool
	got     map[string]string // bodies by URL
	err     error
}

const perHost = 6

func newNavigator(proxy *url.URL, dial func() net.Conn) *navigator {
	return &navigator{
		proxy: proxy, dial: func(context.Context, string, string) (net.Conn, error) { return dial(), nil },
		hosts: map[string]*http.Transport{}, seen: map[string]bool{}, got: map[string]string{},
	}
}

// load loads a page with all that belongs to it and returns the bodies by their URLs.
func (n *navigator) load(page string) (map[string]string, error) {
	n.start(page, "text/html,application/xhtml+xml,image/avif,image/webp,image/apng,*/*;q=0.8", "", "")
	n.loading.Wait()
	for _, t := range n.hosts {
		t.CloseIdleConnections()
	}
	return n.got, n.err
}

// transport is that of a host: browsers count connections by host, also those to a proxy.
func (n *navigator) transport(host string) *http.Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts[host] == nil {
		n.hosts[host] = &http.Transport{
			Proxy: http.ProxyURL(n.proxy), DialContext: n.dial, MaxConnsPerHost: perHost, MaxIdleConnsPerHost: perHost, DisableCompression: true,
		}
	}
	return n.hosts[host]
}

// start asks for a URL, once, if it is of a page for another.
func (n *navigator) start(link, accept, origin, referer string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen[link] {
		return
	}
	n.seen[link] = true
	n.loading.Go(func() {
		if err := n.fetch(link, accept, origin, referer); err != nil {
			n.mu.Lock()
			n.err = errors.Join(n.err, fmt.Errorf("%s: %w", link, err))
			n.mu.Unlock()
		}
	})
}

func (n *navigator) fetch(link, accept, origin, referer string) error {
	r, err := http.NewRequest("GET", link, nil)
	if err != nil {
		return err
	}
	r.Header = http.Header{
		"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"},
		"Accept":     {accept}, "Accept-Encoding": {"gzip, deflate"}, "Accept-Language": {"en-US,en;q=0.9"},
	}
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	if referer != "" {
		r.Header.Set("Referer", referer)
	}
	resp, err := n.transport(r.URL.Host).RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var body strings.Builder
	in := bufio.NewReader(resp.Body)
	for {
		line, err := in.ReadString('\n')
		body.WriteString(line)
		if kind == "text/html" {
			n.follow(r.URL, line, attributes)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if kind == "text/css" {
		n.follow(r.URL, body.String(), values)
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got[link] = body.String()
	return nil
}

var (
	attributes = regexp.MustCompile(`<[^>]* (?:src|href)="([^"]*)"`)
	values     = regexp.MustCompile(`url\(([^)]*)\)`)
)

// follow starts all links in a text.
func (n *navigator) follow(base *url.URL, text string, rule *regexp.Regexp) {
	for _, m := range rule.FindAllStringSubmatch(text, -1) {
		u, err := base.Parse(m[1])
		if err != nil {
			continue
		}
		accept, origin := "*/*", ""
		switch ending := u.Path[strings.LastIndexByte(u.Path, '.')+1:]; ending {
		case "css":
			accept = "text/css,*/*;q=0.1"
		case "png":
			accept = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
		case "woff2":
			origin = "http://" + base.Host
		}
		n.start(u.String(), accept, origin, base.String())
	}
}
