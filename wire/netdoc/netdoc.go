// Package netdoc holds the documents of a network: the network file, descriptors, votes, echoes,
// endorsements and the consensus, with the exit policies inside them. It signs and verifies them and
// refuses, when reading, whatever writing would not produce.
//
// DOCUMENTS.md beside this file gives every key number, type and bound. On the wire, all but the network
// file:
//
//	{1: document bytes, 2: [{1: signer, 2: signature}, ...]}     signature over context | 0x00 | document
//
// A document that was parsed is immutable: it is read by many goroutines, and its bytes are passed on as
// they came. Times inside documents are Unix milliseconds.
//
// The package is pure: no network, no clock, no logging.
package netdoc

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"torproxy/wire"
)

// Version is the version of every document and of the network file.
const Version = 1

// Bounds of documents, in bytes of their envelopes, and of a difference between two consensuses.
const (
	MaxNetworkFile = 1 << 20
	MaxDescriptor  = 64 << 10
	MaxVote        = 16 << 20
	MaxEcho        = 64 << 10
	MaxEndorsement = 64 << 10
	MaxConsensus   = 64 << 20
	MaxDifference  = 16 << 20
)

// Bounds of what stands in documents.
const (
	MaxAuthorities = 32
	MaxRelays      = 20000
	MaxAddresses   = 8
	MaxOnionKeys   = 2
	MaxFamily      = 32
	MaxNickname    = 19
	MaxNetworkName = 64
	MaxSoftware    = 64
	MaxProtocols   = 16
	MaxBandwidth   = 1 << 40 // bytes per second; a sum over MaxRelays stays far below 2^63
	MaxPolicyRules = 64
	MaxPolicyText  = 4096 // bytes of a policy's canonical form
)

// Causes that a caller may want to tell apart; every other refusal is only a sentence.
var (
	// ErrTooLarge is a document of more bytes than its bound.
	ErrTooLarge = errors.New("document too large")
	// ErrEncoding is anything but the one deterministic encoding of a document.
	ErrEncoding = errors.New("not the deterministic encoding")
	// ErrVersion is a document of a version that this program does not know.
	ErrVersion = errors.New("unknown document version")
	// ErrSignature is a signature that is missing, wrong, or not by whom it should be.
	ErrSignature = errors.New("bad signature")
	// ErrNetwork is a document of another network.
	ErrNetwork = errors.New("document of another network")
)

// Digest is the SHA-256 that names a document.
type Digest [sha256.Size]byte

// DigestOf returns the digest of bytes.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads 64 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(d) {
		return Digest{}, fmt.Errorf("netdoc: %.80q is not a digest (64 hex digits)", s)
	}
	copy(d[:], raw)
	if d.String() != s {
		return Digest{}, fmt.Errorf("netdoc: digest %.80q is not in lower case", s)
	}
	return d, nil
}

// String returns 64 lower-case hex digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether the digest names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// Compare orders digests by their bytes, as ties are broken.
func (d Digest) Compare(e Digest) int { return bytes.Compare(d[:], e[:]) }

// MarshalText implements encoding.TextMarshaler with String's form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it accepts only what MarshalText writes.
func (d *Digest) UnmarshalText(text []byte) error {
	parsed, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// CompareIDs orders IDs by their bytes, the order of every list in a document.
func CompareIDs(a, b wire.ID) int { return bytes.Compare(a[:], b[:]) }

// signedBy reports whether key belongs to id, as an error that names neither.
func signedBy(key ed25519.PrivateKey, id wire.ID) error {
	if len(key) != ed25519.PrivateKeySize {
		return fmt.Errorf("%w: no private key", ErrSignature)
	}
	if wire.PublicID(key) != id {
		return fmt.Errorf("%w: the key is not that of %s", ErrSignature, id.Short())
	}
	return nil
}
