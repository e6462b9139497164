package echo

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"sync"
	"time"
)

// A nonce carries its own proof, so that challenges which nobody answers cost no memory:
//
//	time 8 | random 16 | HMAC-SHA256 of both, cut to 16        base64url
//
// Only a right answer makes the server remember a nonce, with the counts that it was answered with: each
// counts once, so that an answer that was read on the way is of no use to the reader.

const (
	nonceLife  = 5 * time.Minute
	nonceSize  = 8 + 16 + 16
	maxNonces  = 1024 // remembered; when there are more, the oldest and all older ones count as expired
	windowSize = 64   // counts below the highest that may still come: browsers answer in parallel
)

// nonces makes and checks nonces. Its methods may be called concurrently.
type nonces struct {
	key [32]byte

	mu   sync.Mutex
	used map[string]*window
	from time.Time // nonces made before are expired, though not old
}

// window is which counts a nonce was answered with.
type window struct {
	made    time.Time
	highest uint32
	seen    uint64 // bit i: highest-i
}

func newNonces(key [32]byte) *nonces {
	return &nonces{key: key, used: map[string]*window{}}
}

// issue makes a nonce.
func (n *nonces) issue(now time.Time) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, nonceSize), uint64(now.UnixNano()))
	b = b[:8+16]
	rand.Read(b[8:])
	return base64.RawURLEncoding.EncodeToString(append(b, n.proof(b)...))
}

func (n *nonces) proof(b []byte) []byte {
	mac := hmac.New(sha256.New, n.key[:])
	mac.Write(b)
	return mac.Sum(nil)[:16]
}

// made is when a nonce was made; false: not here.
func (n *nonces) made(nonce string) (time.Time, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(b) != nonceSize || !hmac.Equal(n.proof(b[:24]), b[24:]) {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(b))), true
}

// use takes a right answer in: true if the nonce was made here, lately, and not used with this count.
func (n *nonces) use(nonce string, count uint32, now time.Time) bool {
	made, ok := n.made(nonce)
	if !ok || made.After(now) || now.Sub(made) > nonceLife {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if made.Before(n.from) {
		return false
	}
	w := n.used[nonce]
	if w == nil {
		n.makeRoom(now)
		w = &window{made: made}
		n.used[nonce] = w
	}
	return w.use(count)
}

// makeRoom forgets expired nonces, and the oldest if that is not enough: it is then made to expire.
func (n *nonces) makeRoom(now time.Time) {
	if len(n.used) < maxNonces {
		return
	}
	oldest := ""
	for nonce, w := range n.used {
		if now.Sub(w.made) > nonceLife {
			delete(n.used, nonce)
		} else if oldest == "" || w.made.Before(n.used[oldest].made) {
			oldest = nonce
		}
	}
	if len(n.used) >= maxNonces {
		n.from = n.used[oldest].made.Add(1)
		delete(n.used, oldest)
	}
}

// use notes a count; false: it was there before, or is so low that nobody knows.
func (w *window) use(count uint32) bool {
	if count > w.highest {
		w.seen = w.seen<<(count-w.highest) | 1 // shifts of 64 and more leave nothing
		w.highest = count
		return true
	}
	bit := uint64(1) << (w.highest - count) // 0 if that is 64 or more
	if bit == 0 || w.seen&bit != 0 {
		return false
	}
	w.seen |= bit
	return true
}
