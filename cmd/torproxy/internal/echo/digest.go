package echo

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"unicode/utf8"
)

// HTTP Digest (RFC 7616) with SHA-256 and qop=auth, the server's side:
//
//	A1       = USER ":" REALM ":" PASSWORD
//	A2       = METHOD ":" URI
//	response = H(H(A1) ":" NONCE ":" NC ":" CNONCE ":auth:" H(A2))
//
// H is SHA-256 in lower-case hex. The password never travels; who reads along can only try passwords on the
// response, which a long random one makes hopeless.

const (
	realm   = "torproxy echo"
	maxUser = 128 // bytes of a user name
)

// Credential is a user name, and what the server must know of its password: H(A1), from which the password
// can only be guessed. The zero value opens nothing. It is safe to log: it prints as redacted.
type Credential struct {
	user [sha256.Size]byte // its hash: all comparisons take the same time
	ha1  string
}

// Errors of ParseCredential.
var (
	errNoColon  = errors.New("it is not USER:PASSWORD")
	errUserName = fmt.Errorf("the user name is not 1 to %d printable ASCII characters without quotes", maxUser)
	errPassword = errors.New("the password is empty, or not one line of text in UTF-8")
)

// ParseCredential reads USER:PASSWORD. Its errors do not show what it was given.
func ParseCredential(s string) (Credential, error) {
	user, password, ok := strings.Cut(s, ":")
	if !ok {
		return Credential{}, errNoColon
	}
	if user == "" || len(user) > maxUser || strings.Trim(user, printable) != "" {
		return Credential{}, errUserName
	}
	if password == "" || !utf8.ValidString(password) || strings.ContainsAny(password, "\x00\r\n") {
		return Credential{}, errPassword
	}
	return Credential{user: sha256.Sum256([]byte(user)), ha1: hash(user, realm, password)}, nil
}

// printable is what Trim takes away of a user name: one that consists of it is nothing afterwards.
const printable = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()*+,-./;<=>?@[]^_`{|}~ "

// String implements fmt.Stringer.
func (Credential) String() string { return "(redacted)" }

// GoString implements fmt.GoStringer.
func (Credential) GoString() string { return "(redacted)" }

// LogValue implements slog.LogValuer.
func (Credential) LogValue() slog.Value { return slog.StringValue("(redacted)") }

// hash is H of the parts with colons between them.
func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, ":")))
	return hex.EncodeToString(sum[:])
}

// response is what a client says in answer to a challenge.
type response struct {
	user, nonce, cnonce, uri string
	count                    uint32 // how often it has answered this challenge, this time included
	nc                       string // the same as it was sent
	proof                    [sha256.Size]byte
}

var (
	errScheme    = errors.New("only Digest is answered here: with Basic everybody on the way would read the password")
	errAlgorithm = errors.New("the answer is not by SHA-256 with qop=auth")
	errResponse  = errors.New("the answer lacks something or is out of shape")
)

// parseResponse reads an Authorization header.
func parseResponse(header string) (response, error) {
	scheme, rest, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Digest") {
		return response{}, errScheme
	}
	p, err := parseParams(rest)
	if err != nil {
		return response{}, err
	}
	if !strings.EqualFold(p["algorithm"], "SHA-256") || p["qop"] != "auth" {
		return response{}, errAlgorithm
	}
	r := response{user: p["username"], nonce: p["nonce"], cnonce: p["cnonce"], uri: p["uri"], nc: p["nc"]}
	count, err := strconv.ParseUint(r.nc, 16, 32)
	if err != nil || len(r.nc) != 8 || count == 0 {
		return response{}, errResponse
	}
	r.count = uint32(count)
	proof, err := hex.DecodeString(p["response"])
	if err != nil || len(proof) != len(r.proof) || r.user == "" || len(r.user) > maxUser || r.cnonce == "" || p["realm"] != realm || p["userhash"] == "true" {
		return response{}, errResponse
	}
	r.proof = [sha256.Size]byte(proof)
	return r, nil
}

// right reports whether the response is the one of who knows the password. It takes the same time whatever
// is wrong with it: a user name that does not exist, or the first byte.
func (c Credential) right(r response, method string) bool {
	user := sha256.Sum256([]byte(r.user))
	sum, _ := hex.DecodeString(hash(c.ha1, r.nonce, r.nc, r.cnonce, "auth", hash(method, r.uri)))
	same := subtle.ConstantTimeCompare(user[:], c.user[:]) & subtle.ConstantTimeCompare(sum, r.proof[:])
	return same == 1 && c.ha1 != ""
}

// challenge is the value of a WWW-Authenticate header. stale: the answer was right, but its challenge was
// too old or answered before; the client need not ask its user again.
func challenge(nonce string, stale bool) string {
	s := fmt.Sprintf(`Digest realm=%q, qop="auth", algorithm=SHA-256, nonce=%q, charset=UTF-8`, realm, nonce)
	if stale {
		s += ", stale=true"
	}
	return s
}
