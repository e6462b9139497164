package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test's own program, under a browser's name, is the browser of these tests: it tells the proxy it was
// given how it was started, and does what the answer says.
func TestMain(m *testing.M) {
	if _, ok := families[familyName(os.Args[0])]; ok {
		os.Exit(pretend(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// started is how a pretended browser was started.
type started struct {
	Args    []string
	Env     []string
	Dir     string
	Mode    string // of the directory that holds the profile
	Files   map[string]string
	Profile string
}

// pretend is the pretended browser. Its exit code is what the proxy's answer says; "stay" means never.
func pretend(args []string) int {
	s := started{Args: args, Env: os.Environ(), Files: map[string]string{}}
	s.Dir, _ = os.Getwd()
	proxy := ""
	for i, a := range args {
		if dir, ok := strings.CutPrefix(a, "--user-data-dir="); ok {
			s.Profile = dir
		}
		if a == "--profile" {
			s.Profile = args[i+1]
		}
		if p, ok := strings.CutPrefix(a, "--proxy-server="); ok {
			proxy = p
		}
	}
	for _, name := range []string{"user.js", "Default/Preferences", "Local State"} {
		if data, err := os.ReadFile(filepath.Join(s.Profile, name)); err == nil {
			s.Files[name] = string(data)
		}
	}
	if info, err := os.Stat(filepath.Dir(s.Profile)); err == nil {
		s.Mode = info.Mode().Perm().String()
	}
	if proxy == "" { // Firefox has no switch for it: the test writes it down beside the program
		data, _ := os.ReadFile(os.Args[0] + ".proxy")
		proxy = string(data)
	}
	body, _ := json.Marshal(s)
	answer, err := http.Post(proxy+"/started", "application/json", bytes.NewReader(body))
	if err != nil {
		return 99
	}
	defer answer.Body.Close()
	switch said, _ := io.ReadAll(answer.Body); string(said) {
	case "stay":
		select {}
	case "fail":
		os.Stderr.WriteString("some noise\nno \x1b[31mdisplay\n\n")
		return 7
	default:
		return 0
	}
}

// bench is a proxy that browsers are started with.
type bench struct {
	t     *testing.T
	proxy netip.AddrPort
	dir   string // of the pretended browsers
	temp  string // where profiles are made

	mu     sync.Mutex
	answer string
	starts []started
}

func newBench(t *testing.T, answer string) *bench {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	if runtime.GOOS == "windows" {
		t.Setenv("TEMP", t.TempDir())
	}
	b := &bench{t: t, dir: t.TempDir(), temp: t.TempDir(), answer: answer}
	t.Setenv("TMPDIR", b.temp)
	t.Setenv("BROWSER", "")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var s started
		json.NewDecoder(r.Body).Decode(&s)
		b.mu.Lock()
		b.starts = append(b.starts, s)
		answer := b.answer
		b.mu.Unlock()
		io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	u, _ := url.Parse(server.URL)
	b.proxy = netip.MustParseAddrPort(u.Host)
	return b
}

// program makes a pretended browser of a name.
func (b *bench) program(name string) string {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	path := filepath.Join(b.dir, name)
	if err := os.Symlink(self, path); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path+".proxy", []byte("http://"+b.proxy.String()), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// empty makes sure that no profile is left.
func (b *bench) empty() {
	b.t.Helper()
	left, err := os.ReadDir(b.temp)
	if err != nil || len(left) > 0 {
		b.t.Errorf("left behind: %v %v", left, err)
	}
}

func (b *bench) started() []started {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.starts)
}

const page = "http://xn--bcher-kva.example:8080/a?b#c"

// Each family is started with a profile of its own, the proxy as the only way out, an environment that says
// nothing of the user, and the link as the last argument.
func TestStart(t *testing.T) {
	for name, want := range map[string][]string{
		"chromium":      {"--proxy-bypass-list=<-loopback>", "--disable-quic", "--webrtc-ip-handling-policy=disable_non_proxied_udp"},
		"google-chrome": {"--proxy-bypass-list=<-loopback>"},
		"msedge":        {"--proxy-bypass-list=<-loopback>"},
		"firefox-esr":   {"--no-remote", "--profile"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "")
			for _, v := range []string{"http_proxy", "HTTPS_PROXY", "MOZ_LOG", "CHROMIUM_FLAGS", "SSLKEYLOGFILE", "LD_LIBRARY_PATH", "XDG_CONFIG_HOME", "SECRET"} {
				t.Setenv(v, "telltale")
			}
			t.Setenv("HOME", "/users-own-home")
			link, err := ParseLink("http://Bücher.example:8080/a?b#c")
			if err != nil {
				t.Fatal(err)
			}
			w, err := Start(t.Context(), Config{Proxy: b.proxy, Program: b.program(name)}, link)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Wait(); err != nil {
				t.Fatal(err)
			}
			b.empty()
			b.check(b.started()[0], want)
		})
	}
}

func (b *bench) check(s started, want []string) {
	t := b.t
	if last := s.Args[len(s.Args)-1]; last != page {
		t.Errorf("opened %q", last)
	}
	for _, a := range want {
		if !slices.Contains(s.Args, a) {
			t.Errorf("the argument %s is missing: %q", a, s.Args)
		}
	}
	if env := strings.Join(s.Env, "\n"); strings.Contains(env, "telltale") || strings.Contains(env, "\nHOME=/users-own-home") {
		t.Errorf("the environment tells:\n%s", env)
	}
	if top := filepath.Dir(s.Profile); filepath.Dir(top) != b.temp || !strings.HasPrefix(s.Dir, top) || s.Mode != "-rwx------" {
		t.Errorf("the profile is %s with mode %s; it runs in %s", s.Profile, s.Mode, s.Dir)
	}
	if js, ok := s.Files["user.js"]; ok {
		if !strings.Contains(js, `"network.dns.disabled", true`) || !strings.Contains(js, "autoconfig_url") {
			t.Errorf("user.js is\n%s", js)
		}
		return
	}
	if !slices.Contains(s.Args, "--proxy-server=http://"+b.proxy.String()) || !strings.Contains(s.Files["Default/Preferences"], `"network_prediction_options":2`) {
		t.Errorf("arguments %q, files %q", s.Args, s.Files)
	}
}

// The end of the context ends the browser; that is no failure, and nothing is left.
func TestStartEnds(t *testing.T) {
	b := newBench(t, "stay")
	ctx, cancel := context.WithCancel(t.Context())
	link, _ := ParseLink(page)
	w, err := Start(ctx, Config{Proxy: b.proxy, Program: b.program("chromium")}, link)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.Ended():
		t.Fatal("it has ended by itself")
	default:
	}
	cancel()
	if err := w.Wait(); err != nil {
		t.Error(err)
	}
	b.empty()
}

func TestStartFails(t *testing.T) {
	b := newBench(t, "fail")
	link, _ := ParseLink(page)
	w, err := Start(t.Context(), Config{Proxy: b.proxy, Program: b.program("chromium")}, link)
	if err != nil {
		t.Fatal(err)
	}
	var end *EndError
	if err := w.Wait(); !errors.As(err, &end) || end.Said != "no [31mdisplay" {
		t.Errorf("got %v, %+v", err, end)
	}
	b.empty()
	for _, c := range []struct {
		cfg  Config
		link Link
	}{
		{Config{Proxy: b.proxy, Program: "/nowhere/chromium"}, link},
		{Config{Proxy: b.proxy, Program: "go"}, link},
		{Config{Proxy: netip.MustParseAddrPort("0.0.0.0:1"), Program: b.program("chrome")}, link},
		{Config{Proxy: netip.MustParseAddrPort("[fe80::1%eth0]:1"), Program: b.program("google-chrome")}, link},
		{Config{Program: b.program("msedge")}, link},
		{Config{Proxy: b.proxy, Program: b.program("firefox")}, Link{}},
	} {
		if _, err := Start(t.Context(), c.cfg, c.link); err == nil {
			t.Errorf("%+v was started", c)
		}
	}
	b.empty()
}

func TestOpener(t *testing.T) {
	b := newBench(t, "fail")
	var log bytes.Buffer
	o := NewOpener(Config{Proxy: b.proxy, Program: b.program("chromium"), Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err := o.Open(t.Context(), page); !errors.Is(err, ErrStopped) {
		t.Errorf("before Run: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- o.Run(ctx) }()
	var end *EndError
	for err := ErrStopped; errors.Is(err, ErrStopped); { // until Run has begun
		if err = o.Open(t.Context(), page); !errors.Is(err, ErrStopped) && !errors.As(err, &end) {
			t.Errorf("a browser that cannot run: %v", err)
		}
	}
	if err := o.Open(t.Context(), "file:///etc/passwd"); err == nil {
		t.Error("a file was opened")
	}
	b.mu.Lock()
	b.answer = "stay"
	b.mu.Unlock()
	answered, hurry := context.WithCancel(t.Context()) // so that Open does not watch each of them
	hurry()
	for range maxWindows {
		if err := o.Open(answered, page); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Open(answered, page); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if err := o.Open(t.Context(), page); !errors.Is(err, ErrStopped) {
		t.Errorf("after Run: %v", err)
	}
	b.empty()
	if strings.Contains(log.String(), "example") {
		t.Errorf("the log tells what was opened: %s", &log)
	}
}

// What a torproxy that was killed has left is removed, what is in use, being made or another's is not.
func TestSweep(t *testing.T) {
	b := newBench(t, "")
	stale := filepath.Join(b.temp, prefix+"stale")
	exposed := filepath.Join(b.temp, prefix+"exposed")
	other := filepath.Join(b.temp, "another")
	made := filepath.Join(b.temp, prefix+"made") // just now, by another process that has not locked it yet
	for path, mode := range map[string]os.FileMode{stale: 0o700, exposed: 0o755, other: 0o700, made: 0o700} {
		if err := os.MkdirAll(filepath.Join(path, "profile", "Default"), mode); err != nil {
			t.Fatal(err)
		}
		os.Chmod(path, mode)
		if old := time.Now().Add(-2 * young); path != made {
			os.Chtimes(path, old, old)
		}
	}
	if err := os.Symlink(other, filepath.Join(b.temp, prefix+"link")); err != nil {
		t.Fatal(err)
	}
	used, err := newProfile()
	if err != nil {
		t.Fatal(err)
	}
	second, err := newProfile()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{stale: false, exposed: true, other: true, made: true, used.dir: true, second.dir: true} {
		if _, err := os.Stat(filepath.Join(path, "profile")); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path, err == nil, want)
		}
	}
	if err := errors.Join(used.remove(), second.remove()); err != nil {
		t.Error(err)
	}
}

func TestPAC(t *testing.T) {
	got := pac(netip.MustParseAddrPort("[::1]:8118"))
	if !strings.Contains(got, `return "PROXY [::1]:8118"`) || strings.Contains(got, "DIRECT") {
		t.Errorf("got %s", got)
	}
	if _, err := net.ResolveTCPAddr("tcp", "127.0.0.1:1"); err != nil {
		t.Error(err)
	}
}

// Every preference is one line, and none is there twice.
func TestFirefoxPreferences(t *testing.T) {
	seen := map[string]bool{}
	for line := range strings.Lines(firefoxPreferences) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "//") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, `user_pref("`), `", `)
		value, closed := strings.CutSuffix(value, ");")
		if !ok || !closed || !json.Valid([]byte(value)) || seen[name] {
			t.Errorf("bad line %q", line)
		}
		seen[name] = true
	}
	if len(seen) < 50 {
		t.Errorf("only %d preferences", len(seen))
	}
}
