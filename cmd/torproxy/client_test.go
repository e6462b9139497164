package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"torproxy/proxy/frontdoor"
	"torproxy/wire"
)

const testHops = 5

// TestClient runs the command with its embedded network and uses it as programs do.
func TestClient(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	c := startClient(t, "--hops", fmt.Sprint(testHops))

	t.Run("page", c.testPage)
	t.Run("status", c.testStatus)
	t.Run("relays", c.testRelays)
	t.Run("user names", c.testUserNames) // before there are more exits
	t.Run("steered relays", c.testSteeredRelays)
	t.Run("isolation", c.testIsolation)
	t.Run("new identity", c.testNewIdentity)
	t.Run("ourselves", c.testOurselves)
	t.Run("metrics", c.testMetrics)
	t.Run("links to open", c.testLinks)
	t.Run("links of a page", c.testPrefetch)
}

// running is a client in this process.
type running struct {
	at addresses
}

// startClient runs the command until the test's end, when it must stop with exit code 0, and returns when
// it is ready.
func startClient(t *testing.T, args ...string) *running {
	t.Helper()
	args = append(args, "--json", "--socks", "127.0.0.1:0", "--http", "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	stdout, w := io.Pipe()
	var stderr bytes.Buffer
	exit := make(chan int, 1)
	go func() {
		exit <- run(ctx, args, nil, w, &stderr)
		w.Close()
	}()
	c := &running{}
	t.Cleanup(func() {
		cancel()
		rest, err := io.ReadAll(stdout)
		if code := <-exit; code != exitDone || err != nil || !bytes.HasSuffix(rest, []byte("{\"event\":\"stopped\"}\n")) {
			t.Errorf("stopped with exit code %d, last events %s, stderr:\n%s", code, rest, &stderr)
		}
	})
	lines := bufio.NewReader(stdout)
	for c.at.http == "" {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ Event, SOCKS, HTTP string }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("no event: %s", line)
		}
		c.at = addresses{socks: e.SOCKS, http: e.HTTP}
	}
	return c
}

// page is the destination: it answers with the circuits that carry a stream to it while it answers, and
// with what it was asked for.
func (c *running) page(w http.ResponseWriter, r *http.Request) {
	var circuits []frontdoor.Circuit
	if err := c.api("/api/circuits", &circuits); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var p page
	for _, circuit := range circuits {
		for _, stream := range circuit.Streams {
			if stream.Target == r.Host {
				p.Circuits = append(p.Circuits, circuit)
			}
		}
	}
	p.Query = r.URL.RawQuery
	json.NewEncoder(w).Encode(p)
}

type page struct {
	Circuits []frontdoor.Circuit
	Query    string
}

// api reads what the front door says.
func (c *running) api(path string, into any) error {
	answer, err := direct().Get("http://" + c.at.http + path)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

func direct() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// through is an HTTP client that uses a proxy, with one connection per request.
func through(proxy string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		Proxy:             func(*http.Request) (*url.URL, error) { return url.Parse(proxy) },
	}}
}

// proxies are both ports, with credentials ("" or "user:password@").
func (c *running) proxies(credentials string) map[string]string {
	return map[string]string{"socks": "socks5://" + credentials + c.at.socks, "http": "http://" + credentials + c.at.http}
}

// fetch gets the page by a proxy, from a site of its own: no other stream has its target.
func (c *running) fetch(t *testing.T, proxy, query string) page {
	t.Helper()
	site := httptest.NewServer(http.HandlerFunc(c.page))
	defer site.Close()
	return c.fetchFrom(t, proxy, site.URL+"/?"+query)
}

func (c *running) fetchFrom(t *testing.T, proxy, at string) page {
	t.Helper()
	answer, err := through(proxy).Get(at)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var p page
	if err := json.NewDecoder(answer.Body).Decode(&p); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("by %s: %s, %v", proxy, answer.Status, err)
	}
	if len(p.Circuits) != 1 {
		t.Fatalf("by %s: %d circuits carried it", proxy, len(p.Circuits))
	}
	return p
}

// testPage fetches the page by both ports, and looks at the circuit that carried it.
func (c *running) testPage(t *testing.T) {
	for port, proxy := range c.proxies("") {
		p := c.fetch(t, proxy, "port="+port+";bad=%zz")
		if p.Query != "port="+port+";bad=%zz" {
			t.Errorf("%s: the query arrived as %q", port, p.Query)
		}
		circuit := p.Circuits[0]
		distinct := map[string]bool{}
		for _, hop := range circuit.Hops {
			distinct[hop.Address] = true
			if hop.ID.IsZero() || hop.Nickname == "" {
				t.Errorf("%s: a hop without a name: %+v", port, hop)
			}
		}
		if len(circuit.Hops) != testHops || len(distinct) != testHops || circuit.State != frontdoor.Ready {
			t.Errorf("%s: not a ready circuit of %d relays: %+v", port, testHops, circuit)
		}
		if circuit.Streams[0].Isolation != port {
			t.Errorf("%s: the isolation of a stream without credentials is %q", port, circuit.Streams[0].Isolation)
		}
	}
}

func (c *running) testStatus(t *testing.T) {
	var s frontdoor.Status
	if err := c.api("/api/status", &s); err != nil {
		t.Fatal(err)
	}
	if s.Hops != testHops || s.SOCKS != c.at.socks || s.HTTP != c.at.http || s.Version != version() || !s.Ready() {
		t.Errorf("got %+v", s)
	}
	n := s.Network
	if !n.Embedded || n.Authorities != 4 || n.Relays < 5 || n.Exits < 1 || n.Exits > n.Relays || !n.ValidUntil.After(n.ValidAfter.Time) {
		t.Errorf("got network %+v", n)
	}
}

func (c *running) testRelays(t *testing.T) {
	var relays []frontdoor.Relay
	if err := c.api("/api/relays", &relays); err != nil {
		t.Fatal(err)
	}
	relays = slices.DeleteFunc(relays, func(r frontdoor.Relay) bool { return len(r.Flags) == 0 }) // in no consensus yet
	exits := 0
	for _, r := range relays {
		if r.Nickname == "" || r.Weight == 0 || !slices.Contains(r.Flags, "Running") || !strings.HasPrefix(r.Address, "127.0.0.1:") {
			t.Errorf("got relay %+v", r)
		}
		if slices.Contains(r.Flags, "Exit") {
			exits++
		}
	}
	if len(relays) < 5 || exits < 1 {
		t.Errorf("%d relays, %d exits", len(relays), exits)
	}
}

// testSteeredRelays adds a relay to the embedded network, stops and starts it, and follows that in the events.
func (c *running) testSteeredRelays(t *testing.T) {
	events, err := direct().Get("http://" + c.at.http + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	lines := bufio.NewScanner(events.Body)
	post := func(path string) (answer struct{ ID wire.ID }) {
		t.Helper()
		r, err := direct().Post("http://"+c.at.http+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if json.NewDecoder(r.Body).Decode(&answer); r.StatusCode/100 != 2 {
			t.Fatalf("%s: %s", path, r.Status)
		}
		return answer
	}
	await := func(id wire.ID, is bool) {
		t.Helper()
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var relay frontdoor.Relay
			if ok && json.Unmarshal([]byte(data), &relay) == nil && relay.ID == id && relay.Running == is {
				return
			}
		}
		t.Fatalf("the events end: %v", lines.Err())
	}
	id := post("/api/relays").ID
	await(id, true)
	post("/api/relays/" + id.String() + "/stop")
	await(id, false)
	post("/api/relays/" + id.String() + "/start")
	await(id, true)
	if r, err := direct().Post("http://"+c.at.http+"/api/relays/"+strings.Repeat("00", 32)+"/stop", "", nil); err != nil || r.StatusCode != http.StatusNotFound {
		t.Errorf("no such relay: %v, %v", r, err)
	} else {
		r.Body.Close()
	}
}

// testIsolation uses each port with several credentials: no two share a circuit, the same ones do, as long as it
// stands. (It may not: a consensus of when testSteeredRelays' relay stood still retires the circuits through it.)
func (c *running) testIsolation(t *testing.T) {
	const secret = "correct-horse"
	carrier := map[string]string{} // circuit to whose it is
	for _, credentials := range []string{"", "ann:" + secret + "@", "ben:" + secret + "@", "a:nn" + secret + "@"} {
		for port, proxy := range c.proxies(credentials) {
			who := port + " " + credentials
			first, second := c.fetch(t, proxy, "").Circuits[0], c.fetch(t, proxy, "").Circuits[0]
			for _, id := range []string{first.ID, second.ID} {
				if other, taken := carrier[id]; taken && other != who {
					t.Errorf("%q and %q share a circuit", who, other)
				}
				carrier[id] = who
			}
			if second.ID != first.ID && c.isReady(t, first.ID) {
				t.Errorf("%q used two circuits", who)
			}
			label := first.Streams[0].Isolation
			if strings.Contains(label, "ann") || strings.Contains(label, "ben") || strings.Contains(label, secret) {
				t.Errorf("the label %q tells the credentials", label)
			}
		}
	}
}

// isReady reports whether the client has a circuit that would take new streams.
func (c *running) isReady(t *testing.T, id string) bool {
	t.Helper()
	var circuits []frontdoor.Circuit
	if err := c.api("/api/circuits", &circuits); err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(circuits, func(circuit frontdoor.Circuit) bool {
		return circuit.ID == id && circuit.State == frontdoor.Ready
	})
}

func (c *running) testNewIdentity(t *testing.T) {
	for port, proxy := range c.proxies("") {
		before := c.fetch(t, proxy, "").Circuits[0].ID
		answer, err := direct().Post("http://"+c.at.http+"/api/newnym", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Fatal(answer.Status)
		}
		if after := c.fetch(t, proxy, "").Circuits[0].ID; after == before {
			t.Errorf("%s: circuit %s was used before and after", port, before)
		}
	}
}

// testOurselves asks for the front door by the proxy, under every name that it might have: nothing may
// arrive there.
func (c *running) testOurselves(t *testing.T) {
	_, port, err := net.SplitHostPort(c.at.http)
	if err != nil {
		t.Fatal(err)
	}
	const policy, malformed = "not allowed by ruleset", "general SOCKS server failure" // replies 2 and 1
	for host, reply := range map[string]string{
		"127.0.0.1": policy, "127.0.0.2": policy, "0.0.0.0": policy,
		"localhost": policy, "LocalHost": policy, "localhost.": policy, "a.localhost": policy,
		"127.1": malformed, "2130706433": malformed, "0x7f000001": malformed, "0177.0.0.1": malformed,
		"[::1]": policy, "[::]": policy, "[::ffff:127.0.0.1]": policy, "[::ffff:7f00:2]": policy, "[64:ff9b::7f00:1]": policy,
	} {
		target := "http://" + host + ":" + port + "/api/status"
		if answer, err := through("socks5://" + c.at.socks).Get(target); err == nil {
			answer.Body.Close()
			t.Errorf("by SOCKS, %s answered %s", target, answer.Status)
		} else if !strings.HasSuffix(err.Error(), reply) {
			t.Errorf("by SOCKS, %s: %v", target, err)
		}
		answer, err := through("http://" + c.at.http).Get(target)
		if err != nil {
			t.Errorf("by HTTP, %s: %v", target, err)
			continue
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusForbidden {
			t.Errorf("by HTTP, %s answered %s", target, answer.Status)
		}
	}
	var s frontdoor.Status
	if err := c.api("/api/status", &s); err != nil {
		t.Errorf("asked directly: %v", err)
	}
}

// TestClientFails makes sure that the client's end is told when it is not a stop.
func TestClientFails(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), []string{"--socks", "127.0.0.1:0", "--http", taken.Addr().String()}, nil, &stdout, &stderr)
	if code != exitFailed || stdout.Len() > 0 || !strings.HasPrefix(stderr.String(), "error: cannot listen on "+taken.Addr().String()) {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, &stdout, &stderr)
	}
	if f := failureOf(errors.New("the sky has fallen")); f.exit() != exitFailed || f.code != codeFailed || f.Error() != "the sky has fallen" {
		t.Errorf("an unexplained error is %+v", f)
	}
}

// testMetrics looks for figures that cannot be zero, and for what must not be among them.
func (c *running) testMetrics(t *testing.T) {
	answer, err := direct().Get("http://" + c.at.http + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	documented(t, "torproxy_client_", string(text))
	for _, never := range []string{"127.0.0.1", "localhost", "http:", "relay1"} {
		if strings.Contains(string(text), never) {
			t.Errorf("the metrics have %s", never)
		}
	}
	for _, zero := range []string{"torproxy_client_circuits_built_total 0", `torproxy_client_connections_total{outcome="connected"} 0`, `torproxy_client_bytes_total{direction="in"} 0`} {
		if strings.Contains(string(text), zero+"\n") {
			t.Errorf("%s", zero)
		}
	}
}

// testLinks lets a reply ask for a link to be opened: it is shown whole, and refused.
func (c *running) testLinks(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/uri-list")
		io.WriteString(w, "http://xn--bcher-kva.test/x?y\r\n")
	}))
	defer site.Close()
	answer, err := through("http://" + c.at.http).Get(site.URL)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.Header.Get("Torproxy-Open") != "" {
		t.Errorf("the client sees %v", answer.Header)
	}
	var links []frontdoor.Link
	if err := c.api("/api/links", &links); err != nil || len(links) != 1 {
		t.Fatalf("links %v, %v", links, err)
	}
	if l := links[0]; l.URL != "http://xn--bcher-kva.test/x?y" || l.Host != "xn--bcher-kva.test" || "http://"+l.From != site.URL || l.State != frontdoor.LinkWaiting {
		t.Errorf("%+v", l)
	}
	said, err := direct().Post("http://"+c.at.http+"/api/links/"+links[0].ID, "application/json", strings.NewReader(`{"open":false}`))
	if err != nil {
		t.Fatal(err)
	}
	said.Body.Close()
	if c.api("/api/links", &links); links[0].State != frontdoor.LinkRefused {
		t.Errorf("%+v", links)
	}
}

// testPrefetch asks for a page as browsers do: the exit opens its links, and each is asked for at the site
// only once.
func (c *running) testPrefetch(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Path]++
		mu.Unlock()
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, `<!DOCTYPE html><link rel="stylesheet" href="/style.css"><img src="/picture">`)
		case "/style.css":
			w.Header().Set("Content-Type", "text/css")
			io.WriteString(w, `p { background: url(/background) }`)
		default:
			io.WriteString(w, r.URL.Path)
		}
	}))
	defer site.Close()
	client := through("http://" + c.at.http)
	for _, path := range []string{"/", "/style.css", "/picture", "/background"} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", site.URL+path, nil)
		r.Header.Set("Accept", "*/*")
		if path == "/" {
			r.Header.Set("Accept", "text/html,*/*;q=0.8")
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for path, n := range asked {
		if n != 1 {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
	if len(asked) != 4 {
		t.Errorf("asked for %v", asked)
	}
}
