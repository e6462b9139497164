package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"torproxy/wire"
)

func TestReplyCodes(t *testing.T) {
	tests := []struct {
		err  error
		code byte
	}{
		{&wire.EndError{Reason: wire.ReasonDone}, 1},
		{&wire.EndError{Reason: wire.ReasonRefused, Remote: true}, 5},
		{&wire.EndError{Reason: wire.ReasonHostUnreachable}, 4},
		{&wire.EndError{Reason: wire.ReasonNetUnreachable, Remote: true}, 3},
		{&wire.EndError{Reason: wire.ReasonTimeout, Remote: true}, 4},
		{&wire.EndError{Reason: wire.ReasonTimeout}, 1}, // the exit has not answered
		{&wire.EndError{Reason: wire.ReasonDNS, Remote: true}, 4},
		{&wire.EndError{Reason: wire.ReasonPolicy}, 2},
		{&wire.EndError{Reason: wire.ReasonReset}, 1},
		{&wire.EndError{Reason: wire.ReasonResourceLimit}, 1},
		{&wire.EndError{Reason: wire.ReasonUnsupported}, 1},
		{&wire.EndError{Reason: wire.ReasonInternal}, 1},
		{&wire.EndError{Reason: wire.ReasonShutdown}, 1},
		{&wire.EndError{Reason: 200}, 1},
		{fmt.Errorf("hop 5: %w", &wire.EndError{Reason: wire.ReasonPolicy}), 2},
		{errors.Join(io.EOF, fmt.Errorf("x: %w", &wire.EndError{Reason: wire.ReasonRefused})), 5},
		// go-socks5 judges these by their text.
		{errors.New("refused to be found"), 1},
		{errors.New("network is unreachable"), 1},
		{syscall.ECONNREFUSED, 1},
		{context.DeadlineExceeded, 1},
		{context.Canceled, 1},
		{io.EOF, 1},
	}
	for _, tt := range tests {
		t.Run(tt.err.Error(), func(t *testing.T) {
			cfg := Config{Dial: func(context.Context, Request) (net.Conn, error) { return nil, tt.err }}
			want := choseNone + failed(tt.code)
			if got := converse(t, cfg, greetNone+connect("web.test", 80)); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// Every reason must have been thought of.
func TestReplyCodesAreComplete(t *testing.T) {
	want := map[wire.Reason]byte{wire.ReasonRefused: 5, wire.ReasonDNS: 4, wire.ReasonHostUnreachable: 4,
		wire.ReasonTimeout: 4, wire.ReasonNetUnreachable: 3, wire.ReasonPolicy: 2}
	for i := range 256 {
		reason := wire.Reason(i)
		code, ok := want[reason]
		if !ok {
			code = 1
		}
		if got := replyCode(&wire.EndError{Reason: reason, Remote: true}); got != code {
			t.Errorf("%v: reply %d, want %d", reason, got, code)
		}
	}
}

func TestDialWithoutResult(t *testing.T) {
	cfg := Config{Dial: func(context.Context, Request) (net.Conn, error) { return nil, nil }}
	if got, want := converse(t, cfg, greetNone+connect("a", 1)), choseNone+failed(1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The answer must reach a client that has already sent more than was read: closing at once would reset it.
func TestReplyBeforeUnreadData(t *testing.T) {
	refuse := func(context.Context, Request) (net.Conn, error) {
		return nil, &wire.EndError{Reason: wire.ReasonRefused}
	}
	addr := serveTCP(t, Config{Dial: refuse})
	more := strings.Repeat("x", 100<<10)
	for _, tt := range []struct{ in, out string }{
		{greetNone + connect("a", 1) + more, choseNone + failed(5)},
		{greetNone + connect("", 1) + more, choseNone + failed(1)},
		{"\x05\x01\x09" + more, "\x05\xff"},
		{"\x04\x01" + more, socks4Rejected},
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		send(t, conn, tt.in)
		out, err := io.ReadAll(conn)
		if string(out) != tt.out || err != nil {
			t.Errorf("%q: got %q (%v), want %q", tt.in[:10], out, err, tt.out)
		}
		conn.Close()
	}
}
