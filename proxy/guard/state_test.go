package guard

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// saved returns the state of a client with confirmed, unlisted and fresh guards.
func saved(t testing.TB) []byte {
	l := newLife(t, 1, 60)
	for range 20 {
		l.day()
	}
	delete(l.w.relays, numberOf(l.w.s.sample[7].id))
	l.w.sleep(time.Hour)
	l.w.update()
	return l.w.s.Encode()
}

func TestParse(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	good := string(saved(t))
	s, err := Parse([]byte(good), "test", rnd)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(s.Encode()); got != good || !strings.Contains(good, "confirmed") || !strings.Contains(good, "unlisted") {
		t.Errorf("read and written again:\n%s\nbefore:\n%s", got, good)
	}
	first := s.sample[0].id.String()
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, data := range map[string]string{
		"nothing":         "",
		"no object":       "[]",
		"cut short":       good[:len(good)-2],
		"no end of line":  strings.TrimSpace(good),
		"more after it":   good + "{}",
		"other spaces":    replace("  ", "   "),
		"unknown field":   replace(`"guards"`, `"guard": 1, "guards"`),
		"field twice":     replace(`"guards"`, `"network": "test", "guards"`),
		"field's case":    replace(`"guards"`, `"Guards"`),
		"guard twice":     replace(s.sample[1].id.String(), first),
		"no guard":        replace(first, strings.Repeat("0", 64)),
		"upper case":      replace(first, strings.ToUpper(first[:60])+"ABCD"),
		"date with parts": replace(":00:00Z", ":00:01Z"),
		"date of old":     replace("2026-", "1926-"),
		"far date":        replace("2026-", "9926-"),
		"other zone":      replace(":00:00Z", ":00:00+00:00"),
		"rank missing":    replace(",\n      \"rank\": 1", ""),
		"rank twice":      replace(`"rank": 2`, `"rank": 1`),
		"rank left out":   replace(`"rank": 1`, `"rank": 57`),
		"negative rank":   replace(`"rank": 1`, `"rank": -1`),
		"too large":       good + strings.Repeat(" ", MaxState),
		"null":            replace(good[strings.Index(good, "["):], "null\n}\n"),
		"too many guards": strings.Replace(string(New("test", rnd).Encode()), "[]", "["+strings.TrimSuffix(strings.Repeat(`{"id":"`+first+`"},`, 61), ",")+"]", 1),
	} {
		if data == good {
			t.Errorf("%s: the test changes nothing", name)
		}
		if _, err := Parse([]byte(data), "test", rnd); err == nil || errors.Is(err, ErrVersion) || errors.Is(err, ErrNetwork) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse([]byte(good), "other", rnd); !errors.Is(err, ErrNetwork) {
		t.Errorf("another network: %v", err)
	}
	if _, err := Parse([]byte(replace(`"version": 1`, `"version": 2`)), "test", rnd); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
	if _, err := Parse([]byte(`{"version": 2, "new": true}`), "test", rnd); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
}

// FuzzState reads anything: what is taken is written again as it was, and a client can go on with it.
func FuzzState(f *testing.F) {
	f.Add(saved(f))
	f.Add(New("test", nil).Encode())
	f.Add([]byte(`{"version":1,"network":"test","guards":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(t, 1, 30)
		s, err := Parse(data, "test", w.rnd)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Encode(), data) {
			t.Fatalf("%q is written as %q", data, s.Encode())
		}
		w.s = s
		w.update()
		w.check()
		w.mustDial()
	})
}
