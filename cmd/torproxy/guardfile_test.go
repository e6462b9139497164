package main

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"torproxy/cmd/torproxy/internal/state"
	"torproxy/proxy"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// TestGuardFile checks that guards come back from their file and go there, for their owner alone; and that a
// file of no use is put aside and told of.
func TestGuardFile(t *testing.T) {
	const kept = "{\n  \"version\": 1,\n  \"network\": \"test\",\n  \"guards\": []\n}\n"
	for name, test := range map[string]struct {
		file  string // "": there is none
		taken bool
	}{
		"none":             {"", false},
		"kept":             {kept, true},
		"another network":  {strings.Replace(kept, "test", "other", 1), false},
		"another version":  {strings.Replace(kept, "1", "2", 1), false},
		"damaged":          {kept[:len(kept)/2], false},
		"larger than ever": {strings.Repeat(kept, 2000), false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestProxy(t)
			dir, err := state.Open(filepath.Join(t.TempDir(), "data"))
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			var log bytes.Buffer
			f := newGuardFile(dir, slog.New(slog.NewTextHandler(&log, nil)))
			if test.file != "" {
				if err := os.WriteFile(f.path, []byte(test.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.load(p); err != nil {
				t.Errorf("load: %v", err)
			}
			if taken := p.GuardState() != nil; taken != test.taken {
				t.Errorf("taken: %v, want %v; %s", taken, test.taken, &log)
			}
			aside, _ := os.ReadFile(f.old)
			if useless := test.file != "" && !test.taken; useless != (string(aside) == test.file && test.file != "") || useless != (log.Len() > 0) {
				t.Errorf("put aside: %d bytes of %d; log: %s", len(aside), len(test.file), &log)
			}
			f.saved = nil
			f.save(p)
			if !test.taken {
				return
			}
			if got, err := os.ReadFile(f.path); err != nil || string(got) != kept {
				t.Errorf("saved %q, %v", got, err)
			}
			if info, err := os.Stat(f.path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
				t.Errorf("the file is %v, %v", info.Mode(), err)
			}
		})
	}
}

// TestGuardFileUnreadable checks that guards which cannot be read stay where they are, and that the client does
// not start without them.
func TestGuardFileUnreadable(t *testing.T) {
	dir, err := state.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c := &cache{dir: dir, log: slog.New(slog.DiscardHandler)}
	c.guards = newGuardFile(dir, c.log)
	if err := os.Mkdir(c.guards.path, 0o700); err != nil { // it opens, and cannot be read
		t.Fatal(err)
	}
	p := newTestProxy(t)
	f, ok := errors.AsType[*failure](c.load(p))
	if !ok || f.code != codeState || p.GuardState() != nil {
		t.Errorf("load: %+v", f)
	}
	if _, err := os.Stat(c.guards.path); err != nil {
		t.Errorf("the guards are gone: %v", err)
	}
	if _, err := os.Stat(c.guards.old); err == nil {
		t.Error("they were put aside")
	}
}

// newTestProxy returns a proxy of a network called test that is never run.
func newTestProxy(t *testing.T) *proxy.Proxy {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p, err := proxy.New(proxy.Config{Network: &netdoc.Network{
		Version: netdoc.Version, Name: "test",
		Authorities: []netdoc.Authority{{Nickname: "nobody", ID: wire.ID{1}, Addresses: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}},
	}, Conn: conn})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
