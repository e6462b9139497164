package localnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
	"torproxy/proxy/route"
	"torproxy/wire/netdoc"
)

// shortRounds keeps the rounds short for as long as a test runs.
func shortRounds(p *netdoc.Params) {
	p.InitialRound, p.InitialRounds = netdoc.Duration(shortRound), 1000
}

// await waits until the client's consensus satisfies a condition.
func await(t testing.TB, c *client, what string, ok func(*netdoc.Consensus) bool) {
	t.Helper()
	limit := time.After(readyWithin)
	for {
		changed := c.Changed()
		if current := c.Consensus(); current != nil && ok(current) {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("still not: %s", what)
		}
	}
}

// TestRelayComesAndGoes stops a relay, waits until the authorities' consensus has it no more, and starts
// it again; connections work all the while.
func TestRelayComesAndGoes(t *testing.T) {
	n := startNetwork(t, localnet.Config{Params: shortRounds})
	c := startClient(t, n, proxy.Config{}).awaitReady(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }))
	defer site.Close()
	await(t, c, "all relays run", func(d *netdoc.Consensus) bool { return len(d.Relays) == localnet.DefaultRelays })
	gone := n.Relays()[2].ID
	if err := n.StopRelay(gone); err != nil {
		t.Fatal(err)
	}
	await(t, c, "the stopped relay is out", func(d *netdoc.Consensus) bool { _, in := d.Relay(gone); return !in })
	conn, err := c.Dialer("after").DialContext(t.Context(), "tcp", site.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range routeOf(t, c, site.Listener.Addr().String()) {
		if id == gone {
			t.Error("a new connection goes through the relay that is out")
		}
	}
	conn.Close()
	if got := get(t, c.viaSOCKS(t), site.URL); got != "here" {
		t.Errorf("got %q", got)
	}
	if err := n.StartRelay(gone); err != nil {
		t.Fatal(err)
	}
	await(t, c, "the relay is back", func(d *netdoc.Consensus) bool { _, in := d.Relay(gone); return in })
	added, err := n.AddRelay()
	if err != nil {
		t.Fatal(err)
	}
	await(t, c, "the new relay is in", func(d *netdoc.Consensus) bool { _, in := d.Relay(added); return in })
	if got := get(t, c.viaSOCKS(t), site.URL); got != "here" {
		t.Errorf("got %q", got)
	}
}

// TestTooFewRelays checks that nobody gets a route while fewer relays run than the network asks for, that
// the client says so, and that it works once there are enough.
func TestTooFewRelays(t *testing.T) {
	n := startNetwork(t, localnet.Config{Relays: 4, Exits: 2, Params: shortRounds})
	c := startClient(t, n, proxy.Config{Hops: 2})
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }))
	defer site.Close()
	await(t, c, "four relays run", func(d *netdoc.Consensus) bool { return len(d.Relays) == 4 })
	if p := c.Progress(); p.Percent == 100 || !strings.Contains(p.Summary, "4") || !strings.Contains(p.Summary, "5") {
		t.Errorf("with four relays the client says: %+v", p)
	}
	if len(c.Circuits()) != 0 {
		t.Error("it builds circuits")
	}
	hurry, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := c.Dialer("").DialContext(hurry, "tcp", site.Listener.Addr().String())
	var few *route.TooFewRelays
	if !errors.As(err, &few) || few.Have != 4 || few.Need != 5 {
		t.Errorf("got %v, want 4 of 5 relays", err)
	}
	if _, err := n.AddRelay(); err != nil {
		t.Fatal(err)
	}
	c.awaitReady(t)
	if got := get(t, c.viaSOCKS(t), site.URL); got != "here" {
		t.Errorf("got %q", got)
	}
}

// record is a slog.Handler's writer that can be searched while it is written to.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// TestLogsKeepSilent reads the logs of a whole network at the level that people run it with: a relay says
// what each authority answered, and nobody says who connects to what.
func TestLogsKeepSilent(t *testing.T) {
	var log record
	n := startNetwork(t, localnet.Config{Log: slog.New(slog.NewTextHandler(&log, nil)), Params: shortRounds})
	c := startClient(t, n, proxy.Config{Log: slog.New(slog.NewTextHandler(&log, nil))}).awaitReady(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }))
	defer site.Close()
	await(t, c, "all relays run", func(d *netdoc.Consensus) bool { return len(d.Relays) == localnet.DefaultRelays })
	get(t, c.viaSOCKS(t), site.URL+"/the-path")
	c.trySOCKS("the-name.invalid:80")
	text := log.String()
	for i := range localnet.DefaultRelays {
		said, added := 0, 0
		for line := range strings.Lines(text) {
			if !strings.Contains(line, fmt.Sprintf("relay=relay%d ", i+1)) || !strings.Contains(line, "accepted the descriptor") {
				continue
			}
			said++
			if strings.Contains(line, "added") {
				added++
			}
		}
		// Authorities pass descriptors on to one another, so all but the first may know the relay already.
		if said < localnet.DefaultAuthorities || added < 1 {
			t.Errorf("relay%d logged %d answers of %d authorities, %d of them added", i+1, said, localnet.DefaultAuthorities, added)
		}
	}
	_, port, _ := strings.Cut(site.Listener.Addr().String(), ":")
	for _, secret := range []string{":" + port, "the-path", "the-name"} {
		if strings.Contains(text, secret) {
			t.Errorf("a log says %q", secret)
		}
	}
}

// TestFewAuthorities checks that networks of other numbers of authorities agree too.
func TestFewAuthorities(t *testing.T) {
	numbers := []int{1, 2, 3, 7}
	if testing.Short() {
		numbers = []int{1, 3}
	}
	for _, authorities := range numbers {
		t.Run(fmt.Sprint(authorities), func(t *testing.T) {
			n := startNetwork(t, localnet.Config{Authorities: authorities})
			c := startClient(t, n, proxy.Config{}).awaitReady(t)
			if c.Consensus() == nil {
				t.Error("ready without a consensus")
			}
		})
	}
}

// TestStartFromMirrors starts a client that knows the consensus of an earlier run in a network whose
// authorities do not answer: it is ready, and gets the next consensus from the relays.
func TestStartFromMirrors(t *testing.T) {
	n := startNetwork(t, localnet.Config{Params: shortRounds})
	first := startClient(t, n, proxy.Config{}).awaitReady(t)
	await(t, first, "all relays run", func(d *netdoc.Consensus) bool { return len(d.Relays) == localnet.DefaultRelays })
	nobody := listen(t).Addr().(*net.TCPAddr).AddrPort() // a TCP port: nothing answers there over UDP
	deaf := *n.File()
	deaf.Authorities = slices.Clone(deaf.Authorities)
	for i := range deaf.Authorities {
		deaf.Authorities[i].Addresses = []netip.AddrPort{nobody}
	}
	p, err := proxy.New(proxy.Config{Network: &deaf})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Offer(first.Snapshot()); err != nil {
		t.Fatal(err)
	}
	offered := p.Consensus()
	if offered == nil {
		t.Fatal("the offered consensus is not used")
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	second := &client{Proxy: p}
	second.awaitReady(t)
	await(t, second, "a newer consensus", func(d *netdoc.Consensus) bool { return d.ValidAfter > offered.ValidAfter })
}
