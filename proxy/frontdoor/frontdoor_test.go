package frontdoor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"torproxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is what the tests dial through: names lead to loopback listeners, others do not resolve.
type network struct {
	mu    sync.Mutex
	hosts map[string]string // target to real address
	dials []string          // "target isolation"
}

func (n *network) add(target, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts == nil {
		n.hosts = map[string]string{}
	}
	n.hosts[target] = addr
}

func (n *network) dial(ctx context.Context, r Request) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, r.Target+" "+r.Isolation)
	addr, ok := n.hosts[r.Target]
	n.mu.Unlock()
	if !ok {
		return nil, &wire.EndError{Reason: wire.ReasonDNS, Remote: true}
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func (n *network) dialled() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.dials)
}

// client is a Backend that answers what the test has set and counts what is asked of it.
type client struct {
	mu         sync.Mutex
	status     Status
	circuits   []Circuit
	relays     []Relay
	traffic    Traffic
	why        []Why
	identities int
	closed     []string
	asked      []string // of why and the relays
	fails      error    // what steering relays comes to
	changed    chan struct{}
}

// change lets a test set answers while the front door runs.
func (c *client) change(set func(c *client)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set(c)
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *client) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *client) Traffic() Traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.traffic
}

func (c *client) Why(host string) []Why {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, "why "+host)
	return c.why
}

func (c *client) AddRelay() (wire.ID, error) { return wire.ID{0xee}, c.steer("add") }

func (c *client) StopRelay(id wire.ID) error { return c.steer("stop " + id.Short()) }

func (c *client) StartRelay(id wire.ID) error { return c.steer("start " + id.Short()) }

func (c *client) steer(what string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, what)
	return c.fails
}

// wasAsked is what Why and the relays were asked for, in order.
func (c *client) wasAsked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

func (c *client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *client) Circuits() []Circuit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.circuits
}

func (c *client) Relays() []Relay {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.relays
}

func (c *client) CloseCircuit(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = append(c.closed, id)
	return len(c.circuits) > 0 && c.circuits[0].ID == id
}

func (c *client) NewIdentity() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.identities++
}

func (c *client) newIdentities() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identities
}

// closedCircuits is what CloseCircuit was asked for, in order.
func (c *client) closedCircuits() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.closed)
}

func readyClient() *client {
	return &client{status: Status{Hops: 3, Bootstrap: Bootstrap{Percent: 100, Summary: "ready"}}, changed: make(chan struct{})}
}

// fixture is a front door on a loopback port, with a network behind it.
type fixture struct {
	t       *testing.T
	addr    string
	front   *Server
	network *network
	client  *client
	stop    func() // waits for Serve; cleaning up an origin calls it first, because idle connections lead there
}

// start serves a front door until the test ends, and then sees that Serve returns nil.
func start(t *testing.T, change ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, network: &network{}, client: readyClient()}
	cfg := Config{Dial: f.network.dial, Backend: f.client}
	for _, c := range change {
		c(&cfg)
	}
	l := listen(t)
	f.addr = l.Addr().String()
	f.client.status.HTTP, f.client.status.SOCKS = f.addr, "127.0.0.1:9050"
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	f.front = New(cfg)
	go func() { served <- f.front.Serve(ctx, l) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// connect opens a raw connection to the front door.
func (f *fixture) connect() *rawConn {
	f.t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return &rawConn{t: f.t, Conn: c, in: bufio.NewReader(c)}
}

// send writes a request on a connection of its own; \n stands for CRLF, SELF for the front door's address.
func (f *fixture) send(request string) *rawConn {
	f.t.Helper()
	c := f.connect()
	c.send(strings.ReplaceAll(request, "SELF", f.addr))
	return c
}

// do sends a request and returns the answer and its body.
func (f *fixture) do(request string) (*http.Response, string) {
	f.t.Helper()
	c := f.send(request)
	defer c.Close()
	return c.answer(strings.Fields(request)[0])
}

// rawConn is a client's connection written and read by hand.
type rawConn struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func (c *rawConn) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		c.t.Fatal(err)
	}
}

// head reads the head of an answer.
func (c *rawConn) head(method string) *http.Response {
	c.t.Helper()
	r, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	return r
}

// answer reads a whole answer.
func (c *rawConn) answer(method string) (*http.Response, string) {
	c.t.Helper()
	r := c.head(method)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatalf("answer cut off: %v", err)
	}
	return r, string(body)
}

// rest reads to the end of the connection.
func (c *rawConn) rest() string {
	b, _ := io.ReadAll(c.in)
	return string(b)
}

// origin is a destination that talks raw TCP. It serves connections until the test ends.
func (f *fixture) origin(target string, serve func(c net.Conn)) {
	l := listen(f.t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	f.t.Cleanup(func() {
		f.stop()
		l.Close()
		wg.Wait()
	})
	f.network.add(target, l.Addr().String())
}

// recorder is an origin that keeps the head of every request, answers with a fixed text, and keeps the
// connection open.
func (f *fixture) recorder(target, answer string) <-chan string {
	heads := make(chan string, 16)
	f.origin(target, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			head, err := readHead(in)
			if err != nil {
				return
			}
			heads <- head
			io.WriteString(c, strings.ReplaceAll(answer, "\n", "\r\n"))
		}
	})
	return heads
}

const emptyOK = "HTTP/1.1 200 OK\nContent-Length: 0\n\n"

// readHead reads up to and with the empty line.
func readHead(in *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", err
		}
		head.WriteString(line)
		if line == "\r\n" {
			return head.String(), nil
		}
	}
}

func wantStatus(t *testing.T, r *http.Response, status int) {
	t.Helper()
	if r.StatusCode != status {
		t.Errorf("status %s, want %d", r.Status, status)
	}
}

func TestServeWantsAnAddress(t *testing.T) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Dial: (&network{}).dial, Backend: readyClient()})
	if err := s.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "IP:PORT") {
		t.Errorf("Serve on a unix socket: %v", err)
	}
}

func TestServeReturnsTheListenersFailure(t *testing.T) {
	l := listen(t)
	l.Close()
	s := New(Config{Dial: (&network{}).dial, Backend: readyClient()})
	if err := s.Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve on a closed listener: %v", err)
	}
}

func TestNewWithoutDialPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(Config{Backend: readyClient()})
}

func TestManyAtOnce(t *testing.T) {
	f := start(t)
	f.origin("echo.test:7", func(c net.Conn) { io.Copy(c, c) })
	var wg sync.WaitGroup
	for i := range 100 {
		c := f.send("CONNECT echo.test:7 HTTP/1.1\n\n")
		wg.Go(func() {
			word := fmt.Sprintf("number %d", i)
			c.head("CONNECT")
			io.WriteString(c.Conn, word)
			c.Conn.(*net.TCPConn).CloseWrite()
			if got := c.rest(); got != word {
				t.Errorf("connection %d got %q", i, got)
			}
		})
	}
	wg.Wait()
}
