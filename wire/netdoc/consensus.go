package netdoc

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/fxamacker/cbor/v2"

	"torproxy/wire"
)

// ClockSkew is how far before a consensus' valid-after a clock may be: clocks differ, and a
// consensus is served from its valid-after on.
const ClockSkew = 30 * time.Second

// Consensus is what a quorum of authorities says of the network for one round. One that was parsed is
// immutable and safe for concurrent use.
type Consensus struct {
	Network    string
	ValidAfter int64 // Unix milliseconds, names the round
	FreshUntil int64 // Unix milliseconds: the next one is due
	ValidUntil int64 // Unix milliseconds: not to be used after this
	Params     ConsensusParams
	Voters     []VoteRef // the votes counted, ascending, one of an authority
	Relays     []Relay   // ascending by ID

	raw     []byte
	digest  Digest
	keyless int
}

type consensusDoc struct {
	Version    uint64            `cbor:"1,keyasint"`
	Network    string            `cbor:"2,keyasint"`
	ValidAfter int64             `cbor:"3,keyasint"`
	FreshUntil int64             `cbor:"4,keyasint"`
	ValidUntil int64             `cbor:"5,keyasint"`
	Params     paramsDoc         `cbor:"6,keyasint"`
	Voters     []VoteRef         `cbor:"7,keyasint"`
	Relays     []cbor.RawMessage `cbor:"8,keyasint"`
}

// maxConsensusDoc leaves room in an envelope for the signatures of MaxAuthorities, each of 103 bytes.
const maxConsensusDoc = MaxConsensus - MaxAuthorities*128

// Encode checks the consensus and returns the document's bytes, which authorities sign. All authorities
// that tally the same votes get the same bytes.
func (c *Consensus) Encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, kindConsensus.fail(err)
	}
	relays := make([]cbor.RawMessage, len(c.Relays))
	for i := range c.Relays {
		relays[i] = c.Relays[i].encode()
	}
	doc := encode(&consensusDoc{
		Version:    Version,
		Network:    c.Network,
		ValidAfter: c.ValidAfter,
		FreshUntil: c.FreshUntil,
		ValidUntil: c.ValidUntil,
		Params:     c.Params.doc(),
		Voters:     c.Voters,
		Relays:     relays,
	})
	if len(doc) > maxConsensusDoc {
		return nil, kindConsensus.fail(ErrTooLarge)
	}
	return doc, nil
}

// ParseConsensus reads a consensus' envelope, which carries the valid signatures of a quorum of the
// authorities of n and no other signature. It keeps raw, which the caller must not change afterwards.
// Whether it is of the present is for Check.
func ParseConsensus(raw []byte, n *Network) (*Consensus, error) {
	c, err := parseConsensus(raw, n)
	if err != nil {
		return nil, kindConsensus.fail(err)
	}
	return c, nil
}

func parseConsensus(raw []byte, n *Network) (*Consensus, error) {
	e, err := kindConsensus.open(raw)
	if err != nil {
		return nil, err
	}
	if err := n.verifyQuorum(e); err != nil {
		return nil, err
	}
	c, err := readConsensus(e.Document)
	if err != nil {
		return nil, err
	}
	if c.Network != n.Name {
		return nil, ErrNetwork
	}
	if len(c.Voters) < Faulty(len(n.Authorities))+1 {
		return nil, fmt.Errorf("voters: %d are too few", len(c.Voters))
	}
	c.raw, c.digest, c.keyless = raw, DigestOf(e.Document), len(c.Relays)
	return c, first(c.check(), field("voters", n.checkVoters(c.Voters)))
}

// readConsensus decodes a document; all fields but the parameters are still to be checked.
func readConsensus(doc []byte) (*Consensus, error) {
	if otherVersion(doc) {
		return nil, ErrVersion
	}
	r := &reader{data: doc}
	c, params, relays := r.consensusHead()
	if r.err != nil {
		return nil, r.err
	}
	var err error
	if c.Params, err = params.parse(); err != nil {
		return nil, field("parameters", err)
	}
	c.Relays = make([]Relay, relays)
	known := policies{}
	for i := range c.Relays {
		if c.Relays[i], err = r.relay(known); err != nil {
			return nil, fmt.Errorf("relay %d: %w", i, err)
		}
	}
	return c, r.end()
}

// consensusHead reads all that stands before the first relay.
func (r *reader) consensusHead() (c *Consensus, params paramsDoc, relays int) {
	c = &Consensus{}
	r.object(8)
	r.key(1)
	r.exactly(majorUint, Version, "another version")
	r.key(2)
	c.Network = string(r.string(majorText))
	r.key(3)
	c.ValidAfter = r.time()
	r.key(4)
	c.FreshUntil = r.time()
	r.key(5)
	c.ValidUntil = r.time()
	r.key(6)
	params = r.params()
	r.key(7)
	c.Voters = make([]VoteRef, r.array(maxListed))
	for i := range c.Voters {
		r.object(2)
		r.key(1)
		r.fixed(c.Voters[i].Authority[:])
		r.key(2)
		r.fixed(c.Voters[i].Digest[:])
	}
	r.key(8)
	return c, params, r.array(MaxRelays)
}

// verifyQuorum checks that all signatures are valid and by authorities, and that they are enough.
func (n *Network) verifyQuorum(e *envelope) error {
	if q := Quorum(len(n.Authorities)); len(e.Signatures) < q {
		return fmt.Errorf("%w: %d signatures, the quorum is %d", ErrSignature, len(e.Signatures), q)
	}
	for i := range e.Signatures {
		if id := e.Signatures[i].Signer; !n.hasAuthority(id) {
			return fmt.Errorf("%w: %s is no authority of this network", ErrSignature, id.Short())
		}
	}
	message := kindConsensus.message(e.Document)
	for i := range e.Signatures {
		if s := &e.Signatures[i]; !s.verify(message) {
			return fmt.Errorf("%w: not by %s", ErrSignature, s.Signer.Short())
		}
	}
	return nil
}

// Raw returns the envelope that the consensus was parsed from; the caller must not change it. It is nil
// for a consensus that was not parsed.
func (c *Consensus) Raw() []byte { return c.raw }

// Digest returns the SHA-256 of the document, whatever signatures it came with.
func (c *Consensus) Digest() Digest { return c.digest }

// Relay returns the relay of that ID. The result is part of the consensus: the caller must not change it.
func (c *Consensus) Relay(id wire.ID) (*Relay, bool) {
	i, ok := sort.Find(len(c.Relays), func(i int) int { return CompareIDs(id, c.Relays[i].ID) })
	if !ok {
		return nil, false
	}
	return &c.Relays[i], true
}

// WithKeys returns the consensus with the onion keys that key finds attached to its relays; c itself stays as
// it is. key returns the public key of a digest, which whoever holds it has verified, or nil.
func (c *Consensus) WithKeys(key func(Digest) []byte) *Consensus {
	with := *c
	with.Relays, with.keyless = slices.Clone(c.Relays), 0
	for i := range with.Relays {
		r := &with.Relays[i]
		if r.onionKey = key(r.Key.Digest); r.onionKey == nil {
			with.keyless++
		}
	}
	return &with
}

// Keyless returns how many relays have no onion key attached: no circuit goes through them.
func (c *Consensus) Keyless() int { return c.keyless }

// Check returns a *ClockError if now lies before valid-after by more than ClockSkew, or after valid-until.
func (c *Consensus) Check(now time.Time) error {
	from, until := time.UnixMilli(c.ValidAfter), time.UnixMilli(c.ValidUntil)
	if now.Before(from.Add(-ClockSkew)) || now.After(until) {
		return &ClockError{Now: now, ValidAfter: from, ValidUntil: until}
	}
	return nil
}

// ClockError says that the clock lies outside a consensus' validity: either the clock is wrong, or there
// is no newer consensus.
type ClockError struct {
	Now, ValidAfter, ValidUntil time.Time
}

// Off returns by how much the clock lies outside: negative before valid-after, positive after valid-until.
func (e *ClockError) Off() time.Duration {
	if e.Now.Before(e.ValidAfter) {
		return e.Now.Sub(e.ValidAfter)
	}
	return e.Now.Sub(e.ValidUntil)
}

func (e *ClockError) Error() string {
	now := e.Now.UTC().Format(time.RFC3339)
	if off := e.Off(); off < 0 {
		return fmt.Sprintf("the clock says %s, %v before the consensus begins (%s): the clock is slow",
			now, (-off).Round(time.Second), e.ValidAfter.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("the clock says %s, %v after the consensus ended (%s): the clock is fast, or no newer consensus could be had",
		now, e.Off().Round(time.Second), e.ValidUntil.UTC().Format(time.RFC3339))
}

func (c *Consensus) check() error {
	err := first(
		field("network", checkName(c.Network, MaxNetworkName)),
		field("valid-after", checkTime(c.ValidAfter)),
		field("fresh-until", checkTime(c.FreshUntil)),
		field("valid-until", checkTime(c.ValidUntil)),
		field("parameters", c.Params.check()),
		field("voters", checkVoteRefs(c.Voters, 1)),
	)
	if err != nil {
		return err
	}
	if c.ValidAfter >= c.FreshUntil || c.FreshUntil > c.ValidUntil {
		return errors.New("its times are not in order")
	}
	if len(c.Relays) > MaxRelays {
		return fmt.Errorf("relays: %d are more than %d", len(c.Relays), MaxRelays)
	}
	if !ascending(c.Relays, func(a, b Relay) int { return CompareIDs(a.ID, b.ID) }) {
		return errors.New("relays: out of order, or one twice")
	}
	for i := range c.Relays {
		if err := c.Relays[i].check(); err != nil {
			return fmt.Errorf("relay %s: %w", c.Relays[i].ID.Short(), err)
		}
	}
	return nil
}
