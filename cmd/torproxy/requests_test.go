package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	xproxy "golang.org/x/net/proxy"

	"torproxy/proxy/frontdoor"
)

// exits are the embedded network's. The first consensus may lack some, so they are waited for.
func (c *running) exits(t *testing.T) []string {
	t.Helper()
	exits := []string{"relay9", "relay10", "relay11", "relay12"}
	answer, err := direct().Get("http://" + c.at.http + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for missing := slices.Clone(exits); len(missing) > 0; {
		if !lines.Scan() {
			t.Fatalf("the events end without %q: %v", missing, lines.Err())
		}
		data, found := strings.CutPrefix(lines.Text(), "data: ")
		var r frontdoor.Relay
		if found && json.Unmarshal([]byte(data), &r) == nil && slices.Contains(r.Flags, "Exit") {
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == r.Nickname })
		}
	}
	return exits
}

// exit is the nickname of the relay that asked for the page.
func (p page) exit() string {
	hops := p.Circuits[0].Hops
	return hops[len(hops)-1].Nickname
}

// testUserNames chooses the exit, and what is none, by the user name, at both ports.
func (c *running) testUserNames(t *testing.T) {
	exits := c.exits(t)
	carrier := map[string]string{}
	for i, exit := range exits {
		others := strings.Join(slices.Concat(exits[:i], exits[i+1:]), ",")
		for _, user := range []string{"ann+exit=" + exit, "ann+exclude=" + others, "exit=" + exit + "," + others + "+exclude=" + others} {
			for port, proxy := range c.proxies(url.UserPassword(user, "any").String() + "@") {
				p := c.fetch(t, proxy, "")
				if p.exit() != exit {
					t.Errorf("%s, %s: the exit was %s", port, user, p.exit())
				}
				id := p.Circuits[0].ID
				if other, taken := carrier[id]; taken {
					t.Errorf("%q and %q share a circuit", user, other)
				}
				carrier[id] = port + " " + user
			}
		}
	}
	for _, user := range []string{"ann+exti=" + exits[0], "ann+exit=", "ann+exit=" + exits[0] + "+exit=" + exits[1]} {
		proxies := c.proxies(url.UserPassword(user, "any").String() + "@")
		if answer, err := through(proxies["socks"]).Get("http://site.test/"); err == nil {
			answer.Body.Close()
			t.Errorf("SOCKS, %s: %s", user, answer.Status)
		} else if !strings.HasSuffix(err.Error(), "username/password authentication failed") {
			t.Errorf("SOCKS, %s: %v", user, err)
		}
		answer, err := through(proxies["http"]).Get("http://site.test/")
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusProxyAuthRequired {
			t.Errorf("front door, %s: %s", user, answer.Status)
		}
	}
}

// TestClientFlags: what the flags say holds for every request, and a user name may be more particular.
func TestClientFlags(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	const exit, other, excluded = "relay9", "relay10", "relay11" // of exits
	c := startClient(t, "--hops", "3", "--optimistic", "--isolate", "dest", "--exit", exit+","+excluded, "--exclude", "relay1", "--exclude", excluded)
	c.exits(t)
	for _, test := range []struct{ credentials, exit string }{
		{"", exit}, {"ann:one@", exit}, {"ann+exit=" + other + ":one@", other}, {"ann+exclude=relay2:one@", exit},
	} {
		for port, proxy := range c.proxies(test.credentials) {
			p := c.fetch(t, proxy, "")
			if p.exit() != test.exit {
				t.Errorf("%s, %q: the exit was %s", port, test.credentials, p.exit())
			}
			for _, hop := range p.Circuits[0].Hops {
				if hop.Nickname == "relay1" || strings.Contains(test.credentials, "="+hop.Nickname+":") && hop.Nickname != other {
					t.Errorf("%s, %q: %s was used", port, test.credentials, hop.Nickname)
				}
			}
		}
	}
	t.Run("isolate", c.testIsolateDestinations)
	t.Run("optimistic", c.testOptimistic)
}

// testIsolateDestinations fetches by two names of this machine.
func (c *running) testIsolateDestinations(t *testing.T) {
	for name, proxy := range c.proxies("") {
		carrier := map[string]string{}
		for _, host := range []string{"127.0.0.1", "localhost", "127.0.0.1", "localhost"} {
			site := httptest.NewServer(http.HandlerFunc(c.page)) // another each time: no other stream has its target
			defer site.Close()
			p := c.fetchFrom(t, proxy, strings.Replace(site.URL, "127.0.0.1", host, 1))
			id := p.Circuits[0].ID
			if other, known := carrier[id]; known && other != host {
				t.Errorf("%s: %s and %s share a circuit", name, host, other)
			}
			carrier[id] = host
		}
	}
}

// testOptimistic connects to a port that nobody listens on: that it can't is known only afterwards.
func (c *running) testOptimistic(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	dialer, err := xproxy.SOCKS5("tcp", c.at.socks, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialer.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("a refusal was waited for: %v", err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d bytes, %v: it should be reset", n, err)
	}
}
