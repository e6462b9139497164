//go:build clients

package frontdoor

import (
	"bytes"
	"context"
	"crypto/sha256"
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
	"testing"
	"time"
)

// curl runs the real program without its user's configuration; the answer is its output, and on stderr
// what it says of failures.
func (f *fixture) curl(args ...string) (stdout, stderr string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", append([]string{"-q", "-sS"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && errs.Len() == 0 && cmd.ProcessState == nil {
		f.t.Fatalf("curl: %v", err)
	}
	return out.String(), errs.String()
}

func TestCurl(t *testing.T) {
	f := start(t)
	f.server("web.test:80", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, _ := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%s %s %d %x", r.Method, r.RequestURI, n, sum.Sum(nil))
	})
	empty := fmt.Sprintf("%x", sha256.Sum256(nil))
	upload := filepath.Join(t.TempDir(), "upload")
	data := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{9}).Read(data)
	if err := os.WriteFile(upload, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--path-as-is", "http://web.test/a;b//c/../d?x=1;y=2&z=%zz"}, "GET /a;b//c/../d?x=1;y=2&z=%zz 0 " + empty},
		{[]string{"--data-binary", "@" + upload, "http://web.test/up"}, fmt.Sprintf("POST /up %d %x", len(data), sha256.Sum256(data))},
		{[]string{"-H", "Transfer-Encoding: chunked", "--data-binary", "@" + upload, "http://web.test/up"}, fmt.Sprintf("POST /up %d %x", len(data), sha256.Sum256(data))},
		{[]string{"-p", "http://web.test/tunnel"}, "GET /tunnel 0 " + empty},
		{[]string{"-U", "name:any", "http://web.test/named"}, "GET /named 0 " + empty},
		{[]string{"-U", "name:any", "-p", "http://web.test/named"}, "GET /named 0 " + empty},
	} {
		if out, say := f.curl(append([]string{"-x", "http://" + f.addr}, test.args...)...); out != test.want || say != "" {
			t.Errorf("curl %q: %.200q %q", test.args, out, say)
		}
	}
	dials := f.network.dialled()
	for i, dial := range dials {
		if named := i >= len(dials)-2; strings.HasSuffix(dial, " ") == named {
			t.Errorf("dial %d of %q", i, dials)
		}
	}
}

func TestCurlTLS(t *testing.T) {
	f := start(t)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "through TLS") }))
	t.Cleanup(func() {
		f.stop()
		s.Close()
	})
	f.network.add("web.test:443", s.Listener.Addr().String())
	if out, say := f.curl("-k", "-x", "http://"+f.addr, "https://web.test/"); out != "through TLS" {
		t.Errorf("%q %q", out, say)
	}
}

// What a person sees: the status in curl's own words for a tunnel, our text for a page.
func TestCurlFailures(t *testing.T) {
	for _, test := range failures {
		f := start(t, func(c *Config) {
			c.Dial = func(context.Context, Request) (net.Conn, error) { return nil, test.err }
		})
		want := fmt.Sprintf("response %d", test.status)
		if _, say := f.curl("-x", "http://"+f.addr, "https://web.test:81/"); !strings.Contains(say, want) {
			t.Errorf("%v: curl says %q, want %q", test.err, say, want)
		}
		out, say := f.curl("-x", "http://"+f.addr, "-w", "%{http_code}", "http://web.test:81/")
		if !strings.Contains(out, test.say) || !strings.HasSuffix(out, fmt.Sprintf("\n%d", test.status)) || say != "" {
			t.Errorf("%v: curl shows %q %q", test.err, out, say)
		}
	}
}

func TestCurlTheFrontDoor(t *testing.T) {
	f := start(t)
	f.client.change(filled)
	if out, say := f.curl("http://" + f.addr + "/api/status"); !strings.HasPrefix(out, `{"version":"1.2",`) {
		t.Errorf("%q %q", out, say)
	}
	if out, say := f.curl("-X", "POST", "http://localhost:"+f.port()+"/api/newnym"); out != "{\"done\":true}\n" || f.client.newIdentities() != 1 {
		t.Errorf("%q %q", out, say)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"} {
		out, say := f.curl("-x", "http://"+f.addr, "--noproxy", "", "-X", "POST", "http://"+host+":"+f.port()+"/api/newnym")
		if !strings.Contains(out, "torproxy itself") {
			t.Errorf("%s through the proxy: %q %q", host, out, say)
		}
	}
	if out, _ := f.curl("-w", "%{http_code}", "-H", "Host: evil.test", "http://"+f.addr+"/api/status"); !strings.HasSuffix(out, "421") {
		t.Errorf("rebound: %q", out)
	}
	if n := f.client.newIdentities(); n != 1 {
		t.Errorf("%d new identities", n)
	}
}

// browse runs chromium on a URL and returns the page as it stands after loading, or what it wrote.
func (f *fixture) browse(args ...string) (dom, log string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "chromium", append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--enable-logging=stderr",
		"--user-data-dir=" + f.t.TempDir(), "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--window-size=900,1100"}, args...)...)
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		f.t.Fatalf("chromium: %v (.ci/test installs it)\n%s", err, errs.String())
	}
	return out.String(), errs.String()
}

// The page in a browser: its own policy lets its style and its scripts through, and nothing is refused. What
// the scripts make of it is tested with the command.
func TestChromiumShowsThePage(t *testing.T) {
	f := start(t)
	f.client.change(filled)
	dom, log := f.browse("--dump-dom", "http://"+f.addr+"/")
	if !strings.Contains(dom, "curl -x http://"+f.addr) {
		t.Errorf("the page: %q", dom)
	}
	if strings.Contains(log, "Content Security Policy") {
		t.Errorf("the page breaks its own policy:\n%s", log)
	}
}

// A browser that takes its configuration from the PAC file asks through us, by name, and nowhere else.
func TestChromiumTakesThePAC(t *testing.T) {
	f := start(t)
	f.server("web.test:80", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<p>through the door</p>") })
	if dom, log := f.browse("--dump-dom", "--proxy-pac-url=http://"+f.addr+"/proxy.pac", "http://web.test/"); !strings.Contains(dom, "through the door") {
		t.Errorf("%q\n%s", dom, log)
	}
}
