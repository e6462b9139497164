package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenAddress(t *testing.T) {
	for _, c := range []struct {
		text, want string // want "" is an error
	}{
		{"127.0.0.1:9050", "127.0.0.1:9050"},
		{"localhost:9050", "127.0.0.1:9050"},
		{"127.0.0.1:0", "127.0.0.1:0"},
		{"[::1]:9050", "[::1]:9050"},
		{"[::ffff:127.0.0.1]:9050", "127.0.0.1:9050"},
		{"[fe80::1%eth0]:9050", "[fe80::1%eth0]:9050"},
		{":9050", ":9050"},
		{"unix:/run/torproxy", "unix:/run/torproxy"},
		{"unix:socket", "unix:socket"},
		{"unix:", ""},
		{"", ""},
		{"9050", ""},
		{"127.0.0.1", ""},
		{"127.0.0.1:", ""},
		{"127.0.0.1:socks", ""},
		{"127.0.0.1:65536", ""},
		{"127.0.0.1:-1", ""},
		{"::1:9050", ""},
		{"127.1:9050", ""},
		{"example.com:9050", ""},
		{"http://127.0.0.1:9050", ""},
	} {
		var a listenAddress
		err := a.Set(c.text)
		if got := a.String(); err == nil && got != c.want || (err == nil) == (c.want == "") {
			t.Errorf("%q: got %q, %v, want %q", c.text, got, err, c.want)
		}
	}
}

// TestListenFamily: who asks for every IPv4 address does not get the IPv6 ones.
func TestListenFamily(t *testing.T) {
	for text, exposed := range map[string]bool{"127.0.0.1:0": false, "127.0.0.2:0": false, "0.0.0.0:0": true, ":0": true} {
		var a listenAddress
		if err := a.Set(text); err != nil {
			t.Fatal(err)
		}
		l, err := listen(context.Background(), "socks", a)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		host, _, _ := net.SplitHostPort(text)
		if !strings.HasPrefix(l.shown, host) || strings.HasSuffix(l.shown, ":0") || l.exposed() != exposed {
			t.Errorf("%s: bound %s, exposed %v", text, l.shown, l.exposed())
		}
	}
}

// socketPath is short enough for a socket, as t.TempDir is not everywhere.
func socketPath(t *testing.T) string {
	dir, err := os.MkdirTemp("", "tp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "socks")
}

func mustListenUnix(t *testing.T, path string) *listener {
	t.Helper()
	l, err := listen(context.Background(), "socks", listenAddress{network: "unix", address: path})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestUnixSocket(t *testing.T) {
	path := socketPath(t)
	l := mustListenUnix(t, path)
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 || l.shown != "unix:"+path || l.exposed() {
		t.Errorf("got %v (%v), shown as %s", info.Mode(), err, l.shown)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	_, err = listen(context.Background(), "socks", listenAddress{network: "unix", address: path})
	if f := failureOf(err); f.code != codeTaken || f.cause == "" {
		t.Errorf("a second listener gets %+v", f)
	}
	l.Close()
	if rest, err := os.ReadDir(filepath.Dir(path)); err != nil || len(rest) > 0 {
		t.Errorf("left behind: %v, %v", rest, err)
	}
}

// TestUnixSocketStale finds what a client that was killed left behind.
func TestUnixSocketStale(t *testing.T) {
	path := socketPath(t)
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	mustListenUnix(t, path).Close()
}

// TestUnixSocketReplaced: what is somebody else's by now is left alone.
func TestUnixSocketReplaced(t *testing.T) {
	path := socketPath(t)
	l := mustListenUnix(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other := mustListenUnix(t, path)
	l.Close()
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the other's socket is gone: %v", err)
	} else {
		conn.Close()
	}
	other.Close()
}

func TestUnixSocketRefused(t *testing.T) {
	file := socketPath(t)
	if err := os.WriteFile(file, []byte("dear diary"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                                     "not a socket",
		filepath.Join(file, "below"):             "not a directory",
		filepath.Join(t.TempDir(), "no", "dir"):  "does not exist",
		socketPath(t) + strings.Repeat("x", 150): "too long",
	} {
		l, err := listen(context.Background(), "socks", listenAddress{network: "unix", address: path})
		if err == nil {
			t.Errorf("listens on %s", l.shown)
			l.Close()
			continue
		}
		if f := failureOf(err); f.code != codeListen || f.exit() != exitFailed || !strings.Contains(f.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", path, err, want)
		}
	}
	if kept, err := os.ReadFile(file); err != nil || string(kept) != "dear diary" {
		t.Errorf("the file that was in the way is now %q, %v", kept, err)
	}
}

func TestExplainTaken(t *testing.T) {
	answer := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts by the kernel's queue, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	const other = "another program listens there"
	for _, c := range []struct {
		name, address, asked, want string
	}{
		{"tor", "127.0.0.1:9050", "", "port 9050 is habitually that of tor"},
		{"Tor Browser", "127.0.0.1:9150", "", "port 9150 is habitually that of Tor Browser"},
		{"privoxy", "127.0.0.1:8118", "", "port 8118 is habitually that of privoxy"},
		{"nobody known", "127.0.0.1:4711", "", other},
		{"a torproxy's SOCKS", "127.0.0.1:4711", answer(200, `{"pid":42,"socks":"127.0.0.1:4711","http":"127.0.0.1:1"}`), "another torproxy seems to run (process 42,"},
		{"a torproxy's HTTP", "0.0.0.0:4711", answer(200, `{"pid":42,"socks":"unix:/s","http":"127.0.0.1:4711"}`), "another torproxy seems to run (process 42,"},
		{"a torproxy elsewhere", "127.0.0.1:4711", answer(200, `{"pid":42,"socks":"127.0.0.1:1","http":"127.0.0.1:2"}`), other},
		{"a web page", "127.0.0.1:4711", answer(200, `<html>4711</html>`), other},
		{"an error", "127.0.0.1:4711", answer(404, `{"pid":42,"socks":"127.0.0.1:4711"}`), other},
		{"too long", "127.0.0.1:4711", answer(200, strings.Repeat(" ", maxAnswer)+`{"pid":42,"socks":"127.0.0.1:4711"}`), other},
		{"silence", "127.0.0.1:4711", silent.Addr().String(), other},
		{"nobody there", "127.0.0.1:4711", "127.0.0.1:1", other},
	} {
		t.Run(c.name, func(t *testing.T) {
			var a listenAddress
			if err := a.Set(c.address); err != nil {
				t.Fatal(err)
			}
			var asked []string
			if c.asked != "" {
				asked = append(asked, c.asked)
			}
			f := &failure{code: codeTaken}
			explainTaken(context.Background(), f, "socks", a, asked...)
			if !strings.HasPrefix(f.cause, c.want) || !strings.Contains(f.advice, "--socks") {
				t.Errorf("got %q, %q", f.cause, f.advice)
			}
		})
	}
}

// TestExplainTCP has the failures besides a port that is taken.
func TestExplainTCP(t *testing.T) {
	var a listenAddress
	if err := a.Set("192.0.2.1:9050"); err != nil { // documentation's: nobody's
		t.Fatal(err)
	}
	_, err := listen(context.Background(), "http", a)
	if f := failureOf(err); f.code != codeListen || f.cause != "this machine has no such address" || !strings.Contains(f.what, "(--http)") {
		t.Errorf("got %+v", f)
	}
	if err := a.Set("127.0.0.1:80"); err != nil {
		t.Fatal(err)
	}
	denied := &net.OpError{Op: "listen", Net: "tcp", Err: fs.ErrPermission}
	if f := explainTCP("socks", a, denied); f.cause != "ports below 1024 are the administrator's" || !errors.Is(f, fs.ErrPermission) {
		t.Errorf("got %+v", f)
	}
}
