//go:build clients

package socks

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"torproxy/wire"
)

// curl runs the real program; it must be installed. It returns what curl wrote to both outputs and its exit code.
func curl(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "curl", append([]string{"-q", "-sS", "--max-time", "20"}, args...)...)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("%v (.ci/test installs curl)", err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func TestCurl(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %d", r.Host, n)
	}))
	defer web.Close()
	requests := make(chan Request, 1)
	cfg := Config{Dial: dialTo(web.Listener.Addr().String(), func(r Request) { requests <- r })}
	addr := serveTCP(t, cfg)
	socket := filepath.Join(t.TempDir(), "socks")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, cfg, l)
	tests := []struct {
		name   string
		args   []string
		target string
		user   string
		pass   string
	}{
		{"--socks5-hostname", []string{"--socks5-hostname", addr, "http://web.test/"}, "web.test:80", "", ""},
		{"socks5h", []string{"-x", "socks5h://" + addr, "http://web.test:8080/"}, "web.test:8080", "", ""},
		{"credentials in the URL", []string{"-x", "socks5h://u:p@" + addr, "http://web.test/"}, "web.test:80", "u", "p"},
		{"--proxy-user", []string{"--socks5-hostname", addr, "--proxy-user", "u2:p2", "http://web.test/"}, "web.test:80", "u2", "p2"},
		{"--socks5-basic", []string{"--socks5-basic", "-x", "socks5h://u3:p3@" + addr, "http://web.test/"}, "web.test:80", "u3", "p3"},
		{"IPv4", []string{"--socks5", addr, "http://192.0.2.1/"}, "192.0.2.1:80", "", ""},
		{"IPv6", []string{"--socks5-hostname", addr, "http://[2001:db8::1]:81/"}, "[2001:db8::1]:81", "", ""},
		{"upload", []string{"--socks5-hostname", addr, "--data-binary", "@/bin/sh", "http://web.test/"}, "web.test:80", "", ""},
		{"unix socket", []string{"-x", "socks5h://localhost" + socket, "http://web.test/"}, "web.test:80", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, code := curl(t, tt.args...)
			if code != 0 || !strings.Contains(strings.ToLower(out), strings.TrimSuffix(tt.target, ":80")+" ") {
				t.Fatalf("curl ended with %d: %s", code, out)
			}
			if r := <-requests; r.Target != tt.target || r.User != tt.user || r.Password != tt.pass {
				t.Errorf("request for %s by %q with %q", r.Target, r.User, r.Password)
			}
		})
	}
}

// curl prints the reply code in brackets.
func TestCurlErrors(t *testing.T) {
	for reason, code := range map[wire.Reason]int{
		wire.ReasonRefused: 5, wire.ReasonDNS: 4, wire.ReasonHostUnreachable: 4, wire.ReasonTimeout: 4,
		wire.ReasonNetUnreachable: 3, wire.ReasonPolicy: 2, wire.ReasonInternal: 1,
	} {
		addr := serveTCP(t, Config{Dial: func(context.Context, Request) (net.Conn, error) {
			return nil, fmt.Errorf("hop 5: %w", &wire.EndError{Reason: reason, Remote: true})
		}})
		out, exit := curl(t, "--socks5-hostname", addr, "http://web.test/")
		if want := fmt.Sprintf("(%d)", code); exit != 97 || !strings.Contains(out, want) {
			t.Errorf("%v: curl ended with %d: %s; want %s", reason, exit, out, want)
		}
	}
}

func TestCurlWithOtherProtocols(t *testing.T) {
	addr := serveTCP(t, Config{Dial: dialEcho})
	for _, tt := range []struct{ proxy, want string }{
		{"socks4a://", "rejected or failed"},
		{"socks4://", "rejected or failed"},
		{"http://", "SOCKS5 port"},
	} {
		out, _ := curl(t, "-x", tt.proxy+addr, "http://127.0.0.1:1/")
		if !strings.Contains(out, tt.want) {
			t.Errorf("%s: %s", tt.proxy, out)
		}
	}
	if out, code := curl(t, "-x", "http://"+addr, "https://web.test/"); code != 56 || !strings.Contains(out, "501") {
		t.Errorf("CONNECT: %d, %s", code, out)
	}
}

// A killed curl ends what it waited for.
func TestCurlKilled(t *testing.T) {
	d := newDialing()
	cmd := exec.CommandContext(t.Context(), "curl", "-q", "-sS", "--socks5-hostname", serveTCP(t, Config{Dial: d.dial}), "http://slow.test/")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-d.started
	cmd.Process.Kill()
	cmd.Wait()
	if err := <-d.ended; err != errHungUp {
		t.Errorf("Dial was ended by %v", err)
	}
}
