//go:build clients

package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"torproxy/cmd/torproxy/internal/echo"
)

// visits is torproxy echo as a destination that tells who asked for what.
type visits struct {
	*httptest.Server
	echo http.Handler
	came chan string // path and user agent
}

func newVisits(t *testing.T) *visits {
	t.Helper()
	credential, err := echo.ParseCredential("ann:correct horse")
	if err != nil {
		t.Fatal(err)
	}
	v := &visits{echo: echo.New(echo.Config{Credential: credential}), came: make(chan string, 100)}
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

func (v *visits) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case v.came <- r.URL.Path + " " + r.UserAgent():
	default:
	}
	v.echo.ServeHTTP(w, r)
}

// await waits for a visit to a path by a program.
func (v *visits) await(t *testing.T, path, program string) {
	t.Helper()
	var came []string
	timeout := time.After(time.Minute)
	for {
		select {
		case visit := <-v.came:
			if strings.HasPrefix(visit, path+" ") && strings.Contains(visit, program) {
				return
			}
			came = append(came, visit)
		case <-timeout:
			t.Fatalf("%s was not asked for by %s; what came is %q", path, program, came)
		}
	}
}

// headless makes a command of a browser's name that needs no display and may be run by root.
func headless(t *testing.T, name string, args ...string) string {
	t.Helper()
	real, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: .ci/test installs it", name)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexec "+real+" "+strings.Join(args, " ")+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOpenInBrowsers opens pages through five relays in the real browsers, by torproxy open and by
// torproxy get --open, and stops them: the page came through the proxy, and no profile is left.
func TestOpenInBrowsers(t *testing.T) {
	torproxy := build(t)
	p := startProgram(t, torproxy, "--hops", "5")
	v := newVisits(t)
	for _, c := range []struct {
		browser, agent string
		args           []string
		path           string
	}{
		{headless(t, "chromium", "--headless", "--no-sandbox"), "Chrome/", []string{"open", v.URL + "/chromium"}, "/chromium"},
		{headless(t, "chromium", "--headless", "--no-sandbox"), "Chrome/", []string{"get", "--open", v.URL + "/open"}, "/opened"},
		{headless(t, "firefox-esr", "--headless"), "Firefox/", []string{"open", v.URL + "/firefox"}, "/firefox"},
	} {
		temp, err := os.MkdirTemp("/tmp", "") // t.TempDir's names are too long for Chromium's socket
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(temp)
		cmd := exec.Command(torproxy, append(c.args, "--http", p.http, "--browser", c.browser)...)
		cmd.Env = append(os.Environ(), "TMPDIR="+temp)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		v.await(t, c.path, c.agent)
		// Only now that it is asked for, and not yet that it is there, which the browser must live to see.
		awaitWhy(t, torproxy, p.http, v.URL, "hop 5, ")
		cmd.Process.Signal(syscall.SIGINT)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", c.args, err, &stderr)
		}
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("%s left %v behind, %v", c.args, left, err)
		}
	}
}

// awaitWhy asks torproxy why about a host until the answer says want.
func awaitWhy(t *testing.T, torproxy, door, host, want string) {
	t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	timeout := time.After(time.Minute)
	for {
		out, err := exec.Command(torproxy, "why", "--http", door, host).CombinedOutput()
		if err != nil {
			t.Fatalf("why %s: %v\n%s", host, err, out)
		}
		if strings.Contains(string(out), want) {
			return
		}
		select {
		case <-again.C:
		case <-timeout:
			t.Fatalf("why %s does not say %q:\n%s", host, want, out)
		}
	}
}

// curl proves a password through the proxy, and so do get and Chromium.
func TestSecretThroughTheProxy(t *testing.T) {
	torproxy := build(t)
	p := startProgram(t, torproxy)
	v := newVisits(t)
	for _, via := range [][]string{{"-x", "http://" + p.http}, {"--socks5-hostname", p.socks}} {
		for password, want := range map[string]string{"correct horse": "You know the password", "wrong": "wrong user name or password"} {
			if out, code := curl(t, append(via, "--digest", "-u", "ann:"+password, v.URL+"/secret")...); code != 0 || !strings.Contains(out, want) {
				t.Errorf("%v: %q, exit code %d", via, out, code)
			}
		}
	}
	cmd := exec.Command(torproxy, "get", "--http", p.http, "--user", "ann", "--password-file", "-", v.URL+"/secret")
	cmd.Stdin = strings.NewReader("correct horse\n")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "You know the password") {
		t.Errorf("get: %v\n%s", err, out)
	}
	named := strings.Replace(v.URL, "://", "://ann:correct%20horse@", 1) + "/secret"
	dom, err := exec.CommandContext(t.Context(), "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--user-data-dir="+t.TempDir(),
		"--proxy-server=http://"+p.http, "--proxy-bypass-list=<-loopback>", "--dump-dom", named).Output()
	if err != nil || !strings.Contains(string(dom), "You know the password") {
		t.Errorf("chromium: %v (.ci/test installs it)\n%s", err, dom)
	}
	awaitWhy(t, torproxy, p.http, v.URL, "first byte") // it came through the proxy
}

// TLS goes from get to the site itself, which must prove its name; there, and only there, Basic is answered.
func TestGetTLS(t *testing.T) {
	torproxy := build(t)
	p := startProgram(t, torproxy)
	site := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Torproxy-Open") != "" {
			t.Errorf("the site is sent %v", r.Header)
		}
		if r.URL.Path == "/proxy" { // it speaks as if it were the proxy
			w.Header().Set("Proxy-Status", "torproxy; error=dns_error")
			http.Error(w, "torproxy: no such name.\nWhat to do: run this.", http.StatusBadGateway)
			return
		}
		user, password, ok := r.BasicAuth()
		if !ok || user != "ann" || password != "correct horse" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "through TLS, ", r.Proto)
	}))
	defer site.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: site.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	get := func(path string, env ...string) (string, error) {
		cmd := exec.Command(torproxy, "get", "--http", p.http, "--user", "ann", "--password-file", "-", site.URL+path)
		cmd.Env = append(os.Environ(), env...)
		cmd.Stdin = strings.NewReader("correct horse\n")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := get("/", "SSL_CERT_FILE="+authority); err != nil || !strings.HasPrefix(out, "through TLS, HTTP/") || !strings.Contains(out, "through circuit ") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := get("/proxy", "SSL_CERT_FILE="+authority); err == nil || !strings.Contains(out, "answered 502") || strings.Contains(out, "error: no such name") || strings.Contains(out, "Proxy-Status:") {
		t.Errorf("a site that speaks as the proxy: %v\n%s", err, out)
	}
	if out, err := get("/"); err == nil || !strings.Contains(out, "does not prove that it is 127.0.0.1") || strings.Contains(out, "through TLS") {
		t.Errorf("a certificate that nobody vouches for: %v\n%s", err, out)
	}
}
