package netdoc

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"torproxy/wire"
)

// Vote is what one authority says, for one round, of the relays it knows.
type Vote struct {
	Network    string
	Authority  wire.ID
	ValidAfter int64 // Unix milliseconds: names the round
	Published  int64 // Unix milliseconds
	Params     ConsensusParams
	Relays     []VoteEntry // ascending by ID

	raw    []byte
	digest Digest
}

// VoteEntry is one relay in a vote.
type VoteEntry struct {
	ID         wire.ID `cbor:"1,keyasint"`
	Descriptor Digest  `cbor:"2,keyasint"`
	Published  int64   `cbor:"3,keyasint"` // of the descriptor, Unix milliseconds: breaks ties
	Flags      Flags   `cbor:"4,keyasint"`
	Measured   uint64  `cbor:"5,keyasint"` // bytes per second; 0: not measured
}

type voteDoc struct {
	Version    uint64      `cbor:"1,keyasint"`
	Network    string      `cbor:"2,keyasint"`
	Authority  wire.ID     `cbor:"3,keyasint"`
	ValidAfter int64       `cbor:"4,keyasint"`
	Published  int64       `cbor:"5,keyasint"`
	Params     paramsDoc   `cbor:"6,keyasint"`
	Relays     []VoteEntry `cbor:"7,keyasint"`
}

// Sign checks the vote and returns its envelope, signed with the key of v.Authority. Equal votes give
// equal bytes, so that an authority that repeats its vote after a restart does not vote twice.
func (v *Vote) Sign(key ed25519.PrivateKey) ([]byte, error) {
	if err := first(v.check(), signedBy(key, v.Authority)); err != nil {
		return nil, kindVote.fail(err)
	}
	doc := encode(&voteDoc{
		Version:    Version,
		Network:    v.Network,
		Authority:  v.Authority,
		ValidAfter: v.ValidAfter,
		Published:  v.Published,
		Params:     v.Params.doc(),
		Relays:     v.Relays,
	})
	return kindVote.seal(doc, key)
}

// ParseVote reads a vote's envelope and verifies its signature, which is by an authority of n. It keeps
// raw, which the caller must not change afterwards.
func ParseVote(raw []byte, n *Network) (*Vote, error) {
	v, err := parseVote(raw, n)
	if err != nil {
		return nil, kindVote.fail(err)
	}
	return v, nil
}

func parseVote(raw []byte, n *Network) (*Vote, error) {
	doc, signer, err := kindVote.openSigned(raw, n.hasAuthority)
	if err != nil {
		return nil, err
	}
	var w voteDoc
	if err := decodeDocument(longLists, doc, &w); err != nil {
		return nil, err
	}
	if err := n.checkAuthored(w.Version, w.Network, w.Authority, signer); err != nil {
		return nil, err
	}
	params, err := w.Params.parse()
	if err != nil {
		return nil, field("parameters", err)
	}
	v := &Vote{
		Network: w.Network, Authority: w.Authority, ValidAfter: w.ValidAfter, Published: w.Published,
		Params: params, Relays: w.Relays,
		raw: raw, digest: DigestOf(raw),
	}
	return v, v.check()
}

// Raw returns the envelope that the vote was parsed from; the caller must not change it.
func (v *Vote) Raw() []byte { return v.raw }

// Digest returns the SHA-256 of Raw, by which echoes and the consensus name the vote.
func (v *Vote) Digest() Digest { return v.digest }

func (v *Vote) check() error {
	err := first(
		field("network", checkName(v.Network, MaxNetworkName)),
		field("authority", checkID(v.Authority)),
		field("valid-after", checkTime(v.ValidAfter)),
		field("published", checkTime(v.Published)),
		field("parameters", v.Params.check()),
	)
	if err != nil {
		return err
	}
	if len(v.Relays) > MaxRelays {
		return fmt.Errorf("relays: %d are more than %d", len(v.Relays), MaxRelays)
	}
	if !ascending(v.Relays, func(a, b VoteEntry) int { return CompareIDs(a.ID, b.ID) }) {
		return errors.New("relays: out of order, or one twice")
	}
	for i := range v.Relays {
		if err := v.Relays[i].check(); err != nil {
			return fmt.Errorf("relay %s: %w", v.Relays[i].ID.Short(), err)
		}
	}
	return nil
}

func (e *VoteEntry) check() error {
	return first(
		field("id", checkID(e.ID)),
		field("descriptor", checkDigest(e.Descriptor)),
		field("published", checkTime(e.Published)),
		field("flags", e.Flags.check()),
		field("measured", checkBandwidth(e.Measured)),
	)
}
