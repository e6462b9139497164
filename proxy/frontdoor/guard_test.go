package frontdoor

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func (f *fixture) port() string {
	_, port, _ := net.SplitHostPort(f.addr)
	return port
}

// DNS rebinding: a page's own name may lead to 127.0.0.1, but its requests still carry that name.
func TestGuardHost(t *testing.T) {
	f := start(t)
	for host, ok := range map[string]bool{
		"127.0.0.1:PORT":           true,
		"localhost:PORT":           true,
		"LocalHost:PORT":           true,
		"[::1]:PORT":               true,
		"localhost":                false,
		"localhost.:PORT":          false,
		"127.0.0.1":                false,
		"127.0.0.1:80":             false,
		"127.0.0.2:PORT":           false,
		"127.1:PORT":               false,
		"2130706433:PORT":          false,
		"0.0.0.0:PORT":             false,
		"[::]:PORT":                false,
		"[::ffff:127.0.0.1]:PORT":  false,
		"evil.test":                false,
		"evil.test:PORT":           false,
		"localhost.evil.test:PORT": false,
		"127.0.0.1.evil.test:PORT": false,
		"x.localhost:PORT":         false,
		"localhost:PORT:PORT":      false,
		"":                         false,
	} {
		host = strings.ReplaceAll(host, "PORT", f.port())
		for _, request := range []string{"GET /api/status", "GET /", "GET /proxy.pac", "POST /api/newnym", "OPTIONS *", "GET /nowhere"} {
			r, body := f.do(request + " HTTP/1.1\nHost: " + host + "\n\n")
			if (r.StatusCode == http.StatusMisdirectedRequest) == ok {
				t.Errorf("%s with Host %q: %s %q", request, host, r.Status, body)
			}
		}
	}
	if n := f.client.newIdentities(); n != 4 {
		t.Errorf("%d new identities, want 4", n)
	}
}

func TestGuardRefusesHeadTricks(t *testing.T) {
	f := start(t)
	for _, head := range []string{
		"Host: SELF\nHost: evil.test", "Host: evil.test\nHost: SELF", "X: y", "Host: SELF,evil.test", "Host : SELF",
		"Host: evil.test\nX-Forwarded-Host: SELF", "Host: SELF@evil.test",
	} {
		r, body := f.do("POST /api/newnym HTTP/1.1\n" + head + "\n\n")
		if r.StatusCode < 400 {
			t.Errorf("%q: %s %q", head, r.Status, body)
		}
	}
	if n := f.client.newIdentities(); n != 0 {
		t.Errorf("%d new identities", n)
	}
}

func TestGuardCrossSite(t *testing.T) {
	f := start(t)
	for headers, ok := range map[string]bool{
		"": true, // curl
		"Origin: http://SELF\nSec-Fetch-Site: same-origin\n":                           true,
		"Origin: http://SELF\n":                                                        true,
		"Sec-Fetch-Site: none\n":                                                       true,
		"Origin: http://evil.test\nSec-Fetch-Site: cross-site\n":                       false,
		"Origin: http://evil.test\n":                                                   false,
		"Origin: null\n":                                                               false,
		"Origin: https://SELF\n":                                                       false,
		"Origin: http://localhost:1\nSec-Fetch-Site: same-site\n":                      false,
		"Sec-Fetch-Site: cross-site\n":                                                 false,
		"Sec-Fetch-Site: same-site\n":                                                  false,
		"Sec-Fetch-Site: nonsense\n":                                                   false,
		"Origin: http://evil.test\nSec-Fetch-Site: same-origin\n":                      false,
		"Origin: http://evil.test\nSec-Fetch-Site: none\n":                             false,
		"Origin: http://SELF\nOrigin: http://evil.test\n":                              false,
		"Sec-Fetch-Site: same-origin\nSec-Fetch-Site: cross-site\n":                    false,
		"Content-Type: text/plain\nOrigin: http://SELF.evil.test\nContent-Length: 0\n": false,
	} {
		for _, request := range []string{"POST /api/newnym", "DELETE /api/circuits/7", "PUT /api/status", "POST /api/links/1", "POST /api/relays", "POST /api/relays/x/stop"} {
			r, body := f.do(request + " HTTP/1.1\nHost: SELF\n" + headers + "\n")
			if (r.StatusCode == http.StatusForbidden) == ok {
				t.Errorf("%s with %q: %s %q", request, headers, r.Status, body)
			}
		}
	}
	if n := f.client.newIdentities(); n != 4 {
		t.Errorf("%d new identities, want 4", n)
	}
	if n := len(f.client.closedCircuits()); n != 4 {
		t.Errorf("%d circuits asked to close, want 4", n)
	}
	r, _ := f.do("GET /api/status HTTP/1.1\nHost: SELF\nSec-Fetch-Site: cross-site\n\n") // a link to the console
	wantStatus(t, r, 200)
}

// What holds a place, or tells of the user's doings, is not for other sites' pages even to ask for.
func TestGuardPrivate(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	})
	for headers, ok := range map[string]bool{
		"":                              true,
		"Sec-Fetch-Site: same-origin\n": true,
		"Sec-Fetch-Site: none\n":        true, // typed in
		"Origin: http://SELF\n":         true,
		"Sec-Fetch-Site: cross-site\n":  false,
		"Sec-Fetch-Site: same-site\n":   false,
		"Sec-Fetch-Site: same-origin\nSec-Fetch-Site: cross-site\n": false,
		"Origin: http://evil.test\n":                                false,
		"Origin: null\n":                                            false,
	} {
		for _, path := range []string{"/api/events", "/api/why?host=a", "/api/links", "/api/circuits", "/api/relays", "/api/nowhere", "/metrics"} {
			for _, method := range []string{"GET", "HEAD"} {
				c := f.send(method + " " + path + " HTTP/1.1\nHost: SELF\n" + headers + "\n")
				if r := c.head(method); (r.StatusCode == http.StatusForbidden) == ok {
					t.Errorf("%s %s with %q: %s", method, path, headers, r.Status)
				}
				c.Close()
			}
		}
	}
}

func TestGuardHeaders(t *testing.T) {
	f := start(t)
	for _, request := range []string{
		"GET / HTTP/1.1\nHost: SELF", "GET /api/status HTTP/1.1\nHost: SELF", "GET /proxy.pac HTTP/1.1\nHost: SELF",
		"GET /nowhere HTTP/1.1\nHost: SELF", "HEAD /api/events HTTP/1.1\nHost: SELF", "GET /api/nowhere HTTP/1.1\nHost: SELF", "POST / HTTP/1.1\nHost: SELF", "GET / HTTP/1.1\nHost: evil.test",
		"POST /api/newnym HTTP/1.1\nHost: SELF\nOrigin: http://evil.test",
		"OPTIONS /api/newnym HTTP/1.1\nHost: SELF\nOrigin: http://evil.test\nAccess-Control-Request-Method: POST",
	} {
		r, _ := f.do(request + "\n\n")
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": contentPolicy, "X-Frame-Options": "DENY",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", request, name, got)
			}
		}
		for name := range r.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: CORS header %s", request, name)
			}
		}
	}
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(contentPolicy, want) {
			t.Errorf("the policy lacks %s", want)
		}
	}
}

// Nothing of ours is reached through the proxy, by whatever name.
func TestNeverToOurselves(t *testing.T) {
	asked := make(chan string, 256)
	f := start(t, func(c *Config) {
		c.Own = func(target string) bool {
			asked <- target
			return target == "socks.test:9050" || target == "127.0.0.1:9050"
		}
	})
	targets := []string{"socks.test:9050", "SOCKS.test:9050", "2130706433:9050", "[::ffff:7f00:1]:9050"}
	for _, host := range []string{
		"127.0.0.1", "localhost", "LOCALHOST", "localhost.", "x.localhost", "127.0.0.2", "127.1", "127.255.255.254", "0.0.0.0", "0", "[::]", "[::1]",
		"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.0.0.1.",
	} {
		targets = append(targets, host+":"+f.port())
	}
	for _, target := range targets {
		for _, line := range []string{"CONNECT " + target, "GET http://" + target + "/", "POST http://" + target + "/api/newnym", "DELETE http://" + target + "/api/circuits/7"} {
			r, body := f.do(line + " HTTP/1.1\nHost: SELF\n\n")
			if r.StatusCode != http.StatusForbidden || !strings.Contains(body, "torproxy itself") {
				t.Errorf("%s: %s %q", line, r.Status, body)
			}
		}
	}
	if got := f.network.dialled(); len(got) != 0 {
		t.Errorf("dialled %q", got)
	}
	if f.client.newIdentities() != 0 || len(f.client.closedCircuits()) != 0 {
		t.Error("a proxied request was served")
	}
	for range 4 * 4 {
		if target := <-asked; target != "socks.test:9050" && target != "127.0.0.1:9050" {
			t.Errorf("Own was asked for %q, not in canonical form", target)
		}
	}
	r, _ := f.do("CONNECT 127.0.0.1:1 HTTP/1.1\n\n") // somebody else's port
	wantStatus(t, r, 502)
}

// Listeners on other addresses, which a test machine need not have.
func TestOwnAddresses(t *testing.T) {
	for _, test := range []struct {
		listener, local, host string
		named                 bool
	}{
		{"192.0.2.1:8118", "192.0.2.1:8118", "192.0.2.1:8118", true},
		{"192.0.2.1:8118", "192.0.2.1:8118", "localhost:8118", true},
		{"192.0.2.1:8118", "192.0.2.1:8118", "127.0.0.1:8118", false},
		{"0.0.0.0:8118", "192.0.2.7:8118", "192.0.2.7:8118", true},
		{"0.0.0.0:8118", "192.0.2.7:8118", "192.0.2.8:8118", false},
		{"0.0.0.0:8118", "192.0.2.7:8118", "0.0.0.0:8118", false},
		{"[::]:8118", "[::ffff:127.0.0.1]:8118", "127.0.0.1:8118", true},
		{"[::]:8118", "[fe80::1%eth0]:8118", "[fe80::1]:8118", true},
		{"127.0.0.1:80", "127.0.0.1:80", "localhost", true},
		{"127.0.0.1:80", "127.0.0.1:80", "[::1]", true},
		{"127.0.0.1:80", "127.0.0.1:80", "127.0.0.1:80", true},
	} {
		d := &door{addr: netip.MustParseAddrPort(test.listener)}
		local := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(test.local))
		r := requestOn(t, local, test.host)
		if got := d.named(r); got != test.named {
			t.Errorf("listener %s, connection to %s, Host %s: %v", test.listener, test.local, test.host, got)
		}
	}
	d := &door{addr: netip.MustParseAddrPort("192.0.2.1:8118")}
	for s, own := range map[string]bool{"192.0.2.1:8118": true, "[::ffff:c000:201]:8118": true, "192.0.2.2:8118": false, "192.0.2.1:8119": false, "web.test:8118": false} {
		target, err := parseTarget(s, 0)
		if err != nil || d.ours(target) != own {
			t.Errorf("%s: ours %v, %v", s, !own, err)
		}
	}
}
