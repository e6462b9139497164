package relay

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"torproxy/wire"
)

// TestHTTPBadReplies checks which replies give the client an END, and which are cut short.
func TestHTTPBadReplies(t *testing.T) {
	for name, test := range map[string]struct {
		reply, want string // what comes before the END
	}{
		"nothing":           {"\x00", ""},
		"no HTTP":           {"hello\x00", ""},
		"HTTP/0.9":          {"<html>\r\n\r\n\x00", ""},
		"two lengths":       {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nyes\x00", ""},
		"strange coding":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n\x00", ""},
		"status 099":        {"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", ""},
		"unasked 101":       {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", ""},
		"long head":         {"HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", maxReplyHead) + "\r\n\r\n\x00", ""},
		"many interim ones": {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxInterim+1) + ok, ""},
		"short body":        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nyes\x00", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nyes"},
		"short chunks":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n\x00", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nyes\r\n"},
		"control character": {"HTTP/1.1 200 OK\r\nX-A: a\rTorproxy-Open: http://a/\r\n\r\n\x00", ""},
		"bad chunk":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\nyes\r\n\x00", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"long trailer":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: " + strings.Repeat("a", maxReplyHead) + "\r\n\r\n\x00", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			server := serveRaw(t, test.reply)
			onLoopback(t, nil, func(b *bed) {
				got, err := io.ReadAll(b.get(b.session(0, 1), server.addr(), "/", "").in)
				if string(got) != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
				wantEnd(t, name, err, wire.ReasonReset)
			})
		})
	}
}

// TestHTTPFailures checks the reasons of requests that reach no destination.
func TestHTTPFailures(t *testing.T) {
	closed := serve(t, func(http.ResponseWriter, *http.Request) {})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	refusing := l.Addr().String()
	configure := func(i int, c *Config) {
		c.Resolver = zone{"private.test.": book.zone["private.test."], "nat64.test.": book.zone["inside.test."]}
		if i == 1 {
			c.Policy = policy(t, "accept 127.0.0.1:*,accept *:80")
		}
	}
	onLoopback(t, configure, func(b *bed) {
		s := b.session(0, 1)
		for target, want := range map[string]wire.Reason{
			refusing:                    wire.ReasonRefused,
			"missing.test:80":           wire.ReasonDNS,
			"private.test:80":           wire.ReasonPolicy,
			"nat64.test:80":             wire.ReasonPolicy,
			"10.0.0.1:80":               wire.ReasonPolicy,
			"[::ffff:10.0.0.1]:80":      wire.ReasonPolicy,
			"[64:ff9b::10.0.0.1]:80":    wire.ReasonPolicy,
			"169.254.169.254:80":        wire.ReasonPolicy,
			"2130706433:80":             wire.ReasonDNS,
			"0x7f.0.0.1:80":             wire.ReasonDNS,
			"198.41.0.4:81":             wire.ReasonPolicy,
			"no-port.test":              wire.ReasonDNS,
			"test:0":                    wire.ReasonDNS,
			"user@private.test:80":      wire.ReasonUnsupported,
			"private.test/path:80":      wire.ReasonUnsupported,
			"[fe80::1%25lo]:80":         wire.ReasonUnsupported,
			"private.test,localhost:80": wire.ReasonUnsupported,
		} {
			b.get(s, target, "/", "").fails(target, want)
		}
		_, err := io.ReadAll(b.visit(b.session(0), closed, "GET / HTTP/1.1\r\nHost: "+closed+"\r\n\r\n").in)
		wantEnd(t, "no exit", err, wire.ReasonPolicy)
	})
}

// TestHTTPMalformed sends requests that are refused, through a circuit, to a destination that must not see
// any of them; request_test.go has all the forms.
func TestHTTPMalformed(t *testing.T) {
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s arrived", r.RequestURI) })
	onLoopback(t, nil, func(b *bed) {
		s := b.session(0, 1)
		for _, text := range []string{
			"CONNECT " + server + " HTTP/1.1\r\nHost: " + server + "\r\n\r\n",
			"GET http://" + server + "/ HTTP/1.1\r\nHost: " + server + "\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: " + server + "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		} {
			b.visit(s, server, text).fails(text, wire.ReasonUnsupported)
		}
	})
}

// TestHTTPBadBody sends a body that breaks its own framing: the destination must not take it for whole.
func TestHTTPBadBody(t *testing.T) {
	got := make(chan error, 1)
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		got <- err
	})
	onLoopback(t, nil, func(b *bed) {
		s := b.session(0, 1)
		for name, text := range map[string]string{
			"cut short":    "Content-Length: 50\r\n\r\nyes",
			"cut chunk":    "Transfer-Encoding: chunked\r\n\r\n50\r\nyes",
			"no last one":  "Transfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n",
			"bad trailer":  "Transfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\nX Y: z\r\n\r\n",
			"long trailer": "Transfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\nX: " + strings.Repeat("z", maxTrailer) + "\r\n\r\n",
		} {
			v := b.visit(s, server, "POST / HTTP/1.1\r\nHost: "+server+"\r\n"+text)
			v.stream.CloseWrite()
			if _, err := io.ReadAll(v.in); err == nil {
				t.Errorf("%s: the client got a reply", name)
			}
			if err := <-got; err == nil {
				t.Errorf("%s: the destination took the body for whole", name)
			}
		}
	})
}

// TestHTTPBounds fills what all circuits share: one more is refused.
func TestHTTPBounds(t *testing.T) {
	configure := exitTo(t, func(_ *destination, there net.Conn) { go answerOnce(there) })
	onBed(t, 2, configure, func(b *bed) {
		r, s := b.relays[1], b.session(0, 1)
		for what, full := range map[string]struct {
			counter *atomic.Int64
			bound   int64
		}{"heads": {&r.heads, maxHeads}, "connections": {&r.exits, maxExits}} {
			full.counter.Add(full.bound)
			b.get(s, "198.41.0.4:80", "/", "").fails(what, wire.ReasonResourceLimit)
			full.counter.Add(-full.bound)
			if resp, _ := b.get(s, "198.41.0.4:80", "/", "").page("GET"); resp.StatusCode != http.StatusNoContent {
				t.Errorf("%s: with room again, got %s", what, resp.Status)
			}
		}

		// A circuit that is refused for the sake of all has still its own bound.
		x := &exchange{hop: &lastHop{relay: r}}
		r.heads.Add(maxHeads)
		if reason := x.read(); reason != wire.ReasonResourceLimit {
			t.Errorf("one head too many: %v", reason)
		}
		r.heads.Add(-maxHeads)
		if n, own := r.heads.Load(), x.hop.heads.Load(); n != 0 || own != 0 {
			t.Errorf("afterwards %d heads are counted, %d of the circuit", n, own)
		}
	})
}

// TestHTTPTimeouts checks the time-outs exactly, in virtual time.
func TestHTTPTimeouts(t *testing.T) {
	const host = "198.41.0.4:80"
	for name, test := range map[string]struct {
		request, reply string // what is sent, and what the destination says to it
		after          time.Duration
		want           wire.Reason
	}{
		"no request":    {"GET / HTTP/1.1\r\n", "", requestTimeout, wire.ReasonTimeout},
		"no reply":      {"GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "", replyTimeout, wire.ReasonTimeout},
		"half a reply":  {"GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "HTTP/1.1 200 OK\r\n", replyTimeout, wire.ReasonTimeout},
		"quiet body":    {"GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nyes", quietTimeout, wire.ReasonReset},
		"quiet request": {"PUT / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 50\r\n\r\nyes", "", quietTimeout, wire.ReasonTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			configure := exitTo(t, func(_ *destination, there net.Conn) {
				go func() {
					in := bufio.NewReader(there)
					if _, err := readHead(in, maxRequestHead); err == nil {
						go io.WriteString(there, test.reply)
					}
					io.Copy(io.Discard, in)
				}()
			})
			onBed(t, 2, configure, func(b *bed) {
				s := b.session(0, 1)
				began := time.Now()
				v := b.visit(s, host, test.request)
				_, err := io.ReadAll(v.in)
				wantEnd(t, name, err, test.want)
				if took := time.Since(began).Truncate(time.Second); took != test.after {
					t.Errorf("after %v, want %v", took, test.after)
				}
			})
		})
	}
}
