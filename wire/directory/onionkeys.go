package directory

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"torproxy/wire/netdoc"
)

// Onion keys are fetched apart from the list that names them (section 5 of SPEC.md):
//
//	request   digest 32, ...       1 to keysPerRequest
//	answer    public key 1216, ... those that the server has, in the order asked

// keysPerRequest bounds one request: 8 KiB for at most 304 KiB.
const keysPerRequest = 256

const digestSize = len(netdoc.Digest{})

// appendKeyRequest writes the digests, at most keysPerRequest.
func appendKeyRequest(b []byte, digests []netdoc.Digest) []byte {
	for _, d := range digests {
		b = append(b, d[:]...)
	}
	return b
}

func parseKeyRequest(b []byte) ([]netdoc.Digest, error) {
	n := len(b) / digestSize
	if len(b)%digestSize != 0 || n < 1 || n > keysPerRequest {
		return nil, fmt.Errorf("directory: a request of %d bytes is not 1 to %d digests", len(b), keysPerRequest)
	}
	digests := make([]netdoc.Digest, n)
	seen := make(map[netdoc.Digest]struct{}, n)
	for i := range digests {
		copy(digests[i][:], b[i*digestSize:])
		seen[digests[i]] = struct{}{}
	}
	if len(seen) != n {
		return nil, errors.New("directory: one digest twice")
	}
	return digests, nil
}

// KeysHandler serves onion keys at KeysPath. key returns the public key of a digest, nil if it is not held.
func KeysHandler(key func(netdoc.Digest) []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", "POST")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		body, ok := ReadBody(w, r)
		if !ok {
			return
		}
		digests, err := parseKeyRequest(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		keys := make([][]byte, 0, len(digests))
		for _, d := range digests {
			if k := key(d); k != nil {
				keys = append(keys, k)
			}
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(keys)*netdoc.OnionKeySize))
		for _, k := range keys {
			if _, err := w.Write(k); err != nil {
				return
			}
		}
	})
}

// keyStore holds onion keys by their digests. It is safe for concurrent use. What it holds is bounded by the
// consensuses given to retain, and by what is put between two of these calls.
type keyStore struct {
	mu   sync.RWMutex
	keys map[netdoc.Digest][]byte
}

// key returns a public key, nil if it is not held. It must not be changed.
func (s *keyStore) key(d netdoc.Digest) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.keys[d]
}

// put keeps a public key if it has that digest, and reports whether it has.
func (s *keyStore) put(d netdoc.Digest, public []byte) bool {
	if len(public) != netdoc.OnionKeySize || netdoc.DigestOf(public) != d {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = map[netdoc.Digest][]byte{}
	}
	s.keys[d] = public
	return true
}

// takeAnswer keeps those keys of an answer that were asked for, and returns how many. They are copied: one
// that is kept for a day must not hold the answer that it came in.
func (s *keyStore) takeAnswer(asked []netdoc.Digest, answer []byte) int {
	wanted := make(map[netdoc.Digest]struct{}, len(asked))
	for _, d := range asked {
		wanted[d] = struct{}{}
	}
	taken := 0
	for ; len(answer) >= netdoc.OnionKeySize; answer = answer[netdoc.OnionKeySize:] {
		public := answer[:netdoc.OnionKeySize]
		d := netdoc.DigestOf(public)
		if _, ok := wanted[d]; ok && s.put(d, append([]byte(nil), public...)) {
			delete(wanted, d)
			taken++
		}
	}
	return taken
}

// missing returns the digests that a consensus names and that are not held, in its order, each once.
func (s *keyStore) missing(c *netdoc.Consensus) []netdoc.Digest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var missing []netdoc.Digest
	seen := map[netdoc.Digest]struct{}{}
	for i := range c.Relays {
		d := c.Relays[i].Key.Digest
		if _, twice := seen[d]; s.keys[d] == nil && !twice {
			seen[d] = struct{}{}
			missing = append(missing, d)
		}
	}
	return missing
}

// retain forgets the keys that none of these consensuses names; nil ones name none.
func (s *keyStore) retain(consensuses ...*netdoc.Consensus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := map[netdoc.Digest][]byte{}
	for _, c := range consensuses {
		if c == nil {
			continue
		}
		for i := range c.Relays {
			d := c.Relays[i].Key.Digest
			if k := s.keys[d]; k != nil {
				kept[d] = k
			}
		}
	}
	s.keys = kept
}
