package frontdoor

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strings"
)

// isolation turns a request's Proxy-Authorization into an isolation key: equal credentials give equal keys
// for as long as the process lives, and the key tells nothing of them. No header, or one with empty user
// and password, is "". The user name comes with it, for Dial. Whatever is not Basic is refused rather than ignored: the requests of somebody who
// wanted to be kept apart must not end up with everybody else's.
func (d *door) isolation(r *http.Request) (key, user string, fail *failure) {
	values := r.Header.Values("Proxy-Authorization")
	if len(values) == 0 {
		return "", "", nil
	}
	basic := http.Request{Header: http.Header{"Authorization": values}}
	user, password, ok := basic.BasicAuth()
	if !ok || len(values) > 1 {
		return "", "", badCredentials
	}
	if user == "" && password == "" {
		return "", "", nil
	}
	return isolationKey(d.key, user, password), user, nil
}

// isolationKey is HMAC-SHA256 under the process's key, cut to 128 bits: nobody who sees it can try
// passwords on it.
func isolationKey(key [32]byte, user, password string) string {
	mac := hmac.New(sha256.New, key[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(user)))) // ("a", "bc") is not ("ab", "c")
	mac.Write([]byte(user))
	mac.Write([]byte(password))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

var badCredentials = &failure{
	status: http.StatusProxyAuthRequired, kind: "http_request_denied",
	what:   "the proxy does not understand this Proxy-Authorization",
	cause:  "torproxy takes one header of the kind Basic; any user name and password will do, each pair gets circuits of its own",
	advice: "curl: -x http://NAME:PASSWORD@HOST:PORT, or no name at all",
}

// badUser is the answer to a user name that Dial did not understand.
func badUser(err error) *failure {
	return &failure{
		status: http.StatusProxyAuthRequired, kind: "http_request_denied",
		what:   "the user name for the proxy is not usable",
		cause:  plain(strings.TrimPrefix(err.Error(), ErrUser.Error()+": ")),
		advice: "correct it, or leave the part away that begins with +",
	}
}
