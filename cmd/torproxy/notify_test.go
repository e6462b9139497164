//go:build unix

package main

import (
	"log/slog"
	"net"
	"path/filepath"
	"testing"
)

// TestNotify plays the supervisor.
func TestNotify(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	log := slog.New(slog.DiscardHandler)
	t.Setenv("NOTIFY_SOCKET", "")
	notifySupervisor(log, notifyStopping) // goes nowhere
	t.Setenv("NOTIFY_SOCKET", socket)
	notifySupervisor(log, notifyReady)
	b := make([]byte, 64)
	n, err := conn.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("the supervisor is told %q, %v", b[:n], err)
	}
}

func TestUnitWord(t *testing.T) {
	for word, want := range map[string]string{
		"--count": "--count", "": `""`, "a b": `"a b"`, `50%`: `"50%%"`, `$HOME`: `"$$HOME"`, `a"b\c`: `"a\"b\\c"`,
		"accept *:80": `"accept *:80"`, "[2001:db8::1]:9001": "[2001:db8::1]:9001",
	} {
		if got := unitWord(word); got != want {
			t.Errorf("%q is written %s, want %s", word, got, want)
		}
	}
}
