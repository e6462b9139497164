package onion

import (
	"crypto/hpke"
	"crypto/sha256"
	"fmt"

	"torproxy/wire"
)

// PublicKeySize is the length of an onion key's public half: ML-KEM-768 1184 | X25519 32.
const PublicKeySize = 1216

// The HPKE suite of CREATE (SPEC.md section 3.1), in export-only mode: the first-pass keys come from its exporter.
var (
	kem  = hpke.MLKEM768X25519()
	kdf  = hpke.HKDFSHA256()
	aead = hpke.ExportOnly()
)

// PrivateKey is a relay's onion key. It is immutable and safe for concurrent use.
type PrivateKey struct {
	redacted
	key    hpke.PrivateKey
	seed   []byte
	public []byte
	digest [sha256.Size]byte
}

// GenerateKey makes a new onion key.
func GenerateKey() (*PrivateKey, error) {
	key, err := kem.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("onion: making an onion key: %w", err)
	}
	return newPrivateKey(key)
}

// ParsePrivateKey reads what PrivateKey.Bytes wrote. The error never holds the input.
func ParsePrivateKey(b []byte) (*PrivateKey, error) {
	key, err := kem.NewPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("onion: reading an onion key: %w", err)
	}
	return newPrivateKey(key)
}

func newPrivateKey(key hpke.PrivateKey) (*PrivateKey, error) {
	seed, err := key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("onion: serializing an onion key: %w", err)
	}
	public := key.PublicKey().Bytes()
	return &PrivateKey{key: key, seed: seed, public: public, digest: publicDigest(public)}, nil
}

// Bytes returns the secret to be kept on disk: the KEM's 32-byte seed. The caller owns the slice.
func (k *PrivateKey) Bytes() []byte { return append([]byte(nil), k.seed...) }

// Public returns the public half that a descriptor lists, PublicKeySize bytes. The caller owns the slice.
func (k *PrivateKey) Public() []byte { return append([]byte(nil), k.public...) }

// Digest returns the SHA-256 of the public half, the name of the key.
func (k *PrivateKey) Digest() [32]byte { return k.digest }

// publicDigest is the onion key digest of section 3.1: SHA-256 of the public half's bytes.
func publicDigest(public []byte) [sha256.Size]byte { return sha256.Sum256(public) }

// hpkeInfo binds a packet's keys to one relay and one of its onion keys:
// "torproxy/1 create" | relay ID | onion key digest.
func hpkeInfo(id wire.ID, digest [sha256.Size]byte) []byte {
	info := append([]byte("torproxy/1 create"), id[:]...)
	return append(info, digest[:]...)
}
