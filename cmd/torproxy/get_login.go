package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/icholy/digest"
)

const (
	maxPasswords = 3 // that are asked for
	maxStale     = 3 // challenges that were too old when they were answered, in a row
)

// login answers a site's challenges. The password is kept until the command ends, and never shown.
type login struct {
	user string
	ask  *passphrases
	say  *output

	password []byte // nil: not asked for yet
	tries    int    // passwords so far
	stale    int
	answers  *challenge // is answered by the next request; nil: there is none
	answered bool       // the last request had an answer
}

// challenge is one that is answered here.
type challenge struct {
	digest *digest.Challenge // nil: Basic
}

// challengeOf finds a challenge that may be answered: Digest by SHA-256 or SHA-512-256 anywhere; over https,
// where only the site sees the answer, also Digest by MD5, and Basic.
func challengeOf(h http.Header, secure bool) *challenge {
	for _, value := range h.Values("WWW-Authenticate") {
		scheme, _, _ := strings.Cut(value, " ")
		if strings.EqualFold(scheme, "Basic") && secure {
			return &challenge{}
		}
		c, err := digest.ParseChallenge(value)
		if err != nil || !digest.CanDigest(c) {
			continue
		}
		strong := strings.EqualFold(c.Algorithm, "SHA-256") || strings.EqualFold(c.Algorithm, "SHA-512-256")
		if secure || strong && c.SupportsQOP("auth") {
			return &challenge{digest: c}
		}
	}
	return nil
}

// challenged takes a challenge; true: the next request answers it.
func (l *login) challenged(u *url.URL, answer *http.Response) (again bool, err error) {
	c := challengeOf(answer.Header, u.Scheme == "https")
	if c == nil {
		return false, &failure{
			code: codeStatus, what: fmt.Sprintf("%s wants the password in a form that the exit could read or guess", u.Host),
			cause: "it offers no Digest with SHA-256; Basic and older forms are answered over https:// only", advice: "ask for it by https://, if the site has that",
		}
	}
	wrong := l.answered
	if wrong && c.digest != nil && c.digest.Stale && l.stale < maxStale {
		l.stale++
		wrong = false
	}
	if l.password == nil || wrong {
		if err := l.next(u, wrong); err != nil {
			return false, err
		}
	}
	l.answers = c
	return true, nil
}

// next gets a password, the first or another one.
func (l *login) next(u *url.URL, wrong bool) error {
	refused := &failure{code: codeStatus, what: fmt.Sprintf("%s does not let %s in: the user name or the password is wrong", u.Host, printable(l.user))}
	if wrong && (l.ask.file != "" || l.tries == maxPasswords) {
		return refused
	}
	if wrong {
		fmt.Fprintln(l.say.stderr, "That was wrong; try again.")
	}
	l.tries++
	l.stale = 0
	var err error
	if l.password, err = l.ask.answer(fmt.Sprintf("Password of %s at %s: ", printable(l.user), u.Host)); err != nil {
		return &failure{code: codeFailed, err: err, what: fmt.Sprintf("there is no password for %s: %v", u.Host, err)}
	}
	return nil
}

// authorization is the Authorization header of the next request to u; "" is none.
func (l *login) authorization(u *url.URL) string {
	c := l.answers
	l.answers, l.answered = nil, c != nil
	switch {
	case c == nil:
		return ""
	case c.digest == nil:
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(l.user+":"+string(l.password)))
	}
	credentials, err := digest.Digest(c.digest, digest.Options{
		Method: http.MethodGet, URI: u.RequestURI(), Username: l.user, Password: string(l.password), Count: 1,
	})
	if err != nil {
		return ""
	}
	return credentials.String()
}
