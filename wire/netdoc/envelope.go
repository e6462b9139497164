package netdoc

import (
	"crypto/ed25519"
	"fmt"
	"slices"

	"torproxy/wire"
)

// kind is one type of signed document.
type kind struct {
	name    string
	context string // what a signature covers besides the document: none serves for another type
	max     int    // bytes of the envelope
}

var (
	kindDescriptor  = kind{"descriptor", "torproxy/1 descriptor", MaxDescriptor}
	kindVote        = kind{"vote", "torproxy/1 vote", MaxVote}
	kindEcho        = kind{"echo", "torproxy/1 echo", MaxEcho}
	kindEndorsement = kind{"endorsement", "torproxy/1 endorsement", MaxEndorsement}
	kindConsensus   = kind{"consensus", "torproxy/1 consensus", MaxConsensus}
)

// message returns what is signed: context | 0x00 | document.
func (k kind) message(doc []byte) []byte {
	m := make([]byte, 0, len(k.context)+1+len(doc))
	m = append(m, k.context...)
	m = append(m, 0)
	return append(m, doc...)
}

// fail says which document was refused.
func (k kind) fail(err error) error { return fmt.Errorf("netdoc: %s: %w", k.name, err) }

// Signature is one signature of a document.
type Signature struct {
	Signer wire.ID                     `cbor:"1,keyasint"`
	Value  [ed25519.SignatureSize]byte `cbor:"2,keyasint"`
}

type envelope struct {
	Document   []byte      `cbor:"1,keyasint"`
	Signatures []Signature `cbor:"2,keyasint"`
}

// sign makes a signature of message, which kind.message returned.
func sign(message []byte, key ed25519.PrivateKey) Signature {
	s := Signature{Signer: wire.PublicID(key)}
	copy(s.Value[:], ed25519.Sign(key, message))
	return s
}

func (s *Signature) verify(message []byte) bool {
	return ed25519.Verify(s.Signer[:], message, s.Value[:])
}

// seal signs a document with one key and puts both into an envelope.
func (k kind) seal(doc []byte, key ed25519.PrivateKey) ([]byte, error) {
	raw := encode(&envelope{Document: doc, Signatures: []Signature{sign(k.message(doc), key)}})
	if len(raw) > k.max {
		return nil, k.fail(ErrTooLarge)
	}
	return raw, nil
}

// open reads an envelope. Its signatures ascend by signer, so that no one has signed twice; they are not
// verified yet.
func (k kind) open(raw []byte) (*envelope, error) {
	if len(raw) > k.max {
		return nil, ErrTooLarge
	}
	var e envelope
	if err := decode(shortLists, raw, &e); err != nil {
		return nil, err
	}
	ascend := func(a, b Signature) int { return CompareIDs(a.Signer, b.Signer) }
	if !ascending(e.Signatures, ascend) {
		return nil, fmt.Errorf("%w: signers out of order, or one twice", ErrSignature)
	}
	for i := range e.Signatures {
		if err := checkID(e.Signatures[i].Signer); err != nil {
			return nil, fmt.Errorf("%w: signer: %w", ErrSignature, err)
		}
	}
	return &e, nil
}

// openSigned reads an envelope with exactly one signature, by anyone of whom allowed is true (nil: by
// anyone), and verifies it.
func (k kind) openSigned(raw []byte, allowed func(wire.ID) bool) (doc []byte, signer wire.ID, err error) {
	e, err := k.open(raw)
	if err != nil {
		return nil, wire.ID{}, err
	}
	if len(e.Signatures) != 1 {
		return nil, wire.ID{}, fmt.Errorf("%w: %d signatures in place of one", ErrSignature, len(e.Signatures))
	}
	s := &e.Signatures[0]
	if allowed != nil && !allowed(s.Signer) {
		return nil, wire.ID{}, fmt.Errorf("%w: %s is no authority of this network", ErrSignature, s.Signer.Short())
	}
	if !s.verify(k.message(e.Document)) {
		return nil, wire.ID{}, fmt.Errorf("%w: not by %s", ErrSignature, s.Signer.Short())
	}
	return e.Document, s.Signer, nil
}

// SignConsensus signs a consensus document, as Consensus.Encode returned it.
func SignConsensus(doc []byte, key ed25519.PrivateKey) Signature {
	return sign(kindConsensus.message(doc), key)
}

// VerifyConsensus reports whether s is a valid signature of the consensus document doc by s.Signer. That
// the signer is an authority is for the caller to know.
func VerifyConsensus(doc []byte, s Signature) bool {
	return checkID(s.Signer) == nil && s.verify(kindConsensus.message(doc))
}

// SealConsensus puts a consensus document and its signatures, in any order, into an envelope. The caller
// has verified the signatures: one that is wrong spoils the envelope for all who read it.
func SealConsensus(doc []byte, sigs []Signature) []byte {
	sorted := slices.Clone(sigs)
	slices.SortFunc(sorted, func(a, b Signature) int { return CompareIDs(a.Signer, b.Signer) })
	return encode(&envelope{Document: doc, Signatures: sorted})
}
