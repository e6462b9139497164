package echo

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/icholy/digest"
)

// The example of RFC 7616 section 3.9.1.
func TestVector(t *testing.T) {
	ha1 := hash("Mufasa", "http-auth@example.org", "Circle of Life")
	got := hash(ha1, "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "00000001", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", "auth", hash("GET", "/dir/index.html"))
	if got != "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1" {
		t.Errorf("got %s", got)
	}
}

func TestParseCredential(t *testing.T) {
	for _, good := range []string{"ann:pw", "a b@c:p:w", "ann:пароль"} {
		if c, err := ParseCredential(good); err != nil || c.ha1 == "" {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "ann", ":pw", "ann:", "an\"n:pw", "an\\n:pw", "änn:pw", "ann:p\nw", "ann:\xff", strings.Repeat("a", maxUser+1) + ":pw"} {
		if _, err := ParseCredential(bad); err == nil {
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: the error shows it: %v", bad, err)
		}
	}
	c, _ := ParseCredential("ann:pw")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", c)
	for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s", c, c, c, c), log.String()} {
		if strings.Contains(text, c.ha1) || !strings.Contains(text, "redacted") {
			t.Errorf("it prints as %s", text)
		}
	}
}

// login is a client that knows a password, or thinks so.
type login struct {
	t              *testing.T
	server         http.Handler
	user, password string
	chal           *digest.Challenge
	count          int
}

// challenged asks without an answer and keeps the challenge.
func (l *login) challenged() *login {
	l.t.Helper()
	answer, _ := ask(l.server, "GET", "http://echo.test/secret", "")
	if answer.StatusCode != http.StatusUnauthorized {
		l.t.Fatalf("without a password: %s", answer.Status)
	}
	l.take(answer)
	return l
}

func (l *login) take(answer *http.Response) {
	l.t.Helper()
	chal, err := digest.FindChallenge(answer.Header)
	if err != nil {
		l.t.Fatalf("no challenge: %v in %v", err, answer.Header)
	}
	if l.chal != nil && l.chal.Nonce == chal.Nonce {
		l.t.Error("the same challenge twice")
	}
	l.chal, l.count = chal, 0
}

// header is the next answer to the challenge.
func (l *login) header() string {
	l.count++
	cred, err := digest.Digest(l.chal, digest.Options{Method: "GET", URI: "/secret", Username: l.user, Password: l.password, Count: l.count})
	if err != nil {
		l.t.Fatal(err)
	}
	return cred.String()
}

// send sends an Authorization header and returns the status; a new challenge is kept.
func (l *login) send(header string) int {
	l.t.Helper()
	answer, text := ask(l.server, "GET", "http://echo.test/secret", "", "Authorization", header)
	if answer.StatusCode == http.StatusUnauthorized {
		l.take(answer)
	} else if ok := strings.Contains(text, "You know the password"); ok != (answer.StatusCode == 200) {
		l.t.Errorf("%s with %q", answer.Status, text)
	}
	return answer.StatusCode
}

func TestSecret(t *testing.T) {
	s, log := newServer(t)
	ann := (&login{t: t, server: s, user: "ann", password: secret}).challenged()
	if c := ann.chal; c.Algorithm != "SHA-256" || !c.SupportsQOP("auth") || len(c.QOP) != 1 || c.Stale || c.Charset != "UTF-8" {
		t.Errorf("challenge %+v", c)
	}
	for i := range 3 {
		if status := ann.send(ann.header()); status != 200 {
			t.Errorf("answer %d: %d", i, status)
		}
	}
	again := ann.header()
	if a, b := ann.send(again), ann.send(again); a != 200 || b != 401 || !ann.chal.Stale {
		t.Errorf("an answer and the same again: %d, %d, stale %v", a, b, ann.chal.Stale)
	}
	if status := ann.send(ann.header()); status != 200 {
		t.Errorf("after a stale one: %d", status)
	}
	for name, l := range map[string]*login{
		"wrong password": {user: "ann", password: "guess"},
		"wrong user":     {user: "ben", password: secret},
	} {
		l.t, l.server = t, s
		l.challenged()
		if status := l.send(l.header()); status != 401 || l.chal.Stale {
			t.Errorf("%s: %d, stale %v", name, status, l.chal.Stale)
		}
	}
	if text := log.String(); strings.Contains(text, "ann") || strings.Contains(text, "horse") || strings.Contains(text, "Digest") {
		t.Errorf("the log tells:\n%s", text)
	}
}

// Answers that are not one to this request or this server, though the password is right.
func TestSecretRefuses(t *testing.T) {
	s, _ := newServer(t)
	param := func(name, value string) func(string) string {
		like := regexp.MustCompile(name + `="?[^",]*"?`)
		return func(h string) string { return like.ReplaceAllLiteralString(h, value) }
	}
	for name, c := range map[string]struct {
		change func(string) string
		status int
	}{
		"unchanged":            {func(h string) string { return h }, 200},
		"lower-case scheme":    {func(h string) string { return strings.Replace(h, "Digest", "digest", 1) }, 200},
		"Basic":                {func(string) string { return "Basic YW5uOnB3" }, 401},
		"nothing":              {func(string) string { return "Digest " }, 400},
		"garbage":              {func(string) string { return "Digest \x01=" }, 400},
		"MD5":                  {param("algorithm", "algorithm=MD5"), 400},
		"no algorithm":         {param("algorithm", "x=y"), 400},
		"auth-int":             {param("qop", "qop=auth-int"), 400},
		"another page":         {param("uri", `uri="/other"`), 400},
		"no cnonce":            {param("cnonce", `x="y"`), 400},
		"another realm":        {param("realm", `realm="elsewhere"`), 400},
		"count 0":              {param("nc", "nc=00000000"), 400},
		"short count":          {param("nc", "nc=1"), 400},
		"a count ahead":        {param("nc", "nc=00000002"), 401},
		"a response too short": {param("response", `response="00"`), 400},
		"a wrong response":     {param("response", `response="`+strings.Repeat("0", 64)+`"`), 401},
		"twice":                {func(h string) string { return h + ", nc=00000001" }, 400},
		"hashed user name":     {func(h string) string { return h + ", userhash=true" }, 400},
	} {
		ann := (&login{t: t, server: s, user: "ann", password: secret}).challenged()
		if status := ann.send(c.change(ann.header())); status != c.status {
			t.Errorf("%s: %d, want %d", name, status, c.status)
		}
	}
	ann := (&login{t: t, server: s, user: "ann", password: secret}).challenged()
	answer, _ := ask(s, "POST", "http://echo.test/secret", "", "Authorization", ann.header())
	if answer.StatusCode != 401 {
		t.Errorf("with another method: %s", answer.Status)
	}
	two, _ := ask(s, "GET", "http://echo.test/secret", "", "Authorization", ann.header(), "Authorization", ann.header())
	if two.StatusCode != 400 {
		t.Errorf("two headers: %s", two.Status)
	}
}

// A challenge holds for five minutes. One that another server made never does, and its answer is known to
// be right all the same: the client is told that it need not ask its user.
func TestSecretStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(t)
		other, _ := newServer(t)
		ann := (&login{t: t, server: s, user: "ann", password: secret}).challenged()
		pass(nonceLife)
		if status := ann.send(ann.header()); status != 200 {
			t.Errorf("in time: %d", status)
		}
		pass(time.Nanosecond)
		if status := ann.send(ann.header()); status != 401 || !ann.chal.Stale {
			t.Errorf("too late: %d, stale %v", status, ann.chal.Stale)
		}
		foreign := (&login{t: t, server: other, user: "ann", password: secret}).challenged()
		foreign.server = s
		if status := foreign.send(foreign.header()); status != 401 || !foreign.chal.Stale {
			t.Errorf("another's challenge: %d, stale %v", status, foreign.chal.Stale)
		}
	})
}

// From the tenth wrong answer in a minute on each waits six seconds for its turn, right ones too; other
// names wait for nothing.
func TestSecretSlowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(t)
		guess := (&login{t: t, server: s, user: "ann", password: "guess"}).challenged()
		began := time.Now()
		for i := range 12 {
			if status := guess.send(guess.header()); status != 401 {
				t.Fatalf("guess %d: %d", i, status)
			}
			want := time.Duration(max(0, i-wrongFree+1)) * wrongEvery
			if took := time.Since(began); took != want {
				t.Errorf("guess %d was answered after %v, want %v", i, took, want)
			}
		}
		began = time.Now()
		ben := (&login{t: t, server: s, user: "ben", password: "guess"}).challenged()
		if status := ben.send(ben.header()); status != 401 || time.Since(began) != 0 {
			t.Errorf("another name: %d after %v", status, time.Since(began))
		}
		ann := (&login{t: t, server: s, user: "ann", password: secret}).challenged()
		if status := ann.send(ann.header()); status != 200 || time.Since(began) != wrongEvery {
			t.Errorf("the right password: %d after %v", status, time.Since(began))
		}
		for range 100 { // right ones count for nothing
			ann.challenged()
			if status := ann.send(ann.header()); status != 200 {
				t.Fatalf("the right password: %d", status)
			}
		}
		pass(time.Hour)
		began = time.Now()
		if status := guess.challenged().send(guess.header()); status != 401 || time.Since(began) != 0 {
			t.Errorf("an hour later: %d after %v", status, time.Since(began))
		}
	})
}

// Many guesses at a time do not get more turns: five wait, which is half a minute, and the others are turned
// away with the time to come back at.
func TestSecretTurnsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(t)
		const guesses = 30
		header := (&login{t: t, server: s, user: "ann", password: "guess"}).challenged().header()
		count := make(chan [2]int, guesses)
		for range guesses {
			go func() {
				answer, _ := ask(s, "GET", "http://echo.test/secret", "", "Authorization", header)
				wait := 0
				fmt.Sscan(answer.Header.Get("Retry-After"), &wait)
				count <- [2]int{answer.StatusCode, wait}
			}()
		}
		statuses := map[int]int{}
		for range guesses {
			got := <-count
			statuses[got[0]]++
			if (got[0] == 429) != (got[1] == 36) {
				t.Errorf("status %d with Retry-After %d", got[0], got[1])
			}
		}
		if statuses[401] != wrongFree+5 || statuses[429] != guesses-wrongFree-5 {
			t.Errorf("statuses %v", statuses)
		}
	})
}
