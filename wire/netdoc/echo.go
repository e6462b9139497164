package netdoc

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"

	"torproxy/wire"
)

// VoteRef names one vote.
type VoteRef struct {
	Authority wire.ID `cbor:"1,keyasint"`
	Digest    Digest  `cbor:"2,keyasint"`
}

// CompareVoteRefs orders references by authority, then by digest, as documents list them.
func CompareVoteRefs(a, b VoteRef) int {
	return cmp.Or(CompareIDs(a.Authority, b.Authority), a.Digest.Compare(b.Digest))
}

// Echo is the list of the votes that one authority holds for a round. It names two votes of one
// authority when that authority has voted twice.
type Echo struct {
	Network    string
	Authority  wire.ID
	ValidAfter int64     // Unix milliseconds: names the round
	Votes      []VoteRef // ascending, at most two of one authority

	raw    []byte
	digest Digest
}

type echoDoc struct {
	Version    uint64    `cbor:"1,keyasint"`
	Network    string    `cbor:"2,keyasint"`
	Authority  wire.ID   `cbor:"3,keyasint"`
	ValidAfter int64     `cbor:"4,keyasint"`
	Votes      []VoteRef `cbor:"5,keyasint"`
}

// Sign checks the echo and returns its envelope, signed with the key of e.Authority.
func (e *Echo) Sign(key ed25519.PrivateKey) ([]byte, error) {
	if err := first(e.check(), signedBy(key, e.Authority)); err != nil {
		return nil, kindEcho.fail(err)
	}
	doc := encode(&echoDoc{
		Version:    Version,
		Network:    e.Network,
		Authority:  e.Authority,
		ValidAfter: e.ValidAfter,
		Votes:      e.Votes,
	})
	return kindEcho.seal(doc, key)
}

// ParseEcho reads an echo's envelope and verifies its signature, which is by an authority of n; the votes
// that it names are by authorities of n too. It keeps raw, which the caller must not change afterwards.
func ParseEcho(raw []byte, n *Network) (*Echo, error) {
	e, err := parseEcho(raw, n)
	if err != nil {
		return nil, kindEcho.fail(err)
	}
	return e, nil
}

func parseEcho(raw []byte, n *Network) (*Echo, error) {
	doc, signer, err := kindEcho.openSigned(raw, n.hasAuthority)
	if err != nil {
		return nil, err
	}
	var w echoDoc
	if err := decodeDocument(shortLists, doc, &w); err != nil {
		return nil, err
	}
	if err := n.checkAuthored(w.Version, w.Network, w.Authority, signer); err != nil {
		return nil, err
	}
	e := &Echo{
		Network: w.Network, Authority: w.Authority, ValidAfter: w.ValidAfter, Votes: w.Votes,
		raw: raw, digest: DigestOf(raw),
	}
	return e, first(e.check(), field("votes", n.checkVoters(e.Votes)))
}

// Raw returns the envelope that the echo was parsed from; the caller must not change it.
func (e *Echo) Raw() []byte { return e.raw }

// Digest returns the SHA-256 of Raw.
func (e *Echo) Digest() Digest { return e.digest }

func (e *Echo) check() error {
	return first(
		field("network", checkName(e.Network, MaxNetworkName)),
		field("authority", checkID(e.Authority)),
		field("valid-after", checkTime(e.ValidAfter)),
		field("votes", checkVoteRefs(e.Votes, 2)),
	)
}

// checkVoteRefs wants ascending references, at most each of one authority.
func checkVoteRefs(votes []VoteRef, each int) error {
	if len(votes) > each*MaxAuthorities {
		return fmt.Errorf("%d are more than %d", len(votes), each*MaxAuthorities)
	}
	if !ascending(votes, CompareVoteRefs) {
		return errors.New("out of order, or one twice")
	}
	for i, v := range votes {
		if err := first(checkID(v.Authority), checkDigest(v.Digest)); err != nil {
			return err
		}
		if i >= each && votes[i-each].Authority == v.Authority {
			return fmt.Errorf("more than %d of one authority", each)
		}
	}
	return nil
}

func checkDigest(d Digest) error {
	if d.IsZero() {
		return errors.New("the zero digest")
	}
	return nil
}
