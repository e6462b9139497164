package socks

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The bytes of a usual client.
const (
	greetNone  = "\x05\x01\x00"
	greetLogin = "\x05\x01\x02"
	login      = "\x01\x04user\x06secret"
	choseNone  = "\x05\x00"
	choseLogin = "\x05\x02\x01\x00"
	connected  = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
)

// connect is a CONNECT to a name.
func connect(name string, port int) string {
	b := append([]byte{5, 1, 0, 3, byte(len(name))}, name...)
	return string(binary.BigEndian.AppendUint16(b, uint16(port)))
}

// resolve is a RESOLVE of a name.
func resolve(name string) string { return "\x05\xf0" + connect(name, 0)[2:] }

// failed is a reply with a code other than 0.
func failed(code byte) string {
	return string([]byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0})
}

// recorder is a log handler that keeps the text of what is logged at its level and above.
type recorder struct {
	mu   sync.Mutex
	text strings.Builder
	slog.Handler
}

func newRecorder(level slog.Level) *recorder {
	r := new(recorder)
	r.Handler = slog.NewTextHandler(r, &slog.HandlerOptions{Level: level})
	return r
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// dialEcho is a Config.Dial whose streams give back what they get and end when it ends.
func dialEcho(context.Context, Request) (net.Conn, error) {
	near, far := memoryPipe()
	go func() {
		defer far.Close()
		io.Copy(far, far)
	}()
	return near, nil
}

// converse serves one connection on which the client sends in and ends, and returns all that it got.
func converse(t testing.TB, cfg Config, in string) string {
	t.Helper()
	return converseWith(t, New(cfg), in)
}

func converseWith(t testing.TB, s *Server, in string) string {
	t.Helper()
	near, far := memoryPipe()
	defer near.Close()
	if _, err := io.WriteString(near, in); err != nil {
		t.Fatal(err)
	}
	near.CloseWrite()
	s.serveConn(t.Context(), far)
	out, err := io.ReadAll(near)
	if err != nil && len(out) > 0 {
		t.Fatalf("the connection did not end well: %v", err)
	}
	return string(out)
}

// serve runs a server on l until the test's end and checks that Serve then returns nil.
func serve(t testing.TB, cfg Config, l net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(cfg).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// serveTCP is serve on a free port of this machine.
func serveTCP(t testing.TB, cfg Config) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, cfg, l)
	return l.Addr().String()
}

// expect reads exactly want.
func expect(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(r, got)
	if string(got[:n]) != want {
		t.Fatalf("got %d bytes %.100q, want %d %.100q (%v)", n, got[:n], len(want), want, err)
	}
}

// send writes s.
func send(t testing.TB, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

func TestRequestHidesCredentials(t *testing.T) {
	r := Request{Target: "web.test:80", User: "alice", Password: "swordfish"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "request", r)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "request", &r)
	all := log.String() + fmt.Sprintf("%v %+v %#v %s %q %x %v", r, r, r, r, r, r, &r) + fmt.Sprint(r)
	for _, secret := range []string{"alice", "swordfish", fmt.Sprintf("%x", "swordfish")} {
		if strings.Contains(all, secret) {
			t.Errorf("%q is in %s", secret, all)
		}
	}
	if !strings.Contains(all, "(redacted)") {
		t.Errorf("no sign of the credentials in %s", all)
	}
}
