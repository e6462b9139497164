package netdoc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"torproxy/wire"
)

// ClockSkew is how far before a consensus' valid-after a clock may be: clocks differ, and authorities
// hand a consensus out as soon as it is signed.
const ClockSkew = 30 * time.Second

// ConsensusParams are the parameters that authorities vote on.
type ConsensusParams struct {
	MinRelays        int      // relays that must run before a client builds circuits
	PerAddress       int      // relays on one IP address; 0: no limit
	SubnetRule       bool     // no two hops of a circuit in one subnet
	OnionKeyLifetime Duration // whole milliseconds
}

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

	raw    []byte
	digest Digest
}

// Relay is one relay of a consensus: all that a client needs to put it into a path.
type Relay struct {
	ID         wire.ID
	Descriptor Digest
	Nickname   string
	Addresses  []netip.AddrPort // 1 to MaxAddresses, the preferred first
	OnionKeys  []OnionKey       // 1 to MaxOnionKeys, the current first
	Policy     Policy
	Family     []wire.ID // what the relay declared, ascending; a family holds if both sides declare it
	Weight     uint64    // bytes per second, for choosing among relays
	Flags      Flags     // Running is always set
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

type paramsDoc struct {
	MinRelays        uint64 `cbor:"1,keyasint"`
	PerAddress       uint64 `cbor:"2,keyasint"`
	SubnetRule       bool   `cbor:"3,keyasint"`
	OnionKeyLifetime int64  `cbor:"4,keyasint"` // milliseconds
}

type relayDoc struct {
	ID         wire.ID    `cbor:"1,keyasint"`
	Descriptor Digest     `cbor:"2,keyasint"`
	Nickname   string     `cbor:"3,keyasint"`
	Addresses  [][]byte   `cbor:"4,keyasint"`
	OnionKeys  []OnionKey `cbor:"5,keyasint"`
	Policy     string     `cbor:"6,keyasint"`
	Family     []wire.ID  `cbor:"7,keyasint"`
	Weight     uint64     `cbor:"8,keyasint"`
	Flags      Flags      `cbor:"9,keyasint"`
}

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
	return encode(&consensusDoc{
		Version:    Version,
		Network:    c.Network,
		ValidAfter: c.ValidAfter,
		FreshUntil: c.FreshUntil,
		ValidUntil: c.ValidUntil,
		Params:     c.Params.doc(),
		Voters:     c.Voters,
		Relays:     relays,
	}), nil
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
	var w consensusDoc
	if err := decodeDocument(longLists, e.Document, &w); err != nil {
		return nil, err
	}
	if w.Version != Version {
		return nil, ErrVersion
	}
	if w.Network != n.Name {
		return nil, ErrNetwork
	}
	params, err := w.Params.parse()
	if err != nil {
		return nil, field("parameters", err)
	}
	c := &Consensus{
		Network: w.Network, ValidAfter: w.ValidAfter, FreshUntil: w.FreshUntil, ValidUntil: w.ValidUntil,
		Params: params, Voters: w.Voters, Relays: make([]Relay, len(w.Relays)),
		raw: raw, digest: DigestOf(e.Document),
	}
	for i, b := range w.Relays {
		if err := c.Relays[i].decode(b); err != nil {
			return nil, fmt.Errorf("relay %d: %w", i, err)
		}
	}
	if len(c.Voters) < Faulty(len(n.Authorities))+1 {
		return nil, fmt.Errorf("voters: %d are too few", len(c.Voters))
	}
	return c, first(c.check(), field("voters", n.checkVoters(c.Voters)))
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
	i, ok := slices.BinarySearchFunc(c.Relays, id, func(r Relay, id wire.ID) int { return CompareIDs(r.ID, id) })
	if !ok {
		return nil, false
	}
	return &c.Relays[i], true
}

// OnionKey returns the key that clients build circuits with: the relay's current one. Every client of a
// consensus uses the same, so that the choice tells nothing of a client's clock; the relay keeps the key
// until well after the last consensus that lists it.
func (r *Relay) OnionKey() []byte { return r.OnionKeys[0].Public }

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

func (r *Relay) check() error {
	err := first(
		field("id", checkID(r.ID)),
		field("descriptor", checkDigest(r.Descriptor)),
		field("nickname", checkNickname(r.Nickname)),
		field("addresses", checkAddresses(r.Addresses)),
		field("onion keys", checkOnionKeys(r.OnionKeys)),
		field("policy", r.Policy.check()),
		field("family", checkFamily(r.ID, r.Family)),
		field("weight", checkBandwidth(r.Weight)),
		field("flags", r.Flags.check()),
	)
	switch {
	case err != nil:
		return err
	case !r.Flags.Has(Running):
		return errors.New("flags: not Running")
	case r.Flags.Has(Exit) && !r.Policy.IsExit():
		return errors.New("flags: Exit, with a policy that accepts nothing")
	}
	return nil
}

func (r *Relay) encode() []byte {
	return encode(&relayDoc{
		ID:         r.ID,
		Descriptor: r.Descriptor,
		Nickname:   r.Nickname,
		Addresses:  appendAddresses(r.Addresses),
		OnionKeys:  r.OnionKeys,
		Policy:     r.Policy.String(),
		Family:     r.Family,
		Weight:     r.Weight,
		Flags:      r.Flags,
	})
}

func (r *Relay) decode(b []byte) error {
	var w relayDoc
	if err := decode(shortLists, b, &w); err != nil {
		return err
	}
	addresses, err := parseAddresses(w.Addresses)
	if err != nil {
		return field("addresses", err)
	}
	policy, err := parseCanonicalPolicy(w.Policy)
	if err != nil {
		return field("policy", err)
	}
	*r = Relay{
		ID: w.ID, Descriptor: w.Descriptor, Nickname: w.Nickname, Addresses: addresses, OnionKeys: w.OnionKeys,
		Policy: policy, Family: w.Family, Weight: w.Weight, Flags: w.Flags,
	}
	return nil
}

func (p ConsensusParams) doc() paramsDoc {
	return paramsDoc{
		MinRelays:        uint64(p.MinRelays),
		PerAddress:       uint64(p.PerAddress),
		SubnetRule:       p.SubnetRule,
		OnionKeyLifetime: time.Duration(p.OnionKeyLifetime).Milliseconds(),
	}
}

func (w paramsDoc) parse() (ConsensusParams, error) {
	if w.MinRelays > MaxRelays || w.PerAddress > MaxRelays {
		return ConsensusParams{}, fmt.Errorf("a number of relays above %d", MaxRelays)
	}
	if w.OnionKeyLifetime > maxLifetime.Milliseconds() {
		return ConsensusParams{}, errors.New("an onion key's lifetime of more than a year")
	}
	p := ConsensusParams{
		MinRelays:        int(w.MinRelays),
		PerAddress:       int(w.PerAddress),
		SubnetRule:       w.SubnetRule,
		OnionKeyLifetime: Duration(time.Duration(w.OnionKeyLifetime) * time.Millisecond),
	}
	return p, p.check()
}

func (p ConsensusParams) check() error {
	life := time.Duration(p.OnionKeyLifetime)
	switch {
	case p.MinRelays < 0 || p.MinRelays > MaxRelays:
		return fmt.Errorf("minimum of relays: %d outside 0 to %d", p.MinRelays, MaxRelays)
	case p.PerAddress < 0 || p.PerAddress > MaxRelays:
		return fmt.Errorf("relays per address: %d outside 0 to %d", p.PerAddress, MaxRelays)
	case life < time.Millisecond || life > maxLifetime || life%time.Millisecond != 0:
		return fmt.Errorf("onion key lifetime: %v is not a whole number of milliseconds up to a year", life)
	}
	return nil
}
