//go:build clients

package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// This file runs the command as a person does: the built program in a process of its own, and curl.

// program is a running torproxy.
type program struct {
	socks, http string
}

// build compiles the command once per test run.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "torproxy")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// startProgram starts the command and waits for its "ready"; it is interrupted at the end of the test and
// must then end with exit code 0.
func startProgram(t *testing.T, path string, args ...string) program {
	t.Helper()
	cmd := exec.Command(path, append([]string{"--json", "--socks", "127.0.0.1:0", "--http", "127.0.0.1:0"}, args...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGINT)
		if err := cmd.Wait(); err != nil {
			t.Errorf("torproxy ended with %v\n%s", err, stderr.String())
		}
	})
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		var event struct{ Event, Socks, HTTP string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatalf("%v in %q", err, lines.Text())
		}
		if event.Event == "ready" {
			go io.Copy(io.Discard, stdout)
			return program{event.Socks, event.HTTP}
		}
	}
	t.Fatal("torproxy ended before it was ready")
	return program{}
}

// curl runs curl without any configuration of the machine's and returns what it printed.
func curl(t *testing.T, args ...string) (stdout string, code int) {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("curl is not installed: .ci/test installs it")
	}
	cmd := exec.Command(path, append([]string{"-q", "-sS", "--max-time", "120"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestCurlEveryLength fetches a page with curl through 1 to 8 hops, through both ports.
func TestCurlEveryLength(t *testing.T) {
	path := build(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "page %s for %s", r.RequestURI, r.UserAgent())
	}))
	defer site.Close()
	for hops := 1; hops <= 8; hops++ {
		t.Run(fmt.Sprint(hops), func(t *testing.T) {
			p := startProgram(t, path, "--hops", fmt.Sprint(hops))
			want := "page /a;b//c?x=1;y=2&z=%zz for curl-test"
			for _, via := range [][]string{{"--socks5-hostname", p.socks}, {"-x", "socks5h://user:pw@" + p.socks}, {"-x", "http://" + p.http}} {
				args := append(via, "-A", "curl-test", "--path-as-is", site.URL+"/a;b//c?x=1;y=2&z=%zz")
				if got, code := curl(t, args...); got != want || code != 0 {
					t.Errorf("%v: %q, exit code %d; want %q", via, got, code, want)
				}
			}
		})
	}
}

// TestCurl checks with curl what the other tests check with Go's clients.
func TestCurl(t *testing.T) {
	p := startProgram(t, build(t), "--hops", "5")
	size := int64(100 << 20)
	body := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{9}), size) }
	hash := sha256.New()
	io.Copy(hash, body())
	want := hex.EncodeToString(hash.Sum(nil))
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			got := sha256.New()
			io.Copy(got, r.Body)
			fmt.Fprintf(w, "%x", got.Sum(nil))
			return
		}
		io.Copy(w, body())
	})
	site, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer site.Close()
	defer secure.Close()
	file := filepath.Join(t.TempDir(), "body")
	ports := map[string][]string{"SOCKS": {"--socks5-hostname", p.socks}, "front door": {"-x", "http://" + p.http}}
	for name, via := range ports {
		for _, url := range []string{site.URL, secure.URL} {
			t.Run(name+" "+url[:5], func(t *testing.T) {
				if out, code := curl(t, append(via, "-k", "-o", file, url)...); code != 0 {
					t.Fatalf("download: %s", out)
				}
				f, err := os.Open(file)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				got := sha256.New()
				io.Copy(got, f)
				if hex.EncodeToString(got.Sum(nil)) != want {
					t.Error("the download differs")
				}
				if out, code := curl(t, append(via, "-k", "-H", "Expect:", "--data-binary", "@"+file, url)...); out != want || code != 0 {
					t.Errorf("upload: %q, exit code %d", out, code)
				}
			})
		}
	}
}

// TestCurlFailures checks what curl prints when a destination can't be had.
func TestCurlFailures(t *testing.T) {
	p := startProgram(t, build(t))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := l.Addr().String()
	l.Close()
	for _, test := range []struct {
		name, url string
		socks     string // in curl's message
		status    string // of the front door
		says      string // in the front door's text
	}{
		{"refused", "http://" + refused + "/", "(5)", "502", "refused"},
		{"no such name", "http://does-not-exist.invalid/", "(4)", "502", "does-not-exist.invalid"},
		{"ourselves", "http://" + p.http + "/api/status", "(2)", "403", "torproxy itself"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if out, code := curl(t, "--socks5-hostname", p.socks, test.url); code != 97 || !strings.Contains(out, test.socks) {
				t.Errorf("SOCKS: %q, exit code %d; want %s and 97", out, code, test.socks)
			}
			out, code := curl(t, "-x", "http://"+p.http, "-w", "%{http_code}", test.url)
			if code != 0 || !strings.HasSuffix(out, test.status) || !strings.Contains(out, test.says) {
				t.Errorf("front door: %q, exit code %d; want %s and %q", out, code, test.status, test.says)
			}
		})
	}
	// Without remote names curl looks the name up by itself, and nothing reaches the proxy.
	if out, code := curl(t, "--socks5", p.socks, "http://does-not-exist.invalid/"); code != 97 || !strings.Contains(out, "resolve") {
		t.Errorf("local names: %q, exit code %d", out, code)
	}
}
