package onion

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"torproxy/wire"
)

// CREATED (SPEC.md section 3.3), in the order in which it happens:
//
//  3. Peeled.Answer    the hop where the packet ended, then each hop before it, puts its slot in front
//  4. Handshake.Finish the client reads the slots, first hop first (read), and rebuilds what it got from them
//                      (rebuild), so that no hop can have changed what later hops said

// answer is one slot of CREATED.
type answer struct {
	status   wire.Status
	reserved [7]byte
	y        [dhSize]byte
	auth     [authSize]byte
	back     [backSize]byte
}

// put writes the slot to b[0:answerSize].
func (a *answer) put(b []byte) {
	w := cryptobyte.NewFixedBuilder(b[:0:answerSize])
	w.AddUint8(uint8(a.status))
	w.AddBytes(a.reserved[:])
	w.AddBytes(a.y[:])
	w.AddBytes(a.auth[:])
	w.AddBytes(a.back[:])
	w.BytesOrPanic()
}

// parseAnswer reads b[0:answerSize]. Every byte string of that length is a slot: hop.verify checks its values.
func parseAnswer(b []byte) (a answer) {
	s := cryptobyte.String(b[:answerSize])
	if !s.ReadUint8((*uint8)(&a.status)) || !s.CopyBytes(a.reserved[:]) || !s.CopyBytes(a.y[:]) ||
		!s.CopyBytes(a.auth[:]) || !s.CopyBytes(a.back[:]) || !s.Empty() {
		panic("onion: answerSize is not the size of a slot")
	}
	return a
}

// fillPad fills b, of wire.CreatedSize bytes, with KS(pad): what came back at the hop where the packet ended.
func (f *firstPass) fillPad(b []byte) {
	clear(b)
	keystream(&f.pad).XORKeyStream(b, b)
}

// wrapAnswer turns b from what came back into what goes on: back binds the slot to all of b, the slot pushes out
// b's last 72 bytes, and the reply key hides the whole. The relay does it to answer, the client to rebuild.
func (f *firstPass) wrapAnswer(b []byte, a *answer, backKey *[32]byte) {
	h := hmac.New(sha256.New, backKey[:])
	h.Write(b)
	copy(a.back[:], h.Sum(nil))
	copy(b[answerSize:], b)
	a.put(b)
	keystream(&f.reply).XORKeyStream(b, b)
}

// Answer makes this relay's CREATED, of wire.CreatedSize bytes, exactly once: a second call is an error. came is
// the next hop's CREATED for wire.StatusForwarded, and nil for every other status. keys are the circuit's data
// keys for wire.StatusForwarded and wire.StatusReady, else nil. If Verdict is set, it is the only status allowed.
func (p *Peeled) Answer(status wire.Status, came []byte) (created []byte, keys *HopKeys, err error) {
	if err := p.mayAnswer(status, came); err != nil {
		return nil, nil, err
	}
	if p.answered.Swap(true) {
		return nil, nil, errors.New("onion: a second answer to one CREATE")
	}
	a := answer{status: status, y: p.y}
	second, err := newSecondPass(p.transcript, &a, p.dh, &p.first.chain)
	if err != nil {
		return nil, nil, err
	}
	auth, backKey, err := second.proofs()
	if err != nil {
		return nil, nil, err
	}
	a.auth = auth
	created = make([]byte, wire.CreatedSize)
	if status == wire.StatusForwarded {
		copy(created, came)
	} else {
		p.first.fillPad(created)
	}
	p.first.wrapAnswer(created, &a, &backKey)
	if status == wire.StatusForwarded || status == wire.StatusReady {
		if keys, err = second.hopKeys(); err != nil {
			return nil, nil, err
		}
	}
	*p.first = firstPass{}
	clear(p.dh)
	return created, keys, nil
}

// mayAnswer refuses what the caller must not say; each is a mistake of the relay, not of a peer.
func (p *Peeled) mayAnswer(status wire.Status, came []byte) error {
	forwarded := status == wire.StatusForwarded
	switch {
	case !status.Valid(),
		p.Verdict != 0 && status != p.Verdict,
		forwarded && p.Last,
		status == wire.StatusReady && !p.Last:
		return fmt.Errorf("onion: %q is no answer to this CREATE", status)
	case forwarded && len(came) != wire.CreatedSize, !forwarded && came != nil:
		return fmt.Errorf("onion: %d bytes of CREATED behind status %q", len(came), status)
	}
	return nil
}

// HopError is a circuit that a hop could not build, said by that hop and authenticated by its onion key.
type HopError struct {
	Hop    int // index into the path given to Create
	Status wire.Status
}

func (e *HopError) Error() string { return fmt.Sprintf("hop %d: %v", e.Hop+1, e.Status) }

// Finish reads the CREATED that answers the handshake's packet and returns the keys of all hops, first hop first,
// for NewClient. The error is a *HopError if a hop reported one, and wraps wire.ErrViolation if what came back is
// not what the protocol says. Either way the circuit is over. Finish may be called once.
func (h *Handshake) Finish(created []byte) ([]HopKeys, error) {
	if h.done.Swap(true) {
		return nil, errors.New("onion: a second CREATED for one CREATE")
	}
	if len(created) != wire.CreatedSize {
		return nil, wire.Violation("CREATED of %d bytes", len(created))
	}
	said, err := h.read(created)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(h.rebuild(said), created) != 1 {
		return nil, wire.Violation("CREATED was changed on its way back")
	}
	end := len(said) - 1
	if status := said[end].status; status != wire.StatusReady {
		return nil, &HopError{Hop: end, Status: status}
	}
	keys := make([]HopKeys, len(said))
	for i := range said {
		k, err := said[i].second.hopKeys()
		if err != nil {
			return nil, err
		}
		keys[i] = *k
	}
	return keys, nil
}

// verified is a slot whose auth was right, with its keys.
type verified struct {
	answer
	second *secondPass
	back   [32]byte // the key of back
}

// read takes off the reply keys one by one and verifies each slot, up to the hop where the packet ended.
func (h *Handshake) read(created []byte) (said []verified, err error) {
	in := append([]byte(nil), created...)
	last := len(h.hops) - 1
	for i := range h.hops {
		keystream(&h.hops[i].first.reply).XORKeyStream(in, in)
		v, err := h.hops[i].verify(parseAnswer(in))
		if err != nil {
			return nil, wire.Violation("CREATED, hop %d: %v", i+1, err)
		}
		said = append(said, v)
		switch {
		case v.status == wire.StatusForwarded && i < last:
			in = in[answerSize:]
		case v.status == wire.StatusReady && i == last,
			v.status > wire.StatusReady && v.status.Valid():
			return said, nil
		default:
			return nil, wire.Violation("CREATED, hop %d of %d says %q", i+1, last+1, v.status)
		}
	}
	panic("onion: unreachable: the last hop returns")
}

// verify checks one slot. Its status counts only once auth is right, though auth is computed with it.
func (p *hop) verify(a answer) (v verified, err error) {
	if a.reserved != [7]byte{} {
		return verified{}, errors.New("reserved bytes are not zero")
	}
	y, err := ecdh.X25519().NewPublicKey(a.y[:])
	if err != nil {
		return verified{}, err
	}
	dh, err := p.c.ECDH(y)
	if err != nil {
		return verified{}, errors.New("its X25519 share has low order")
	}
	th := newTranscript(p.id, p.digest, p.enc, p.tag[:], p.c.PublicKey().Bytes())
	v.answer = a
	if v.second, err = newSecondPass(th, &a, dh, &p.first.chain); err != nil {
		return verified{}, err
	}
	auth, backKey, err := v.second.proofs()
	if err != nil {
		return verified{}, err
	}
	v.back = backKey
	if subtle.ConstantTimeCompare(auth[:], a.auth[:]) != 1 {
		return verified{}, errors.New("auth is wrong")
	}
	return v, nil
}

// rebuild returns the CREATED that hops which said this must have sent. Without comparing it with what came, a hop
// could spoil the bytes that it does not know the meaning of, and learn from the circuit's fate how long the path is.
func (h *Handshake) rebuild(said []verified) []byte {
	b := make([]byte, wire.CreatedSize)
	end := len(said) - 1
	h.hops[end].first.fillPad(b)
	for i := end; i >= 0; i-- {
		h.hops[i].first.wrapAnswer(b, &said[i].answer, &said[i].back)
	}
	return b
}
