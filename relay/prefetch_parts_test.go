package relay

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"torproxy/relay/pagelinks"
)

func TestMayKeep(t *testing.T) {
	for head, want := range map[string]bool{
		"":                                   true,
		"Cache-Control: public, max-age=60":  true,
		"Cache-Control: max-age=0":           false,
		"Cache-Control: max-age=60\nAge: 60": false,
		"Cache-Control: max-age=60\nAge: 59": true,
		"Cache-Control: max-age=60\nAge: 99999999999999999": false,
		"Cache-Control: max-age=0, s-maxage=5":              true,
		"Cache-Control: s-maxage=0, max-age=5":              false,
		"Cache-Control: max-age=x":                          false,
		"Cache-Control: Private":                            false,
		"Cache-Control: no-store":                           false,
		"Cache-Control: no-cache=\"x\"":                     false,
		"Pragma: no-cache":                                  false,
		"Pragma: no-cache\nCache-Control: max-age=5":        true,
		"Set-Cookie: a=b":                                   false,
		"Vary: Accept, *":                                   false,
		"Vary: Accept":                                      true,
		"Expires: 0":                                        false,
		"Expires: Thu, 01 Jan 2026 00:00:09 GMT":            false,
		"Expires: Thu, 01 Jan 2026 00:00:09 GMT\nDate: Thu, 01 Jan 2026 00:00:00 GMT": true,
		"Expires: Thu, 01 Jan 2026 00:00:09 GMT\nDate: Thu, 01 Jan 2026 00:00:09 GMT": false,
	} {
		resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}}
		for line := range strings.SplitSeq(head, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			if name != "" {
				resp.Header.Add(name, value)
			}
		}
		if got := mayKeep(resp); got != want {
			t.Errorf("%q: %v", head, got)
		}
		resp.StatusCode = http.StatusFound
		if mayKeep(resp) {
			t.Errorf("%q: a redirect is pushed", head)
		}
	}
}

// TestAsker checks the fields by which browsers differ.
func TestAsker(t *testing.T) {
	page := mustParse(t, "http://Page.test:80/x")
	firefox := http.Header{"User-Agent": {"Mozilla/5.0 (X11; rv:153.0) Gecko/20100101 Firefox/153.0"}, "Accept": {"text/html,*/*;q=0.8"}}
	chromium := http.Header{"Accept": {"text/html,image/avif,image/webp,image/apng,*/*;q=0.8"}}
	for _, c := range []struct {
		name           string
		header         http.Header
		kind           pagelinks.Kind
		cors           bool
		url            string
		accept, origin string
	}{
		{"Firefox, image", firefox, pagelinks.Image, false, "http://page.test/a", "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", ""},
		{"Firefox, own font", firefox, pagelinks.Font, true, "http://page.test/a", "application/font-woff2;q=1.0,application/font-woff;q=0.9,*/*;q=0.8", ""},
		{"Firefox, script elsewhere", firefox, pagelinks.Script, true, "http://page.test:81/a", "*/*", "http://page.test"},
		{"Chromium, image", chromium, pagelinks.Image, false, "http://b.test/a", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", ""},
		{"Chromium, own font", chromium, pagelinks.Font, true, "http://page.test/a", "*/*", "http://page.test"},
		{"Chromium, sheet", chromium, pagelinks.Style, false, "http://page.test/a", "text/css,*/*;q=0.1", ""},
		{"another, image", http.Header{}, pagelinks.Image, false, "http://page.test/a", "*/*", ""},
	} {
		q := newAsker(c.header, page).request(pagelinks.Link{URL: mustParse(t, c.url), Kind: c.kind, CORS: c.cors})
		if q.header.Get("Accept") != c.accept || q.header.Get("Origin") != c.origin {
			t.Errorf("%s: %v", c.name, q.header)
		}
	}
}

// TestTurns lets those that wait go on by urgency, then in order.
func TestTurns(t *testing.T) {
	turns := turns{free: 1}
	turns.take(t.Context(), 0)
	queue := func(urgency, place int) chan struct{} {
		turns.waiting[urgency] = append(turns.waiting[urgency], make(chan struct{}))
		return turns.waiting[urgency][place]
	}
	late, first, second := queue(3, 0), queue(1, 0), queue(1, 1)
	for i, want := range []chan struct{}{first, second, late} {
		turns.leave()
		select {
		case <-want:
		default:
			t.Errorf("turn %d is another's", i)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if turns.take(gone, 2) || len(turns.waiting[2]) != 0 {
		t.Error("one who does not wait has a turn")
	}
	if turns.leave(); turns.free != 1 || !turns.take(t.Context(), 4) {
		t.Error("a turn was lost")
	}
}

// TestLook gives a body in pieces: each is read before it passes, and a broken body ends the reader.
func TestLook(t *testing.T) {
	broken := errors.New("broken")
	body := &script{pieces: []string{"one ", "two ", "three"}, end: broken}
	var seen strings.Builder
	var end error
	l := newLook(&http.Response{Body: body}, func(r io.Reader) { _, end = io.Copy(&seen, r) })
	afters := 0
	l.after = func() { afters++ }
	passed := ""
	buf := make([]byte, 100)
	for {
		n, err := l.Read(buf)
		passed += string(buf[:n])
		if seen.String() != passed {
			t.Errorf("passed %q, seen %q", passed, seen.String())
		}
		if err != nil {
			if !errors.Is(err, broken) || !errors.Is(end, io.ErrUnexpectedEOF) || afters != 3 {
				t.Errorf("%v, %v, %d", err, end, afters)
			}
			break
		}
	}
	l.stop()
}

// script is a body of pieces.
type script struct {
	pieces []string
	end    error
}

func (s *script) Close() error { return nil }

func (s *script) Read(b []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, s.end
	}
	n := copy(b, s.pieces[0])
	s.pieces = s.pieces[1:]
	return n, nil
}

func mustParse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
