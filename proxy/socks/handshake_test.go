package socks

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
)

// connectIPv4 is a CONNECT to 192.0.2.1:80, connectIPv6 one to [2001:db8::1]:443.
const (
	connectIPv4 = "\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"
	connectIPv6 = "\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\xbb"
)

func TestHandshake(t *testing.T) {
	name255 := strings.Repeat("a", 255)
	tests := []struct {
		name, in, out string
		target        string // "": Dial must not be called
		user, pass    string
	}{
		{name: "name", in: greetNone + connect("web.test", 80), out: choseNone + connected, target: "web.test:80"},
		{name: "capitals", in: greetNone + connect("WWW.Web.Test", 80), out: choseNone + connected, target: "www.web.test:80"},
		{name: "longest name", in: greetNone + connect(name255, 1), out: choseNone + connected, target: name255 + ":1"},
		{name: "IPv4", in: greetNone + connectIPv4, out: choseNone + connected, target: "192.0.2.1:80"},
		{name: "IPv6", in: greetNone + connectIPv6, out: choseNone + connected, target: "[2001:db8::1]:443"},
		{name: "IPv6 as a name", in: greetNone + connect("2001:DB8:0::1", 443), out: choseNone + connected, target: "[2001:db8::1]:443"},
		{name: "reserved byte not zero", in: greetNone + "\x05\x01\xee" + connect("a", 65535)[3:], out: choseNone + connected, target: "a:65535"},

		{name: "login", in: greetLogin + login + connect("a", 1), out: choseLogin + connected, target: "a:1", user: "user", pass: "secret"},
		{name: "none before login", in: "\x05\x02\x00\x02" + login + connect("a", 1), out: choseLogin + connected, target: "a:1", user: "user", pass: "secret"},
		{name: "curl's list", in: "\x05\x03\x00\x01\x02" + login + connect("a", 1), out: choseLogin + connected, target: "a:1", user: "user", pass: "secret"},
		{name: "login before none", in: "\x05\x02\x02\x00" + login + connect("a", 1), out: choseLogin + connected, target: "a:1", user: "user", pass: "secret"},
		{name: "only a user", in: greetLogin + "\x01\x01u\x00" + connect("a", 1), out: choseLogin + connected, target: "a:1", user: "u"},
		{name: "only a password", in: greetLogin + "\x01\x00\x01p" + connect("a", 1), out: choseLogin + connected, target: "a:1", pass: "p"},
		{name: "empty login", in: greetLogin + "\x01\x00\x00" + connect("a", 1), out: choseLogin + connected, target: "a:1"},
		{name: "binary login", in: greetLogin + "\x01\x02\x00\xff\x01\n" + connect("a", 1), out: choseLogin + connected, target: "a:1", user: "\x00\xff", pass: "\n"},
		{name: "256 methods less one", in: "\x05\xff\x00" + strings.Repeat("\x07", 254) + connect("a", 1), out: choseNone + connected, target: "a:1"},

		{name: "nothing", in: "", out: ""},
		{name: "no methods", in: "\x05\x00", out: "\x05\xff"},
		{name: "no known method", in: "\x05\x02\x01\x80", out: "\x05\xff"},
		{name: "login of another version", in: greetLogin + "\x05" + login[1:], out: "\x05\x02"},
		{name: "request of another version", in: greetNone + "\x04" + connect("a", 1)[1:], out: choseNone},

		{name: "BIND", in: greetNone + "\x05\x02" + connectIPv4[2:], out: choseNone + failed(7)},
		{name: "UDP ASSOCIATE", in: greetNone + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", out: choseNone + failed(7)},
		{name: "command 0", in: greetNone + "\x05\x00" + connectIPv4[2:], out: choseNone + failed(7)},
		{name: "RESOLVE that is not served", in: greetNone + resolve("web.test"), out: choseNone + failed(7)},
		{name: "RESOLVE_PTR that is not served", in: greetNone + "\x05\xf1" + connectIPv4[2:], out: choseNone + failed(7)},
		{name: "address type 0", in: greetNone + "\x05\x01\x00\x00", out: choseNone + failed(8)},
		{name: "address type 2", in: greetNone + "\x05\x01\x00\x02\x01\x02\x03", out: choseNone + failed(8)},

		{name: "port 0", in: greetNone + connect("a", 0), out: choseNone + failed(1)},
		{name: "empty name", in: greetNone + connect("", 80), out: choseNone + failed(1)},
		{name: "NUL in a name", in: greetNone + connect("a\x00b", 80), out: choseNone + failed(1)},
		{name: "colon in a name", in: greetNone + connect("a:b", 80), out: choseNone + failed(1)},
		{name: "IPv6 zone", in: greetNone + connect("fe80::1%eth0", 80), out: choseNone + failed(1)},
		{name: "number", in: greetNone + connect("2130706433", 80), out: choseNone + failed(1)},

		{name: "SOCKS4", in: "\x04\x01\x00\x50\xc0\x00\x02\x01\x00", out: "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		{name: "TLS", in: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", out: tlsUnexpected},
		{name: "SSH", in: "SSH-2.0-OpenSSH_9.2\r\n", out: ""},
		{name: "a word", in: "HELLO", out: ""},
		{name: "a long word", in: strings.Repeat("A", 100) + " ", out: ""},
		{name: "garbage", in: "\xff\x00\x05\x01\x00", out: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Request{}
			cfg := Config{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
				got = r
				return dialEcho(ctx, r)
			}}
			if out := converse(t, cfg, tt.in); out != tt.out {
				t.Errorf("answer %q, want %q", out, tt.out)
			}
			if got.Target != tt.target || got.User != tt.user || got.Password != tt.pass {
				t.Errorf("request for %q by %q with %q, want %q, %q, %q", got.Target, got.User, got.Password, tt.target, tt.user, tt.pass)
			}
			if tt.target != "" && got.Client == nil {
				t.Error("no client address")
			}
		})
	}
}

// A client that speaks TLS is told that it must not, and shows it.
func TestTLSIsTold(t *testing.T) {
	conn, err := tls.Dial("tcp", serveTCP(t, Config{}), &tls.Config{ServerName: "web.test"})
	if err == nil {
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "unexpected message") {
		t.Errorf("the handshake ended with %v", err)
	}
}

// Config.Login refuses before there is a request; why it did is logged, but not for each that comes.
func TestLogin(t *testing.T) {
	log := newRecorder(slog.LevelInfo)
	var got []string
	s := New(Config{Dial: dialEcho, Log: slog.New(log), Login: func(user, password string) error {
		if got = append(got, user, password); user == "user" {
			return errors.New("two of its letters are the same")
		}
		return nil
	}})
	for in, want := range map[string]string{
		greetLogin + login + connect("a", 1):                  "\x05\x02\x01\x01",
		greetLogin + login + login:                            "\x05\x02\x01\x01",
		greetLogin + "\x01\x03bob\x03abc" + connect("a", 1):   choseLogin + connected,
		"\x05\x02\x00\x02" + "\x01\x00\x00" + connect("a", 1): choseLogin + connected,
		greetNone + connect("a", 1):                           choseNone + connected,
	} {
		if out := converseWith(t, s, in); out != want {
			t.Errorf("%q: answer %q, want %q", in, out, want)
		}
	}
	slices.Sort(got)
	if want := []string{"", "", "abc", "bob", "secret", "secret", "user", "user"}; !slices.Equal(got, want) {
		t.Errorf("asked about %q", got)
	}
	if text := log.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "two of its letters") || strings.Contains(text, "secret") {
		t.Errorf("log: %s", text)
	}
}

// A handshake cut short anywhere must end without a call of Dial and with the answers to its whole parts only.
func TestHandshakeCut(t *testing.T) {
	tests := []struct {
		name  string
		parts []string // what the client sends
		out   []string // the answer to each
	}{
		{"name", []string{greetNone, connect("web.test", 80)}, []string{choseNone, connected}},
		{"IPv4", []string{greetNone, connectIPv4}, []string{choseNone, connected}},
		{"IPv6", []string{greetNone, connectIPv6}, []string{choseNone, connected}},
		{"login", []string{"\x05\x02\x00\x02", login, connect("a", 1)}, []string{"\x05\x02", "\x01\x00", connected}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole, sent, want := strings.Join(tt.parts, ""), 0, ""
			for n := range len(whole) {
				for sent < len(tt.parts) && n == len(strings.Join(tt.parts[:sent+1], "")) {
					want += tt.out[sent]
					sent++
				}
				cfg := Config{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
					t.Errorf("Dial was called after %d of %d bytes", n, len(whole))
					return dialEcho(ctx, r)
				}}
				if got := converse(t, cfg, whole[:n]); got != want {
					t.Errorf("answer to %d bytes: %q, want %q", n, got, want)
				}
			}
		})
	}
}

// The bytes may also come one by one, each in a segment of its own.
func TestHandshakeByteByByte(t *testing.T) {
	near, far := memoryPipe()
	defer near.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		New(Config{Dial: dialEcho}).serveConn(t.Context(), far)
	}()
	for _, b := range []byte(greetLogin + login + connect("web.test", 80)) {
		send(t, near, string([]byte{b}))
		near.drained()
	}
	expect(t, near, choseLogin+connected)
	send(t, near, "hello")
	near.CloseWrite()
	expect(t, near, "hello")
	<-done
}

func TestHTTPIsToldOfTheFrontDoor(t *testing.T) {
	for _, in := range []string{
		"GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\n\r\n",
		"CONNECT web.test:443 HTTP/1.1\r\n\r\n",
		"PROPFIND / HTTP/1.1\r\n\r\n",
		"GET ",
	} {
		out := converse(t, Config{FrontDoor: "127.0.0.1:9999"}, in)
		for _, want := range []string{"HTTP/1.1 501 ", "SOCKS5 port", "-x http://127.0.0.1:9999 "} {
			if !strings.Contains(out, want) {
				t.Errorf("%q: no %q in %q", in, want, out)
			}
		}
	}
	if out := converse(t, Config{}, "HEAD / HTTP/1.0\r\n\r\n"); !strings.Contains(out, DefaultFrontDoor) {
		t.Errorf("no default address in %q", out)
	}
}
