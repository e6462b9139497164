package netdoc

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"

	"torproxy/wire"
)

// OnionKeySize is the length of an onion key's public half: HPKE's MLKEM768X25519.
const OnionKeySize = 1216

// OnionKey is a relay's onion key and the period in which the relay announces it as its current one.
type OnionKey struct {
	Public []byte `cbor:"1,keyasint"` // OnionKeySize bytes
	From   int64  `cbor:"2,keyasint"` // Unix milliseconds
	Until  int64  `cbor:"3,keyasint"` // Unix milliseconds, after From
}

// Descriptor is what a relay says of itself.
type Descriptor struct {
	Version   uint64 // Version
	ID        wire.ID
	Nickname  string           // 1 to MaxNickname letters, digits, hyphens
	Addresses []netip.AddrPort // 1 to MaxAddresses, the preferred first
	OnionKeys []OnionKey       // 1 to MaxOnionKeys, the current first
	Policy    Policy           // where it lets traffic out; the zero value: nowhere
	Family    []wire.ID        // relays of the same operator, ascending, without ID
	Bandwidth uint64           // bytes per second that it offers
	Protocols []uint64         // protocol versions that it speaks, ascending
	Software  string           // printable ASCII, for people
	Published int64            // Unix milliseconds

	raw    []byte
	digest Digest
}

type descriptorDoc struct {
	Version   uint64     `cbor:"1,keyasint"`
	ID        wire.ID    `cbor:"2,keyasint"`
	Nickname  string     `cbor:"3,keyasint"`
	Addresses [][]byte   `cbor:"4,keyasint"`
	OnionKeys []OnionKey `cbor:"5,keyasint"`
	Policy    string     `cbor:"6,keyasint"`
	Family    []wire.ID  `cbor:"7,keyasint"`
	Bandwidth uint64     `cbor:"8,keyasint"`
	Protocols []uint64   `cbor:"9,keyasint"`
	Software  string     `cbor:"10,keyasint"`
	Published int64      `cbor:"11,keyasint"`
}

// Sign checks the descriptor and returns its envelope, signed with key, which is that of d.ID. The
// descriptor itself stays as it is: Raw and Digest belong to parsed ones.
func (d *Descriptor) Sign(key ed25519.PrivateKey) ([]byte, error) {
	if err := first(d.check(), signedBy(key, d.ID)); err != nil {
		return nil, kindDescriptor.fail(err)
	}
	doc := encode(&descriptorDoc{
		Version:   d.Version,
		ID:        d.ID,
		Nickname:  d.Nickname,
		Addresses: appendAddresses(d.Addresses),
		OnionKeys: d.OnionKeys,
		Policy:    d.Policy.String(),
		Family:    d.Family,
		Bandwidth: d.Bandwidth,
		Protocols: d.Protocols,
		Software:  d.Software,
		Published: d.Published,
	})
	return kindDescriptor.seal(doc, key)
}

// ParseDescriptor reads a descriptor's envelope and verifies its signature, which is by the relay that it
// describes. It keeps raw, which the caller must not change afterwards.
func ParseDescriptor(raw []byte) (*Descriptor, error) {
	d, err := parseDescriptor(raw)
	if err != nil {
		return nil, kindDescriptor.fail(err)
	}
	return d, nil
}

func parseDescriptor(raw []byte) (*Descriptor, error) {
	doc, signer, err := kindDescriptor.openSigned(raw, nil)
	if err != nil {
		return nil, err
	}
	var w descriptorDoc
	if err := decodeDocument(shortLists, doc, &w); err != nil {
		return nil, err
	}
	if w.ID != signer {
		return nil, fmt.Errorf("%w: not by the relay itself", ErrSignature)
	}
	addresses, err := parseAddresses(w.Addresses)
	if err != nil {
		return nil, field("addresses", err)
	}
	policy, err := parseCanonicalPolicy(w.Policy)
	if err != nil {
		return nil, field("policy", err)
	}
	d := &Descriptor{
		Version: w.Version, ID: w.ID, Nickname: w.Nickname, Addresses: addresses, OnionKeys: w.OnionKeys,
		Policy: policy, Family: w.Family, Bandwidth: w.Bandwidth, Protocols: w.Protocols,
		Software: w.Software, Published: w.Published,
		raw: raw, digest: DigestOf(raw),
	}
	return d, d.check()
}

// Raw returns the envelope that the descriptor was parsed from; the caller must not change it. It is nil
// for a descriptor that was not parsed.
func (d *Descriptor) Raw() []byte { return d.raw }

// Digest returns the SHA-256 of Raw, by which votes and the consensus name the descriptor.
func (d *Descriptor) Digest() Digest { return d.digest }

func (d *Descriptor) check() error {
	if d.Version != Version {
		return ErrVersion
	}
	return first(
		field("id", checkID(d.ID)),
		field("nickname", checkNickname(d.Nickname)),
		field("addresses", checkAddresses(d.Addresses)),
		field("onion keys", checkOnionKeys(d.OnionKeys)),
		field("policy", d.Policy.check()),
		field("family", checkFamily(d.ID, d.Family)),
		field("bandwidth", checkBandwidth(d.Bandwidth)),
		field("protocols", checkProtocols(d.Protocols)),
		field("software", checkSoftware(d.Software)),
		field("published", checkTime(d.Published)),
	)
}

func checkOnionKeys(keys []OnionKey) error {
	if len(keys) < 1 || len(keys) > MaxOnionKeys {
		return fmt.Errorf("%d in place of 1 to %d", len(keys), MaxOnionKeys)
	}
	for i, k := range keys {
		if len(k.Public) != OnionKeySize {
			return fmt.Errorf("a key of %d bytes in place of %d", len(k.Public), OnionKeySize)
		}
		if err := first(checkTime(k.From), checkTime(k.Until)); err != nil {
			return err
		}
		if k.From >= k.Until {
			return errors.New("a period that ends before it starts")
		}
		if i > 0 && bytes.Equal(k.Public, keys[0].Public) {
			return errors.New("one key twice")
		}
	}
	return nil
}

func checkProtocols(versions []uint64) error {
	if len(versions) < 1 || len(versions) > MaxProtocols {
		return fmt.Errorf("%d in place of 1 to %d", len(versions), MaxProtocols)
	}
	if !ascending(versions, cmp.Compare[uint64]) {
		return errors.New("versions out of order, or one twice")
	}
	return nil
}

func checkSoftware(s string) error {
	if len(s) > MaxSoftware {
		return fmt.Errorf("%d bytes are more than %d", len(s), MaxSoftware)
	}
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return errors.New("other characters than printable ASCII")
		}
	}
	return nil
}
