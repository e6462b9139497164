package echo

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
)

// secret serves /secret.
func (s *Server) secret(w http.ResponseWriter, r *http.Request) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		s.challenge(w, r, false, "this page is behind a password")
		return
	}
	answer, err := parseResponse(headers[0])
	switch {
	case err == errScheme:
		s.challenge(w, r, false, err.Error())
		return
	case err != nil:
		s.refuse(w, r, http.StatusBadRequest, err.Error())
		return
	case len(headers) > 1 || answer.uri != r.RequestURI: // RFC 7616 section 3.4.6
		s.refuse(w, r, http.StatusBadRequest, "the answer is one for another request")
		return
	}
	if after, ok := s.brake.wait(r.Context(), answer.user, s.now()); !ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
		s.refuse(w, r, http.StatusTooManyRequests, "too many wrong answers for this user name")
		return
	}
	if !s.key.right(answer, r.Method) {
		s.challenge(w, r, false, "wrong user name or password")
		return
	}
	s.brake.forgive(answer.user, s.now())
	if !s.nonces.use(answer.nonce, answer.count, s.now()) {
		s.challenge(w, r, true, "the challenge is too old, or was answered before: answer this one")
		return
	}
	s.show(w, r, http.StatusOK, view{
		Title: "The secret",
		Says: []string{
			"You know the password: this is the page behind it.",
			fmt.Sprintf("The password itself was not sent, only a proof made from it and a challenge; it was answer %d to that challenge.", answer.count),
		},
	})
}

// challenge asks for proof, with a challenge that nobody has had before.
func (s *Server) challenge(w http.ResponseWriter, r *http.Request, stale bool, why string) {
	w.Header().Set("WWW-Authenticate", challenge(s.nonces.issue(s.now()), stale))
	s.refuse(w, r, http.StatusUnauthorized, why)
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, why string) {
	s.show(w, r, status, view{Title: http.StatusText(status), Says: []string{why + "."}})
}
