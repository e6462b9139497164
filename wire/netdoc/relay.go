package netdoc

import (
	"errors"
	"net/netip"

	"torproxy/wire"
)

// Relay is one relay of a consensus: all that a client needs to put it into a path.
type Relay struct {
	ID         wire.ID
	Descriptor Digest
	Nickname   string
	Addresses  []netip.AddrPort // 1 to MaxAddresses, the preferred first
	OnionKeys  []OnionKey       // 1 to MaxOnionKeys, the current first
	Policy     Policy
	Family     []wire.ID // ascending: of those that the relay declared, those that are in and declare it, too
	Weight     uint64    // bytes per second, for choosing among relays
	Flags      Flags     // Running is always set
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

// OnionKey returns the key that clients build circuits with: the relay's current one. Every client of a
// consensus uses the same, so that the choice tells nothing of a client's clock; the relay keeps the key
// until well after the last consensus that lists it.
func (r *Relay) OnionKey() []byte { return r.OnionKeys[0].Public }

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
