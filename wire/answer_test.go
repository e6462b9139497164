package wire

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func addrAnswer(s string, ttl time.Duration) Answer {
	return Answer{Addr: netip.MustParseAddr(s), TTL: ttl}
}

// TestAnswers writes answers and reads them again: what may not be sent is left out, the rest is clipped.
func TestAnswers(t *testing.T) {
	sent := []Answer{
		addrAnswer("192.0.2.1", 5*time.Minute),
		addrAnswer("2001:db8::1", time.Second),
		addrAnswer("fe80::1%eth0", 24*time.Hour),
		addrAnswer("::ffff:192.0.2.2", 90*time.Second+time.Second/2),
		{Name: "host_1.example.", TTL: -time.Second},
		{Name: "spa ce.example", TTL: time.Hour},
		{Name: "."},
		{Name: strings.Repeat("n", 254)},
		{TTL: time.Hour},
		{Name: strings.Repeat("n", 253), TTL: time.Hour},
	}
	want := []Answer{
		addrAnswer("192.0.2.1", 5*time.Minute),
		addrAnswer("2001:db8::1", MinTTL),
		addrAnswer("fe80::1", MaxTTL),
		addrAnswer("192.0.2.2", 90*time.Second),
		{Name: "host_1.example", TTL: MinTTL},
		{Name: strings.Repeat("n", 253), TTL: MaxTTL},
	}
	b := AppendAnswers([]byte("before"), sent)
	got, err := ParseAnswers(bytes.TrimPrefix(b, []byte("before")))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v\nwant %v", got, err, want)
	}
	if first := AppendAnswers(nil, sent[:1]); !bytes.Equal(first, []byte{4, 0, 0, 1, 44, 4, 192, 0, 2, 1}) {
		t.Errorf("the first is %x", first)
	}
}

// TestAnswersBound fills a stream with the longest answers.
func TestAnswersBound(t *testing.T) {
	var sent []Answer
	for i := range MaxAnswers + 1 {
		sent = append(sent, Answer{Name: fmt.Sprintf("%03d%s", i, strings.Repeat("x", maxName-3)), TTL: MinTTL})
	}
	b := AppendAnswers(nil, sent)
	got, err := ParseAnswers(b)
	if err != nil || !slices.Equal(got, sent[:MaxAnswers]) || len(b) != MaxAnswersSize {
		t.Errorf("%d answers in %d bytes, %v", len(got), len(b), err)
	}
	if _, err := ParseAnswers(append(b, AppendAnswers(nil, sent[:1])...)); err == nil {
		t.Error("one answer too many was accepted")
	}
}

func TestAnswersRefused(t *testing.T) {
	whole := AppendAnswers(nil, []Answer{{Name: "example", TTL: MinTTL}})
	for n := range whole {
		if _, err := ParseAnswers(whole[:n]); err == nil {
			t.Errorf("cut at %d: accepted", n)
		}
	}
	for name, b := range map[string]string{
		"unknown type":         "\x01\x00\x00\x00\x3c\x04abcd",
		"IPv4 of 16 bytes":     "\x04\x00\x00\x00\x3c\x10" + strings.Repeat("a", 16),
		"IPv6 of 4 bytes":      "\x06\x00\x00\x00\x3c\x04abcd",
		"IPv4-mapped IPv6":     "\x06\x00\x00\x00\x3c\x10" + strings.Repeat("\x00", 10) + "\xff\xff\x01\x02\x03\x04",
		"address of no bytes":  "\x04\x00\x00\x00\x3c\x00",
		"name of no bytes":     "\x0c\x00\x00\x00\x3c\x00",
		"name with a dot":      "\x0c\x00\x00\x00\x3c\x02a.",
		"name of a dot":        "\x0c\x00\x00\x00\x3c\x01.",
		"name with an escape":  "\x0c\x00\x00\x00\x3c\x03a\x1bb",
		"name outside ASCII":   "\x0c\x00\x00\x00\x3c\x03a\xc3\xb6",
		"name with a colon":    "\x0c\x00\x00\x00\x3c\x03a:1",
		"TTL too short":        "\x04\x00\x00\x00\x3b\x04abcd",
		"TTL too long":         "\x04\x00\x00\x07\x09\x04abcd",
		"TTL of 136 years":     "\x04\xff\xff\xff\xff\x04abcd",
		"bytes behind the end": string(whole) + "\x04",
	} {
		if _, err := ParseAnswers([]byte(b)); err == nil || errors.Is(err, ErrViolation) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParseAnswers checks that what is accepted is what would be sent, and is safe to show.
func FuzzParseAnswers(f *testing.F) {
	f.Add(AppendAnswers(nil, []Answer{addrAnswer("192.0.2.1", MinTTL), addrAnswer("2001:db8::1", MaxTTL), {Name: "a.example"}}))
	f.Add([]byte{12, 0, 0, 0, 60, 2, 'a', 27})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		answers, err := ParseAnswers(b)
		if err != nil {
			return
		}
		if again := AppendAnswers(nil, answers); !bytes.Equal(again, b) || len(b) > MaxAnswersSize {
			t.Errorf("%x was read as %v, which is %x", b, answers, again)
		}
		for _, a := range answers {
			if a.Addr.IsValid() == (a.Name != "") || strings.ContainsAny(a.Name, " \x1b\n\x00") {
				t.Errorf("%x was read as %+v", b, a)
			}
		}
	})
}
