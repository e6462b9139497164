package netdoc

import (
	"errors"
	"net/netip"

	"torproxy/wire"
)

// KeyRef names a relay's onion key. The key itself, which no compression makes smaller, is not part of the
// list: it is fetched by its digest and kept from one consensus to the next.
type KeyRef struct {
	Digest Digest `cbor:"1,keyasint"` // SHA-256 of the public key
	From   int64  `cbor:"2,keyasint"` // Unix milliseconds
	Until  int64  `cbor:"3,keyasint"` // Unix milliseconds, after From
}

// Ref returns what a consensus says of an onion key.
func (k *OnionKey) Ref() KeyRef {
	return KeyRef{Digest: DigestOf(k.Public), From: k.From, Until: k.Until}
}

// Relay is one relay of a consensus: all that a client needs to put it into a path.
type Relay struct {
	ID         wire.ID
	Descriptor Digest
	Nickname   string
	Addresses  []netip.AddrPort // 1 to MaxAddresses, the preferred first
	Key        KeyRef           // the current onion key
	Policy     Policy
	Family     []wire.ID // ascending: of those that the relay declared, those that are in and declare it, too
	Weight     uint64    // bytes per second, for choosing among relays
	Flags      Flags     // Running is always set

	onionKey []byte // what Key names; nil while it is not attached
}

type relayDoc struct {
	ID         wire.ID   `cbor:"1,keyasint"`
	Descriptor Digest    `cbor:"2,keyasint"`
	Nickname   string    `cbor:"3,keyasint"`
	Addresses  [][]byte  `cbor:"4,keyasint"`
	Key        KeyRef    `cbor:"5,keyasint"`
	Policy     string    `cbor:"6,keyasint"`
	Family     []wire.ID `cbor:"7,keyasint"`
	Weight     uint64    `cbor:"8,keyasint"`
	Flags      Flags     `cbor:"9,keyasint"`
}

// OnionKey returns the key that clients build circuits with: the relay's current one, nil while it is not
// attached (Consensus.WithKeys). Every client of a consensus uses the same, so that the choice tells nothing
// of a client's clock; the relay keeps the key until well after the last consensus that lists it.
func (r *Relay) OnionKey() []byte { return r.onionKey }

// Attach gives the relay the onion key that its Key names. It is for whoever makes a Relay: those of a
// parsed consensus are immutable.
func (r *Relay) Attach(public []byte) error {
	if len(public) != OnionKeySize || DigestOf(public) != r.Key.Digest {
		return errors.New("netdoc: not the onion key that the relay's entry names")
	}
	r.onionKey = public
	return nil
}

func (r *Relay) check() error {
	err := first(
		field("id", checkID(r.ID)),
		field("descriptor", checkDigest(r.Descriptor)),
		field("nickname", checkNickname(r.Nickname)),
		field("addresses", checkAddresses(r.Addresses)),
		field("onion key", r.Key.check()),
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

func (k *KeyRef) check() error {
	if k.From >= k.Until {
		return errors.New("a period that ends before it starts")
	}
	return first(checkDigest(k.Digest), checkTime(k.From), checkTime(k.Until))
}

func (r *Relay) encode() []byte {
	return encode(&relayDoc{
		ID:         r.ID,
		Descriptor: r.Descriptor,
		Nickname:   r.Nickname,
		Addresses:  appendAddresses(r.Addresses),
		Key:        r.Key,
		Policy:     r.Policy.String(),
		Family:     r.Family,
		Weight:     r.Weight,
		Flags:      r.Flags,
	})
}

// policies holds the policies read so far: in a large network, few differ.
type policies map[string]Policy

func (known policies) parse(text []byte) (Policy, error) {
	if p, ok := known[string(text)]; ok {
		return p, nil
	}
	p, err := parseCanonicalPolicy(string(text))
	if err == nil {
		known[p.text] = p
	}
	return p, err
}

// relay reads one entry. Its fields are checked by Relay.check.
func (r *reader) relay(known policies) (out Relay, err error) {
	r.object(9)
	r.key(1)
	r.fixed(out.ID[:])
	r.key(2)
	r.fixed(out.Descriptor[:])
	r.key(3)
	out.Nickname = string(r.string(majorText))
	r.key(4)
	addresses := make([][]byte, r.array(maxListed))
	for i := range addresses {
		addresses[i] = r.string(majorBytes)
	}
	r.key(5)
	out.Key = r.keyRef()
	r.key(6)
	policy := r.string(majorText)
	r.key(7)
	if n := r.array(maxListed); n > 0 {
		out.Family = make([]wire.ID, n)
	}
	for i := range out.Family {
		r.fixed(out.Family[i][:])
	}
	r.key(8)
	out.Weight = r.uint()
	r.key(9)
	out.Flags = Flags(r.uint32())
	if r.err != nil {
		return Relay{}, r.err
	}
	if out.Addresses, err = parseAddresses(addresses); err != nil {
		return Relay{}, field("addresses", err)
	}
	out.Policy, err = known.parse(policy)
	return out, field("policy", err)
}

func (r *reader) keyRef() (k KeyRef) {
	r.object(3)
	r.key(1)
	r.fixed(k.Digest[:])
	r.key(2)
	k.From = r.time()
	r.key(3)
	k.Until = r.time()
	return k
}
