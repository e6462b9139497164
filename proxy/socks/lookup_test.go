package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// asked is a Config whose lookups have one answer; it keeps what was asked.
type asked struct {
	Config
	resolve, resolveAddr Request
}

func newAsked(addrs []netip.Addr, name string, err error) *asked {
	a := &asked{}
	a.Dial = func(context.Context, Request) (net.Conn, error) {
		return nil, errors.New("nobody is to be connected to")
	}
	a.Resolve = func(_ context.Context, r Request) ([]netip.Addr, error) {
		a.resolve = r
		return addrs, err
	}
	a.ResolveAddr = func(_ context.Context, r Request) (string, error) {
		a.resolveAddr = r
		return name, err
	}
	return a
}

func addrs(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

const (
	resolved4    = "\x05\x00\x00\x01\xc0\x00\x02\x07\x00\x00"                                                 // 192.0.2.7
	resolved6    = "\x05\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00" // 2001:db8::7
	resolvePTR4  = "\x05\xf1\x00\x01\xc0\x00\x02\x07\x00\x00"                                                 // of 192.0.2.7
	resolvePTR6  = "\x05\xf1\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x50" // of 2001:db8::7
	resolveAddr4 = "\x05\xf0\x00\x01\xc0\x00\x02\x07\x00\x00"                                                 // of 192.0.2.7
	mapped       = "\x05\xf1\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x07\x00\x00" // of ::ffff:192.0.2.7
)

func resolvedName(name string) string {
	return "\x05\x00\x00\x03" + string([]byte{byte(len(name))}) + name + "\x00\x00"
}

func TestResolve(t *testing.T) {
	name255 := strings.Repeat("a", 255)
	tests := []struct {
		name, in string
		found    []netip.Addr
		err      error
		out      string
		asked    string // "": Resolve must not be called
	}{
		{name: "IPv4", in: resolve("Web.Test"), found: addrs("192.0.2.7", "192.0.2.8"), out: resolved4, asked: "web.test"},
		{name: "IPv6", in: resolve("web.test"), found: addrs("2001:db8::7", "2001:db8::8"), out: resolved6, asked: "web.test"},
		{name: "IPv4 before IPv6", in: resolve("web.test"), found: addrs("2001:db8::7", "192.0.2.7"), out: resolved4, asked: "web.test"},
		{name: "IPv4-mapped", in: resolve("web.test"), found: addrs("2001:db8::7", "::ffff:192.0.2.7"), out: resolved4, asked: "web.test"},
		{name: "with a port, as torsocks asks", in: "\x05\xf0" + connect("web.test", 42)[2:], found: addrs("192.0.2.7"), out: resolved4, asked: "web.test"},
		{name: "longest name", in: resolve(name255), found: addrs("192.0.2.7"), out: resolved4, asked: name255},
		{name: "address", in: resolveAddr4, out: resolved4},
		{name: "address as a name", in: resolve("2001:DB8:0::7"), out: resolved6},

		{name: "no such name", in: resolve("web.test"), err: fmt.Errorf("hop 3: %w", &wire.EndError{Reason: wire.ReasonDNS, Remote: true}), out: failed(4), asked: "web.test"},
		{name: "no addresses", in: resolve("web.test"), out: failed(4), asked: "web.test"},
		{name: "nothing that is an address", in: resolve("web.test"), found: []netip.Addr{{}}, out: failed(1), asked: "web.test"},
		{name: "not allowed", in: resolve("web.test"), err: &wire.EndError{Reason: wire.ReasonPolicy}, out: failed(2), asked: "web.test"},
		{name: "no circuit", in: resolve("web.test"), err: errors.New("no circuit"), out: failed(1), asked: "web.test"},
		{name: "empty name", in: resolve(""), out: failed(1)},
		{name: "no name", in: resolve("a b"), out: failed(1)},
		{name: "number", in: resolve("2130706433"), out: failed(1)},
		{name: "zone", in: resolve("fe80::1%eth0"), out: failed(1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAsked(tt.found, "", tt.err)
			if got, want := converse(t, a.Config, greetLogin+login+tt.in), choseLogin+tt.out; got != want {
				t.Errorf("answer %q, want %q", got, want)
			}
			if a.resolve.Target != tt.asked {
				t.Errorf("asked for %q, want %q", a.resolve.Target, tt.asked)
			}
			if r := a.resolve; tt.asked != "" && (r.User != "user" || r.Password != "secret" || r.Client == nil) {
				t.Errorf("asked by %q with %q from %v", r.User, r.Password, r.Client)
			}
		})
	}
}

func TestResolvePTR(t *testing.T) {
	name255 := strings.Repeat("a", 255)
	tests := []struct {
		name, in, found string
		err             error
		out, asked      string
	}{
		{name: "IPv4", in: resolvePTR4, found: "web.test", out: resolvedName("web.test"), asked: "192.0.2.7"},
		{name: "IPv6", in: resolvePTR6, found: "web.test", out: resolvedName("web.test"), asked: "2001:db8::7"},
		{name: "IPv4-mapped", in: mapped, found: "web.test", out: resolvedName("web.test"), asked: "192.0.2.7"},
		{name: "address as a name", in: "\x05\xf1" + resolve("[2001:DB8::7]")[2:], found: "web.test", out: resolvedName("web.test"), asked: "2001:db8::7"},
		{name: "fully qualified", in: resolvePTR4, found: "web.test.", out: resolvedName("web.test"), asked: "192.0.2.7"},
		{name: "longest name", in: resolvePTR4, found: name255, out: resolvedName(name255), asked: "192.0.2.7"},

		{name: "name", in: "\x05\xf1" + resolve("web.test")[2:], out: failed(8)},
		{name: "zone", in: "\x05\xf1" + resolve("fe80::1%eth0")[2:], out: failed(1)},
		{name: "no such address", in: resolvePTR4, err: &wire.EndError{Reason: wire.ReasonDNS}, out: failed(4), asked: "192.0.2.7"},
		{name: "empty name", in: resolvePTR4, found: "", out: failed(4), asked: "192.0.2.7"},
		{name: "too long a name", in: resolvePTR4, found: name255 + "a", out: failed(1), asked: "192.0.2.7"},
		{name: "a name to trick a terminal", in: resolvePTR4, found: "\x1b]0;x\x07.test", out: failed(1), asked: "192.0.2.7"},
		{name: "an address for a name", in: resolvePTR4, found: "127.0.0.1", out: failed(1), asked: "192.0.2.7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAsked(nil, tt.found, tt.err)
			if got, want := converse(t, a.Config, greetNone+tt.in), choseNone+tt.out; got != want {
				t.Errorf("answer %q, want %q", got, want)
			}
			if a.resolveAddr.Target != tt.asked {
				t.Errorf("asked for %q, want %q", a.resolveAddr.Target, tt.asked)
			}
		})
	}
}

// Each command can be had without the other.
func TestLookupNotServed(t *testing.T) {
	a := newAsked(addrs("192.0.2.7"), "web.test", nil)
	onlyPTR, onlyNames := a.Config, a.Config
	onlyPTR.Resolve, onlyNames.ResolveAddr = nil, nil
	for _, tt := range []struct {
		cfg     Config
		in, out string
	}{
		{onlyPTR, resolve("web.test"), failed(7)},
		{onlyPTR, resolvePTR4, resolvedName("web.test")},
		{onlyNames, resolvePTR4, failed(7)},
		{onlyNames, resolve("web.test"), resolved4},
	} {
		if got, want := converse(t, tt.cfg, greetNone+tt.in), choseNone+tt.out; got != want {
			t.Errorf("%q: answer %q, want %q", tt.in, got, want)
		}
	}
}

// The connection ends with the answer, though the client keeps its side open: tor-resolve reads to the end.
func TestLookupEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsked(addrs("192.0.2.7"), "web.test", nil)
		near, far := memoryPipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			New(a.Config).serveConn(t.Context(), far)
		}()
		start := time.Now()
		send(t, near, greetNone+resolve("web.test"))
		if got, err := io.ReadAll(near); string(got) != choseNone+resolved4 || err != nil {
			t.Errorf("answer %q, %v", got, err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it ended after %v", took)
		}
		near.Close()
		<-done
	})
}

// A client that hangs up ends its lookup, as it does a dial.
func TestHangUpCancelsLookup(t *testing.T) {
	d := newDialing()
	cfg := Config{
		Resolve: func(ctx context.Context, r Request) ([]netip.Addr, error) {
			_, err := d.dial(ctx, r)
			return nil, err
		},
		ResolveAddr: func(ctx context.Context, r Request) (string, error) {
			_, err := d.dial(ctx, r)
			return "", err
		},
	}
	addr := serveTCP(t, cfg)
	for _, in := range []string{resolve("slow.test"), resolvePTR4} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		send(t, conn, greetNone+in)
		<-d.started
		conn.Close()
		if err := <-d.ended; !errors.Is(err, errHungUp) {
			t.Errorf("%q was ended by %v", in, err)
		}
	}
}

func TestPanicInLookup(t *testing.T) {
	log := newRecorder(slog.LevelInfo)
	cfg := Config{
		Log:     slog.New(log),
		Resolve: func(_ context.Context, r Request) ([]netip.Addr, error) { panic("for " + r.Target) },
	}
	if got, want := converse(t, cfg, greetNone+resolve("web.test")), choseNone+failed(1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if text := log.String(); !strings.Contains(text, "level=ERROR") || strings.Contains(text, "web.test") {
		t.Errorf("log: %s", text)
	}
}
