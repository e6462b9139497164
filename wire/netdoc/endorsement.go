package netdoc

import (
	"crypto/ed25519"

	"torproxy/wire"
)

// Endorsement carries one authority's signature of a consensus to the others.
type Endorsement struct {
	Network    string
	Authority  wire.ID
	ValidAfter int64  // Unix milliseconds: names the round
	Consensus  Digest // of the consensus document
	Value      [ed25519.SignatureSize]byte

	raw    []byte
	digest Digest
}

type endorsementDoc struct {
	Version    uint64                      `cbor:"1,keyasint"`
	Network    string                      `cbor:"2,keyasint"`
	Authority  wire.ID                     `cbor:"3,keyasint"`
	ValidAfter int64                       `cbor:"4,keyasint"`
	Consensus  Digest                      `cbor:"5,keyasint"`
	Value      [ed25519.SignatureSize]byte `cbor:"6,keyasint"`
}

// Signature returns the signature of the consensus. Whoever holds the consensus verifies it with
// VerifyConsensus: only the endorsement's own signature was checked when it was parsed.
func (e *Endorsement) Signature() Signature { return Signature{Signer: e.Authority, Value: e.Value} }

// Sign checks the endorsement and returns its envelope, signed with the key of e.Authority.
func (e *Endorsement) Sign(key ed25519.PrivateKey) ([]byte, error) {
	if err := first(e.check(), signedBy(key, e.Authority)); err != nil {
		return nil, kindEndorsement.fail(err)
	}
	doc := encode(&endorsementDoc{
		Version:    Version,
		Network:    e.Network,
		Authority:  e.Authority,
		ValidAfter: e.ValidAfter,
		Consensus:  e.Consensus,
		Value:      e.Value,
	})
	return kindEndorsement.seal(doc, key)
}

// ParseEndorsement reads an endorsement's envelope and verifies its signature, which is by an authority
// of n. It keeps raw, which the caller must not change afterwards.
func ParseEndorsement(raw []byte, n *Network) (*Endorsement, error) {
	e, err := parseEndorsement(raw, n)
	if err != nil {
		return nil, kindEndorsement.fail(err)
	}
	return e, nil
}

func parseEndorsement(raw []byte, n *Network) (*Endorsement, error) {
	doc, signer, err := kindEndorsement.openSigned(raw, n.hasAuthority)
	if err != nil {
		return nil, err
	}
	var w endorsementDoc
	if err := decodeDocument(shortLists, doc, &w); err != nil {
		return nil, err
	}
	if err := n.checkAuthored(w.Version, w.Network, w.Authority, signer); err != nil {
		return nil, err
	}
	e := &Endorsement{
		Network: w.Network, Authority: w.Authority, ValidAfter: w.ValidAfter, Consensus: w.Consensus,
		Value: w.Value,
		raw:   raw, digest: DigestOf(raw),
	}
	return e, e.check()
}

// Raw returns the envelope that the endorsement was parsed from; the caller must not change it.
func (e *Endorsement) Raw() []byte { return e.raw }

// Digest returns the SHA-256 of Raw.
func (e *Endorsement) Digest() Digest { return e.digest }

func (e *Endorsement) check() error {
	return first(
		field("network", checkName(e.Network, MaxNetworkName)),
		field("authority", checkID(e.Authority)),
		field("valid-after", checkTime(e.ValidAfter)),
		field("consensus", checkDigest(e.Consensus)),
	)
}
