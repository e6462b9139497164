package localnet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
	"torproxy/relay"
	"torproxy/wire"
)

// knowledge is all that one relay got to see.
type knowledge struct {
	mu      sync.Mutex
	creates []create
	cells   bytes.Buffer // what arrived, both ways, before its own layer
	clear   bytes.Buffer // cells in clear, at the last hop
	begins  []string
}

type create struct {
	peer wire.ID
	from netip.AddrPort
	next wire.ID
}

func (k *knowledge) trace() *relay.Trace {
	locked := func(f func()) {
		k.mu.Lock()
		defer k.mu.Unlock()
		f()
	}
	return &relay.Trace{
		Create: func(peer wire.ID, from netip.AddrPort, next wire.ID) {
			locked(func() { k.creates = append(k.creates, create{peer, from, next}) })
		},
		Cells:   func(_ bool, cells []byte) { locked(func() { k.cells.Write(cells) }) },
		Payload: func(_ bool, cell []byte) { locked(func() { k.clear.Write(cell) }) },
		Begin:   func(target string) { locked(func() { k.begins = append(k.begins, target) }) },
	}
}

// TestWhatRelaysSee sends one request through five hops and reads at every relay of the network what it
// could know: only the exit sees destination and payload, only the first hop sees the client, and every
// hop knows its two neighbours and no other relay.
func TestWhatRelaysSee(t *testing.T) {
	const hops = 5
	known := map[wire.ID]*knowledge{}
	n := startNetwork(t, localnet.Config{Relay: func(_ int, cfg *relay.Config) {
		k := &knowledge{}
		known[wire.PublicID(cfg.Identity)] = k
		cfg.Trace = k.trace()
	}})
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	here := socket.LocalAddr().(*net.UDPAddr).AddrPort()
	c := startClient(t, n, proxy.Config{Hops: hops, Spares: 1, Conn: socket}).awaitReady(t)

	const question, answer = "the-question-in-the-request", "the-answer-in-the-page"
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat(answer, 1000))
	}))
	defer site.Close()
	target := site.Listener.Addr().String()
	conn, err := c.Dialer("").DialContext(t.Context(), "tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	path := routeOf(t, c, target)
	fmt.Fprintf(conn, "GET /%s HTTP/1.0\r\n\r\n", question)
	page, err := io.ReadAll(conn)
	if err != nil || !bytes.Contains(page, []byte(answer)) {
		t.Fatalf("no page: %v", err)
	}
	conn.Close()

	for id, k := range known {
		k.mu.Lock()
		checkHop(t, k, id, path, here, []string{question, answer, target})
		k.mu.Unlock()
	}
}

// routeOf returns the relays of the circuit that carries a stream to target.
func routeOf(t testing.TB, c *client, target string) []wire.ID {
	t.Helper()
	for _, circuit := range c.Circuits() {
		for _, s := range circuit.Streams {
			if s.Target == target {
				var path []wire.ID
				for _, r := range circuit.Route {
					path = append(path, r.ID)
				}
				return path
			}
		}
	}
	t.Fatalf("no circuit carries %s", target)
	return nil
}

func checkHop(t *testing.T, k *knowledge, id wire.ID, path []wire.ID, client netip.AddrPort, secrets []string) {
	place := -1
	for i := range path {
		if path[i] == id {
			place = i
		}
	}
	last := place == len(path)-1
	for _, secret := range secrets {
		if bytes.Contains(k.cells.Bytes(), []byte(secret)) {
			t.Errorf("hop %d saw %q in the cells that passed it", place+1, secret)
		}
		if got := bytes.Contains(k.clear.Bytes(), []byte(secret)); got != last {
			t.Errorf("hop %d saw %q in clear: %v, want %v", place+1, secret, got, last)
		}
	}
	if last != (len(k.begins) == 1) {
		t.Errorf("hop %d saw %d destinations", place+1, len(k.begins))
	}
	if place < 0 {
		return
	}
	var prev, next wire.ID
	if place > 0 {
		prev = path[place-1]
	}
	if !last {
		next = path[place+1]
	}
	found := false
	for _, c := range k.creates {
		if c.peer == prev && c.next == next && (place == 0) == (c.from == client) {
			found = true
		}
	}
	if !found {
		t.Errorf("hop %d did not see the circuit between its neighbours: %+v", place+1, k.creates)
	}
}

// TestFlippedBit lets one relay flip one bit of one cell, at every place of the path and in both
// directions: the application gets an error and nothing wrong before it, the circuit is gone, and the next
// request works.
func TestFlippedBit(t *testing.T) {
	const hops = 4
	var liar atomic.Pointer[wire.ID]
	var outwards atomic.Bool
	n := startNetwork(t, localnet.Config{Relay: func(_ int, cfg *relay.Config) {
		id := wire.PublicID(cfg.Identity)
		cfg.Trace = &relay.Trace{Cells: func(outward bool, cells []byte) {
			if l := liar.Load(); l != nil && *l == id && outward == outwards.Load() && liar.CompareAndSwap(l, nil) {
				cells[len(cells)-wire.CellSize+1000] ^= 0x10
			}
		}}
	}})
	c := startClient(t, n, proxy.Config{Hops: hops}).awaitReady(t)
	var wrong atomic.Bool
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && !bytes.Equal(body, bytes.Repeat([]byte{'u'}, len(body))) {
			wrong.Store(true)
		}
		io.Copy(w, noise(300_000, 3))
	})
	want, _ := io.ReadAll(noise(300_000, 3))
	for place := range hops {
		for _, outward := range []bool{true, false} {
			if place == hops-1 && !outward {
				continue // what the exit sends is its own
			}
			t.Run(fmt.Sprintf("hop %d outward %v", place+1, outward), func(t *testing.T) {
				site := httptest.NewServer(page)
				defer site.Close()
				checkFlip(t, c, site, &liar, func(path []wire.ID) {
					outwards.Store(outward)
					liar.Store(&path[place])
				}, want)
			})
		}
	}
	if wrong.Load() {
		t.Error("the destination received changed bytes")
	}
}

func checkFlip(t *testing.T, c *client, site *httptest.Server, liar *atomic.Pointer[wire.ID], arm func(path []wire.ID), want []byte) {
	target := site.Listener.Addr().String()
	conn, err := c.Dialer("").DialContext(t.Context(), "tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	before := circuitOf(c, target)
	arm(routeOf(t, c, target))
	fmt.Fprintf(conn, "POST / HTTP/1.0\r\nContent-Length: 50000\r\n\r\n%s", strings.Repeat("u", 50000))
	got, err := io.ReadAll(conn)
	conn.Close()
	if err == nil {
		t.Error("the application was not told")
	}
	if _, body, ok := bytes.Cut(got, []byte("\r\n\r\n")); ok && !bytes.HasPrefix(want, body) {
		t.Error("the application got changed bytes")
	}
	if liar.Load() != nil {
		t.Error("the bit was not flipped")
	}
	next, err := c.Dialer("").DialContext(t.Context(), "tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if circuitOf(c, target) == before {
		t.Error("the circuit is still used")
	}
	fmt.Fprint(next, "GET / HTTP/1.0\r\n\r\n")
	if got, err := io.ReadAll(next); err != nil || !bytes.HasSuffix(got, want) {
		t.Errorf("the next request got another page: %v", err)
	}
}

// circuitOf returns the ID of the circuit that carries a stream to target.
func circuitOf(c *client, target string) string {
	for _, circuit := range c.Circuits() {
		for _, s := range circuit.Streams {
			if s.Target == target {
				return circuit.ID
			}
		}
	}
	return ""
}

// TestNewIdentity checks that streams of different isolation, and of before and after a new identity,
// never share a circuit.
func TestNewIdentity(t *testing.T) {
	c := startClient(t, startNetwork(t, localnet.Config{}), proxy.Config{}).awaitReady(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer site.Close()
	target := site.Listener.Addr().String()
	seen := map[string]string{}
	open := func(label, isolation string) string {
		conn, err := c.Dialer(isolation).DialContext(t.Context(), "tcp", target)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		id := circuitOf(c, target)
		for other, used := range seen {
			if used == id {
				t.Errorf("%s shares a circuit with %s", label, other)
			}
		}
		return id
	}
	seen["alice"] = open("alice", "alice")
	seen["bob"] = open("bob", "bob")
	if again := circuitAgain(t, c, "alice", target); again != seen["alice"] {
		t.Error("the same isolation did not use its circuit again")
	}
	c.NewIdentity()
	seen["alice after"] = open("alice after", "alice")
	seen["bob after"] = open("bob after", "bob")
}

func circuitAgain(t *testing.T, c *client, isolation, target string) string {
	t.Helper()
	conn, err := c.Dialer(isolation).DialContext(t.Context(), "tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return circuitOf(c, target)
}

// TestDialCancelled checks that a Dial ends with its context.
func TestDialCancelled(t *testing.T) {
	n := startNetwork(t, localnet.Config{Relay: func(_ int, cfg *relay.Config) { cfg.Dial = hopeless }})
	c := startClient(t, n, proxy.Config{}).awaitReady(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Dialer("").DialContext(ctx, "tcp", "127.0.0.1:9"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
