package frontdoor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"torproxy/proxy"
	"torproxy/wire"
)

// ARCHITECTURE's table, and what the rest of the reasons come to.
var failures = []struct {
	err    error
	status int
	say    string
}{
	{&wire.EndError{Reason: wire.ReasonRefused, Remote: true}, 502, "refused the connection"},
	{&wire.EndError{Reason: wire.ReasonDNS, Remote: true}, 502, "does not resolve"},
	{&wire.EndError{Reason: wire.ReasonHostUnreachable, Remote: true}, 502, "is unreachable"},
	{&wire.EndError{Reason: wire.ReasonTimeout, Remote: true}, 504, "did not answer in time"},
	{&wire.EndError{Reason: wire.ReasonNetUnreachable, Remote: true}, 502, "the network of"},
	{&wire.EndError{Reason: wire.ReasonPolicy, Remote: true}, 403, "no exit connects to"},
	{&wire.EndError{Reason: wire.ReasonReset, Remote: true}, 502, "was cut"},
	{&wire.EndError{Reason: wire.ReasonResourceLimit, Remote: true}, 502, "takes no more connections"},
	{&wire.EndError{Reason: wire.ReasonShutdown, Remote: true}, 502, "is shutting down"},
	{&wire.EndError{Reason: wire.ReasonUnsupported, Remote: true}, 502, "unsupported"},
	{&wire.EndError{Reason: wire.ReasonInternal, Remote: true}, 502, "internal error at the exit"},
	{&wire.EndError{Reason: wire.ReasonDone, Remote: true}, 502, "no connection to"},
	{&wire.EndError{Reason: 99}, 502, "no connection to"},
	{fmt.Errorf("circuit 7: %w", &wire.EndError{Reason: wire.ReasonPolicy}), 403, "no exit connects to"},
	{fmt.Errorf("--exit x: no relay has that name: %w", &wire.EndError{Reason: wire.ReasonPolicy}), 403, "--exit x: no relay has that name"},
	{&net.OpError{Op: "dial", Err: &wire.EndError{Reason: wire.ReasonTimeout, Remote: true}}, 504, "did not answer in time"},
	{&wire.EndError{Reason: wire.ReasonTimeout}, 502, "no circuit in time"},
	{context.DeadlineExceeded, 502, "no circuit in time"},
	{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, 502, "no circuit in time"},
	{errors.New("no route: 3 relays are running, 5 are needed"), 502, "no route: 3 relays are running, 5 are needed"},
	{errors.New("<b>two\r\nlines: %s%d</b>" + strings.Repeat("x", 1000)), 502, "<b>two  lines: %s%d</b>xxx"},
	{context.Canceled, 502, "keep the connection open"},
}

func TestFailures(t *testing.T) {
	for _, test := range failures {
		f := start(t, func(c *Config) {
			c.Dial = func(context.Context, Request) (net.Conn, error) { return nil, test.err }
		})
		for _, line := range []string{"CONNECT web.test:81", "GET http://web.test:81/"} {
			r, body := f.do(line + " HTTP/1.1\nHost: x\n\n")
			if r.StatusCode != test.status || !strings.Contains(body, test.say) || !strings.Contains(body, "web.test:81") {
				t.Errorf("%v: %s: %s %q", test.err, line, r.Status, body)
			}
			lines := strings.Split(body, "\n")
			if len(lines) != 4 || !strings.HasPrefix(lines[0], "torproxy: ") || !strings.HasPrefix(lines[1], "Probable cause: ") ||
				!strings.HasPrefix(lines[2], "What to do: ") || len(body) > 700 || strings.Contains(body, "%!") {
				t.Errorf("not written for a person: %q", body)
			}
			if got := r.Header.Get("Content-Type") + r.Header.Get("X-Content-Type-Options") + r.Header.Get("Cache-Control"); got != "text/plain; charset=utf-8nosniffno-store" {
				t.Errorf("headers %v", r.Header)
			}
			if !strings.HasPrefix(r.Header.Get("Proxy-Status"), "torproxy; error=") {
				t.Errorf("Proxy-Status %q", r.Header.Get("Proxy-Status"))
			}
		}
	}
}

func TestFailureWhileStarting(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Dial = func(context.Context, Request) (net.Conn, error) { return nil, errors.New("no consensus") }
	})
	f.client.change(func(c *client) { c.status.Bootstrap = Bootstrap{30, "asking 4 authorities"} })
	r, body := f.do("CONNECT web.test:80 HTTP/1.1\n\n")
	if r.StatusCode != 502 || !strings.Contains(body, "still starting: 30 % (no consensus)") || !strings.Contains(body, "torproxy status") {
		t.Errorf("%s %q", r.Status, body)
	}
	if strings.Contains(body, "authorities") {
		t.Errorf("a page may read the summary: %q", body)
	}
}

// The script of a page learns no address of this machine's.
func TestFailureForAPage(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Dial = func(context.Context, Request) (net.Conn, error) { return nil, errors.New("no circuit") }
	})
	for header, told := range map[string]bool{"User-Agent: curl/8.0": true, "User-Agent: Mozilla/5.0": false, "Sec-Fetch-Mode: cors": false} {
		_, body := f.do("GET http://web.test/ HTTP/1.1\nHost: x\n" + header + "\n\n")
		if strings.Contains(body, f.addr) != told {
			t.Errorf("%s: %q", header, body)
		}
	}
}

// Failures after the connection stood.
func TestFailuresOfTheDestination(t *testing.T) {
	f := start(t)
	for answer, say := range map[string]string{
		"":                      "EOF",
		"SSH-2.0-OpenSSH_9.2\n": "malformed HTTP",
		"HTTP/1.1 407 Proxy Authentication Required\nProxy-Authenticate: Basic realm=bank\nContent-Length: 0\n\n": "as if it were the proxy",
		"HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: x\n\n":                                   "was not asked to",
		"HTTP/1.1 200 OK\nX: " + strings.Repeat("x", maxReplyHead) + "\n\n":                                       "header is longer than 1048576 bytes",
		"HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 2\n\n":                                               "Content-Length",
	} {
		f.origin("odd.test:80", func(c net.Conn) {
			buf := make([]byte, 4096)
			c.Read(buf)
			c.Write([]byte(strings.ReplaceAll(answer, "\n", "\r\n")))
		})
		r, body := f.do("GET http://odd.test/ HTTP/1.1\nHost: x\n\n")
		if r.StatusCode != 502 || !strings.Contains(body, say) || r.Header.Get("Proxy-Authenticate") != "" {
			t.Errorf("%.60q: %s %q", answer, r.Status, body)
		}
	}
}

// What fails before the exit has answered tells nothing of the destination, however late it was.
func TestWhoseTimeout(t *testing.T) {
	exits := &wire.EndError{Reason: wire.ReasonTimeout, Remote: true}
	for _, test := range []struct {
		err    proxy.Error
		status int
		header string
	}{
		{proxy.Error{Hop: 3, Hops: 3, Reason: exits.Reason.String(), Err: exits}, 504, `torproxy; error=connection_timeout; details="hop 3 of 3: time-out"`},
		{proxy.Error{Hops: 3, Reason: "no answer in time", Err: &wire.EndError{Reason: wire.ReasonTimeout}}, 502, `torproxy; error=destination_unavailable; details="hop 0 of 3: no answer in time"`},
		{proxy.Error{Hops: 3, Reason: "no answer in time", Err: fmt.Errorf("waiting for a circuit: %w", context.DeadlineExceeded)}, 502, `torproxy; error=destination_unavailable; details="hop 0 of 3: no answer in time"`},
		{proxy.Error{Hops: 3, Reason: "no link to hop 1", Err: fmt.Errorf("alice: %w", context.DeadlineExceeded)}, 502, `torproxy; error=destination_unavailable; details="hop 0 of 3: no link to hop 1"`},
	} {
		f := start(t, func(c *Config) {
			c.Dial = func(context.Context, Request) (net.Conn, error) { return nil, &test.err }
		})
		for _, line := range []string{"CONNECT web.test:80", "GET http://web.test/"} {
			r, body := f.do(line + " HTTP/1.1\nHost: x\n\n")
			blamed := strings.Contains(body, "web.test:80 did not answer")
			if r.StatusCode != test.status || r.Header.Get("Proxy-Status") != test.header || blamed != (test.status == 504) {
				t.Errorf("%v: %s: %s, Proxy-Status %q: %q", &test.err, line, r.Status, r.Header.Get("Proxy-Status"), body)
			}
		}
	}
}

// told is an error that knows which hop said no.
type told struct{ error }

func (told) ProxyStatus() string { return "hop 3 of 3: \"DNS\\ failure\"\x00\u00e4" }

func (t told) Unwrap() error { return t.error }

func TestProxyStatusTellsTheHop(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Dial = func(context.Context, Request) (net.Conn, error) {
			return nil, fmt.Errorf("dial: %w", told{&wire.EndError{Reason: wire.ReasonDNS, Remote: true}})
		}
	})
	r, _ := f.do("CONNECT web.test:80 HTTP/1.1\n\n")
	if got, want := r.Header.Get("Proxy-Status"), `torproxy; error=dns_error; details="hop 3 of 3: \"DNS\\ failure\"??"`; r.StatusCode != 502 || got != want {
		t.Errorf("%s, Proxy-Status %s, want %s", r.Status, got, want)
	}
}

func TestUserNameThatDialRefuses(t *testing.T) {
	var users []string
	f := start(t, func(c *Config) {
		c.Dial = func(_ context.Context, r Request) (net.Conn, error) {
			users = append(users, r.User)
			return nil, fmt.Errorf("%w: +exti=x: no such part", ErrUser)
		}
	})
	for _, line := range []string{"CONNECT web.test:80", "GET http://web.test/"} {
		r, body := f.do(line + " HTTP/1.1\nHost: x\nProxy-Authorization: Basic YW5uK2V4dGk9eDpwdw==\n\n")
		if r.StatusCode != 407 || !strings.Contains(body, "+exti=x: no such part") {
			t.Errorf("%s: %s %q", line, r.Status, body)
		}
	}
	if !slices.Equal(users, []string{"ann+exti=x", "ann+exti=x"}) {
		t.Errorf("users %q", users)
	}
}

// TestFailuresAreRequests checks that what is refused is counted as a request too, whatever for.
func TestFailuresAreRequests(t *testing.T) {
	f := start(t)
	for i, line := range []string{
		"CONNECT nowhere.test:80", "GET http://nowhere.test/", // no such destination
		"CONNECT web.test", "GET ftp://web.test/", "GET http://me@web.test/", // 400
		"CONNECT SELF", "GET http://SELF/", // 403
	} {
		f.do(line + " HTTP/1.1\nHost: x\n\n")
		if s := f.front.Stats(); s.Failed != int64(i+1) || s.Tunnels+s.Forwarded != s.Failed {
			t.Fatalf("after %s: %+v", line, s)
		}
	}
}
