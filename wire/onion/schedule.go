package onion

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"

	"torproxy/wire"
)

// KeySize is the key material of one hop in one direction, KB 16 | KU 16 | K 16 | B 16 | N 16 (SPEC.md section 4).
const KeySize = 80

// HopKeys are the data keys that the client and one hop share once a circuit stands. Forward is for outward
// cells, Backward for inward ones. They go to NewLayer at the relay and to NewClient at the client.
type HopKeys struct {
	redacted
	Forward, Backward [KeySize]byte
}

// firstPass holds the keys of one hop that both sides know from CREATE alone (SPEC.md section 3.1).
type firstPass struct {
	mac    [32]byte // authenticates the body
	stream [32]byte // encrypts the body
	reply  [32]byte // encrypts CREATED
	pad    [32]byte // fills CREATED behind the hop where the packet ended
	chain  [32]byte // salts the second pass
}

// exporter is the side of an HPKE context that both hpke.Sender and hpke.Recipient have.
type exporter interface {
	Export(exporterContext string, length int) ([]byte, error)
}

func newFirstPass(ctx exporter) (*firstPass, error) {
	f := new(firstPass)
	for _, k := range []struct {
		label string
		to    *[32]byte
	}{
		{"torproxy/1 mac", &f.mac},
		{"torproxy/1 stream", &f.stream},
		{"torproxy/1 reply", &f.reply},
		{"torproxy/1 pad", &f.pad},
		{"torproxy/1 chain", &f.chain},
	} {
		secret, err := ctx.Export(k.label, len(k.to))
		if err != nil {
			return nil, fmt.Errorf("onion: exporting %q: %w", k.label, err)
		}
		copy(k.to[:], secret)
	}
	return f, nil
}

// seal returns HMAC-SHA256(mac, body), CREATE's tag.
func (f *firstPass) seal(body []byte) (tag [macSize]byte) {
	h := hmac.New(sha256.New, f.mac[:])
	h.Write(body)
	h.Sum(tag[:0])
	return tag
}

// keystream is KS(key, n): AES-128-CTR under key[0:16] from the counter block key[16:32]. A key serves for one
// packet only, so the stream always starts at its beginning.
func keystream(key *[32]byte) cipher.Stream {
	return cipher.NewCTR(newAES(key[:16]), key[16:])
}

// newAES returns AES-128. The key is 16 bytes by construction, which is all that aes.NewCipher complains about.
func newAES(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("onion: " + err.Error())
	}
	return block
}

// newTranscript starts th with what is known once CREATE is: the label, the relay, its onion key, the packet's
// enc and tag, and C. secondPass adds the answer.
func newTranscript(id wire.ID, digest [sha256.Size]byte, enc, tag, c []byte) hash.Hash {
	th := sha256.New()
	th.Write([]byte("torproxy/1 transcript"))
	th.Write(id[:])
	th.Write(digest[:])
	th.Write(enc)
	th.Write(tag)
	th.Write(c)
	return th
}

// secondPass holds what one hop's answer settles: prk and th (SPEC.md section 3.1).
type secondPass struct {
	prk []byte
	th  string
}

// newSecondPass finishes the transcript with the answer's Y, status and reserved bytes, and mixes X25519(c, Y)
// into the first pass. dh is not all zero: crypto/ecdh has refused that.
func newSecondPass(transcript hash.Hash, a *answer, dh []byte, chain *[32]byte) (*secondPass, error) {
	transcript.Write(a.y[:])
	transcript.Write([]byte{byte(a.status)})
	transcript.Write(a.reserved[:])
	prk, err := hkdf.Extract(sha256.New, dh, chain[:])
	if err != nil {
		return nil, fmt.Errorf("onion: extracting: %w", err)
	}
	return &secondPass{prk: prk, th: string(transcript.Sum(nil))}, nil
}

// expand fills out with HKDF-Expand(prk, label | th, len(out)).
func (s *secondPass) expand(label string, out []byte) error {
	okm, err := hkdf.Expand(sha256.New, s.prk, label+s.th, len(out))
	if err != nil {
		return fmt.Errorf("onion: expanding %q: %w", label, err)
	}
	copy(out, okm)
	return nil
}

// proofs returns auth, by which the hop shows that it holds the onion key and agrees on the transcript, and the
// key of back, which binds its slot to everything behind it.
func (s *secondPass) proofs() (auth [authSize]byte, back [32]byte, err error) {
	if err = s.expand("torproxy/1 auth", auth[:]); err == nil {
		err = s.expand("torproxy/1 back", back[:])
	}
	return auth, back, err
}

// hopKeys returns the data keys of both directions.
func (s *secondPass) hopKeys() (*HopKeys, error) {
	k := new(HopKeys)
	if err := s.expand("torproxy/1 forward", k.Forward[:]); err != nil {
		return nil, err
	}
	if err := s.expand("torproxy/1 backward", k.Backward[:]); err != nil {
		return nil, err
	}
	return k, nil
}
