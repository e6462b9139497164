// Package wire holds what two machines must agree on byte for byte: identities, the sizes of a cell and of
// the packets that build a circuit, the messages inside a cell, and every code with its number. SPEC.md
// beside this file is the protocol's text; section numbers in comments are its sections.
//
// A cell (section 4), both directions of a circuit's stream, after CREATE and CREATED:
//
//	0         16                                                1232
//	+---------+--------------------------------------------------+
//	| tag     | payload: messages, then zeros                    |
//	+---------+--------------------------------------------------+
//
// A message (section 4.1) in the payload of a cell:
//
//	0    1    3    5                       5+length
//	+----+----+----+------------------------+
//	| cmd| str| len| body                   |
//	+----+----+----+------------------------+
//
// The package is pure: no network, no clock, no logging.
package wire

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
)

// Version is the protocol version that descriptors announce (section 1).
const Version = 1

// ALPN is the application protocol of links that carry circuits. Directory requests use HTTP/3's "h3".
const ALPN = "torproxy/1"

// Sizes in bytes, and counts, that are the same for every circuit (sections 3 and 4).
const (
	MaxHops = 8 // longest path of a circuit

	CreateSize  = 9792 // a CREATE packet: enc 1120 | tag 32 | body 8640
	CreatedSize = 576  // a CREATED packet: eight slots of 72

	CellSize    = 1232 // one cell, tag included, which fits into one packet of any link; the same everywhere
	TagSize     = 16   // CGO's authenticator in front of each cell
	PayloadSize = CellSize - TagSize

	HeaderSize = 5                        // of a message: command 1, stream 2, length 2
	MaxBody    = PayloadSize - HeaderSize // longest body of a message

	MaxStreams    = 256       // streams open at once on one circuit that the client began
	MaxPushes     = 64        // and that the exit began
	InitialCredit = 256 << 10 // bytes each side of a new stream may send before a WINDOW
	MaxCredit     = 4 << 20   // bytes of credit outstanding at most; above it is a violation
)

// ID is the Ed25519 public key that names a relay or an authority. The zero ID names nobody.
type ID [ed25519.PublicKeySize]byte

// String returns the 64 lower-case hex digits that name the relay everywhere a person sees it.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first eight hex digits, for logs and tables.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether the ID names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText implements encoding.TextMarshaler with String's form.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it accepts only what MarshalText writes.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// ParseID reads 64 lower-case hex digits. It does not check that they are a point of the curve: a
// signature or a TLS handshake under the key does.
func ParseID(s string) (ID, error) {
	var id ID
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(id) {
		return ID{}, fmt.Errorf("wire: %.80q is not a relay ID (64 hex digits)", s)
	}
	copy(id[:], raw)
	if id.String() != s {
		return ID{}, fmt.Errorf("wire: relay ID %.80q is not in lower case", s)
	}
	return id, nil
}

// PublicID returns the ID of an Ed25519 private key.
func PublicID(key ed25519.PrivateKey) ID {
	return ID(key.Public().(ed25519.PublicKey))
}

// ErrViolation is what every breach of the protocol by a peer wraps: the circuit on which it happened is
// destroyed, and nothing of it reaches an application.
var ErrViolation = errors.New("protocol violation")

// Violation returns an error that wraps ErrViolation and says what was breached. The text is for the
// local log; it never crosses the network.
func Violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrViolation, fmt.Sprintf(format, args...))
}
