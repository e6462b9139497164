package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// payload returns a whole payload that begins with these messages.
func payload(messages ...[]byte) []byte {
	return append(bytes.Join(messages, nil), make([]byte, PayloadSize-len(bytes.Join(messages, nil)))...)
}

func message(cmd Command, stream uint16, body string) []byte {
	return AppendMessage(nil, cmd, stream, []byte(body))
}

func TestMessages(t *testing.T) {
	want := []Message{
		{CmdBegin, 1, []byte("\x01example.com:80")},
		{CmdData, 0xffff, bytes.Repeat([]byte("x"), 1000)},
		{CmdFin, 3, []byte{}},
	}
	var b []byte
	for _, m := range want {
		b = AppendMessage(b, m.Command, m.Stream, m.Body)
	}
	rest := payload(b)
	for i, w := range want {
		m, r, err := NextMessage(rest)
		if err != nil || m.Command != w.Command || m.Stream != w.Stream || !bytes.Equal(m.Body, w.Body) {
			t.Fatalf("message %d: got %+v, %v; want %+v", i, m, err, w)
		}
		rest = r
	}
	if m, _, err := NextMessage(rest); err != nil || m.Command != CmdNone {
		t.Errorf("behind the last: %+v, %v", m, err)
	}
}

// TestMessageCut cuts a payload of one message at every place: none but the whole one is accepted.
func TestMessageCut(t *testing.T) {
	whole := message(CmdData, 7, "twenty bytes of body")
	for n := 1; n < len(whole); n++ {
		if _, _, err := NextMessage(whole[:n]); !errors.Is(err, ErrViolation) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	if _, rest, err := NextMessage(whole); err != nil || len(rest) != 0 {
		t.Errorf("whole: %v", err)
	}
}

func TestMessageViolations(t *testing.T) {
	late := payload()
	late[PayloadSize-1] = 1
	full := payload(message(CmdData, 1, strings.Repeat("x", MaxBody)))
	tooLong := bytes.Clone(full)
	binary.BigEndian.PutUint16(tooLong[3:], MaxBody+1)
	for name, b := range map[string][]byte{
		"bytes behind the end":    late,
		"one byte behind the end": {0, 1},
		"unknown command":         payload(message(CmdDrop+1, 0, "")),
		"command 255":             payload(message(255, 0, "")),
		"command 7, given up":     payload(message(7, 1, "example.org")),
		"command 8, given up":     payload(message(8, 1, "x")),
		"longer than its cell":    tooLong,
	} {
		if _, _, err := NextMessage(b); !errors.Is(err, ErrViolation) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if m, _, err := NextMessage(full); err != nil || len(m.Body) != MaxBody {
		t.Errorf("a message that fills its cell: %v", err)
	}
}

func TestPutHeader(t *testing.T) {
	b := make([]byte, HeaderSize)
	PutHeader(b, CmdWindow, 0x1234, 4)
	if want := []byte{6, 0x12, 0x34, 0, 4}; !bytes.Equal(b, want) {
		t.Errorf("got %x, want %x", b, want)
	}
}

func TestBodies(t *testing.T) {
	long := strings.Repeat("n", MaxTarget)
	for body, ok := range map[string]bool{
		"\x01a:1": true, "\x02[::1]:80": true, "\xffx": true, "\x01" + long: true,
		"": false, "\x01": false, "\x01a b:1": false, "\x01\x00:1": false, "\x01\x7f:1": false, "\x01é:1": false, "\x01" + long + "n": false,
	} {
		kind, target, err := ParseBegin([]byte(body))
		if (err == nil) != ok {
			t.Errorf("BEGIN %.20q: %v", body, err)
		}
		if err == nil && string(AppendBegin(nil, kind, target)) != body {
			t.Errorf("BEGIN %.20q became %q", body, AppendBegin(nil, kind, target))
		}
	}
	for body, want := range map[string]int{"\x00\x00\x00\x01": 1, "\x00\x40\x00\x00": MaxCredit, "\x00\x00\x00\x00": 0, "\x00\x40\x00\x01": 0, "\xff\xff\xff\xff": 0, "\x01": 0, "\x00\x00\x00\x00\x01": 0} {
		if n, err := ParseWindow([]byte(body)); n != want || (err == nil) != (want != 0) {
			t.Errorf("WINDOW %x: %d, %v", body, n, err)
		}
	}
	for r := 0; r < 256; r++ {
		got, err := ParseEnd([]byte{byte(r)})
		if valid := r >= 1 && r <= 12; (err == nil) != valid || valid && got != Reason(r) {
			t.Errorf("END %d: %v, %v", r, got, err)
		}
	}
	for body, want := range map[string]uint16{"\x12\x35": 0x1235, "": 0, "\x01": 0, "\x00\x01\x00": 0} {
		if got, err := ParsePush([]byte(body)); got != want || (err == nil) != (want != 0) {
			t.Errorf("PUSH %x: %d, %v", body, got, err)
		}
	}
	for _, body := range []string{"", "\x01\x01"} {
		if _, err := ParseEnd([]byte(body)); !errors.Is(err, ErrViolation) {
			t.Errorf("END of %d bytes: %v", len(body), err)
		}
	}
}

// TestNames checks that every code of the protocol has a name of its own, and codes outside the lists none.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	once := func(name string) {
		if name == "" || seen[name] {
			t.Errorf("the name %q is empty or used twice", name)
		}
		seen[name] = true
	}
	for c := CmdNone; c <= CmdDrop+1; c++ {
		once(c.String())
	}
	for k := Kind(0); k <= KindResolve+1; k++ {
		once(k.String())
	}
	for r := ReasonDone; r <= ReasonShutdown+1; r++ {
		once(r.String())
		if r.Valid() != (r <= ReasonShutdown) {
			t.Errorf("%v: valid %v", r, r.Valid())
		}
	}
	seen = map[string]bool{}
	for s := StatusForwarded; s <= StatusRefused+1; s++ {
		once(s.String())
		if s.Valid() != (s <= StatusRefused) {
			t.Errorf("%v: valid %v", s, s.Valid())
		}
	}
	if Status(0).Valid() || Reason(0).Valid() {
		t.Error("zero is valid")
	}
	for c, want := range map[ResetCode]ResetCode{0: 0, 1: 1, 2: 2, 3: 3, 4: 0, 1 << 61: 0} {
		if c.Known() != want {
			t.Errorf("reset code %d reads as %d, want %d", c, c.Known(), want)
		}
	}
}

func TestID(t *testing.T) {
	s := strings.Repeat("0123456789abcdef", 4)
	id, err := ParseID(s)
	if err != nil || id.String() != s || id.Short() != "01234567" || id.IsZero() {
		t.Errorf("%v, %v", id, err)
	}
	var again ID
	if text, _ := id.MarshalText(); again.UnmarshalText(text) != nil || again != id {
		t.Errorf("text %q became %v", text, again)
	}
	for _, bad := range []string{"", s[:62], s + "00", strings.ToUpper(s), s[:63] + "g"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// FuzzNextMessage reads any payload to its end; what was read encodes to the same bytes.
func FuzzNextMessage(f *testing.F) {
	f.Add(payload(message(CmdBegin, 1, "\x01a:80"), message(CmdData, 1, "hello")))
	f.Add(payload())
	f.Add([]byte{3, 0, 1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		for rest := b; ; {
			m, next, err := NextMessage(rest)
			if err != nil {
				if !errors.Is(err, ErrViolation) {
					t.Fatalf("%v is no violation", err)
				}
				return
			}
			if m.Command == CmdNone {
				break
			}
			again = AppendMessage(again, m.Command, m.Stream, m.Body)
			rest = next
		}
		if !bytes.HasPrefix(b, again) || !allZero(b[len(again):]) {
			t.Errorf("%x was read as %x", b, again)
		}
	})
}
