package netdoc

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"torproxy/wire"
)

// sample is one good document of a kind, with the ways to sign another in its place and to read it.
type sample struct {
	kind  kind
	doc   []byte
	keys  []ed25519.PrivateKey // who signs it
	parse func(raw []byte) (again func() ([]byte, error), err error)
}

func samples() []sample {
	n, keys := testNetwork(4)
	d, key := testDescriptor()
	v, e, c := testVote(n, 0), testEcho(n, 0), testConsensus(n, 3)
	en := &Endorsement{
		Network: n.Name, Authority: n.Authorities[0].ID, ValidAfter: testStart, Consensus: DigestOf([]byte("c")),
		Value: [64]byte{1, 2, 3},
	}
	one := keys[:1]
	return []sample{
		{kindDescriptor, document(must(d.Sign(key))), []ed25519.PrivateKey{key}, func(raw []byte) (func() ([]byte, error), error) {
			d, err := ParseDescriptor(raw)
			return func() ([]byte, error) { return d.Sign(key) }, err
		}},
		{kindVote, document(must(v.Sign(keys[0]))), one, func(raw []byte) (func() ([]byte, error), error) {
			v, err := ParseVote(raw, n)
			return func() ([]byte, error) { return v.Sign(keys[0]) }, err
		}},
		{kindEcho, document(must(e.Sign(keys[0]))), one, func(raw []byte) (func() ([]byte, error), error) {
			e, err := ParseEcho(raw, n)
			return func() ([]byte, error) { return e.Sign(keys[0]) }, err
		}},
		{kindEndorsement, document(must(en.Sign(keys[0]))), one, func(raw []byte) (func() ([]byte, error), error) {
			e, err := ParseEndorsement(raw, n)
			return func() ([]byte, error) { return e.Sign(keys[0]) }, err
		}},
		{kindConsensus, must(c.Encode()), keys[:3], func(raw []byte) (func() ([]byte, error), error) {
			c, err := ParseConsensus(raw, n)
			return func() ([]byte, error) {
				doc, err := c.Encode()
				return sealAs(kindConsensus, doc, keys[:3]...), err
			}, err
		}},
	}
}

// document takes the document out of an envelope.
func document(raw []byte) []byte {
	var e envelope
	if err := decode(shortLists, raw, &e); err != nil {
		panic(err)
	}
	return e.Document
}

// sealAs signs any bytes as a document of that kind.
func sealAs(k kind, doc []byte, keys ...ed25519.PrivateKey) []byte {
	var sigs []Signature
	for _, key := range keys {
		sigs = append(sigs, sign(k.message(doc), key))
	}
	return SealConsensus(doc, sigs) // which sorts them, and asks for no kind
}

func (s sample) seal(doc []byte) []byte { return sealAs(s.kind, doc, s.keys...) }

func TestSamplesAreGood(t *testing.T) {
	for _, s := range samples() {
		raw := s.seal(s.doc)
		again, err := s.parse(raw)
		if err != nil {
			t.Errorf("%s: %v", s.kind.name, err)
		} else if !bytes.Equal(must(again()), raw) {
			t.Errorf("%s: signs to other bytes", s.kind.name)
		}
	}
}

func TestEveryPrefixIsRefused(t *testing.T) {
	for _, s := range samples() {
		raw := s.seal(s.doc)
		for i := range raw {
			if _, err := s.parse(raw[:i]); err == nil {
				t.Fatalf("%s: the first %d of %d bytes were accepted", s.kind.name, i, len(raw))
			}
		}
		for i := 0; i < len(s.doc); i += 1 + len(s.doc)/500 { // the document cut, the signature good
			if _, err := s.parse(s.seal(s.doc[:i])); !errors.Is(err, ErrEncoding) {
				t.Fatalf("%s: the first %d of %d signed bytes: %v", s.kind.name, i, len(s.doc), err)
			}
		}
	}
}

func TestEveryFlippedByteIsRefused(t *testing.T) {
	for _, s := range samples() {
		raw := s.seal(s.doc)
		for i := range raw {
			for _, bit := range []byte{0x01, 0x80} {
				raw[i] ^= bit
				if _, err := s.parse(raw); err == nil {
					t.Fatalf("%s: bit %#x of byte %d flipped, and accepted", s.kind.name, bit, i)
				}
				raw[i] ^= bit
			}
		}
	}
}

// A signer may change any byte; what is then accepted has exactly one spelling.
func TestFlippedAndSignedAgainHasOneSpelling(t *testing.T) {
	for _, s := range samples() {
		accepted := 0
		for i := 0; i < len(s.doc); i += 1 + len(s.doc)/200 {
			for bit := range 8 {
				doc := bytes.Clone(s.doc)
				doc[i] ^= 1 << bit
				raw := s.seal(doc)
				again, err := s.parse(raw)
				if err != nil {
					continue
				}
				accepted++
				if !bytes.Equal(must(again()), raw) {
					t.Fatalf("%s: bit %d of byte %d flipped: accepted, signs to other bytes", s.kind.name, bit, i)
				}
			}
		}
		if accepted == 0 {
			t.Errorf("%s: no change was accepted, the test shows nothing", s.kind.name)
		}
	}
}

// Other spellings of a good document, all signed well. The document is spelt by hand, item by item.
func TestOtherSpellingsAreRefused(t *testing.T) {
	for _, s := range samples() {
		pairs := splitMap(t, s.doc)
		n := byte(len(pairs))
		join := func(head []byte, pairs ...[]byte) []byte { return append(bytes.Clone(head), bytes.Join(pairs, nil)...) }
		good := []byte{0xa0 | n}
		last := pairs[n-1]
		unknown := []byte{n + 1, 0x00}
		swapped := append([][]byte{pairs[0], pairs[2], pairs[1]}, pairs[3:]...)
		cases := map[string][]byte{
			"a byte behind the end":       append(bytes.Clone(s.doc), 0x00),
			"an item behind the end":      append(bytes.Clone(s.doc), s.doc...),
			"an unknown key":              join([]byte{0xa0 | n + 1}, append(pairs, unknown)...),
			"a text key":                  join([]byte{0xa0 | n + 1}, append(pairs, []byte{0x61, '1', 0x00})...),
			"a missing key":               join([]byte{0xa0 | n - 1}, pairs[:n-1]...),
			"a key twice":                 join([]byte{0xa0 | n + 1}, append(pairs, last)...),
			"keys out of order":           join(good, swapped...),
			"a map of indefinite length":  append(join([]byte{0xbf}, pairs...), 0xff),
			"a map length too long":       join([]byte{0xb8, n}, pairs...),
			"a tag around the document":   append([]byte{0xd9, 0xd9, 0xf7}, s.doc...),
			"a tag around the version":    join(good, append([][]byte{{0x01, 0xc1, 0x01}}, pairs[1:]...)...),
			"a version too long":          join(good, append([][]byte{{0x01, 0x18, 0x01}}, pairs[1:]...)...),
			"a version as a float":        join(good, append([][]byte{{0x01, 0xf9, 0x3c, 0x00}}, pairs[1:]...)...),
			"a version that is null":      join(good, append([][]byte{{0x01, 0xf6}}, pairs[1:]...)...),
			"version 0":                   join(good, append([][]byte{{0x01, 0x00}}, pairs[1:]...)...),
			"version 2":                   join(good, append([][]byte{{0x01, 0x02}}, pairs[1:]...)...),
			"version 2 with other keys":   {0xa2, 0x01, 0x02, 0x18, 0x63, 0x00},
			"a key too long":              join(good, append([][]byte{{0x18, 0x01, 0x01}}, pairs[1:]...)...),
			"a list that is null":         join(good, replaceList(pairs, []byte{0xf6})...),
			"a list that is undefined":    join(good, replaceList(pairs, []byte{0xf7})...),
			"a list of indefinite length": join(good, replaceList(pairs, []byte{0x9f, 0xff})...),
			"a list of null":              join(good, replaceList(pairs, []byte{0x81, 0xf6})...),
			"a list of maps in maps": join(good, replaceList(pairs,
				append([]byte{0x81}, bytes.Repeat([]byte{0xa1, 0x00}, 40)...))...),
			"an array in place of a map": {0x80},
			"nothing":                    {},
		}
		for name, doc := range cases {
			if s.kind == kindEndorsement && strings.HasPrefix(name, "a list") {
				continue // it has none
			}
			want := ErrEncoding
			if strings.HasPrefix(name, "version") || name == "a version too long" || name == "a tag around the version" ||
				name == "a version as a float" || name == "a version that is null" {
				want = ErrVersion
			}
			if _, err := s.parse(s.seal(doc)); !errors.Is(err, want) {
				t.Errorf("%s: %s: got %v, want %v", s.kind.name, name, err, want)
			}
		}
	}
}

// splitMap splits a map with small keys into its pairs.
func splitMap(t *testing.T, doc []byte) [][]byte {
	t.Helper()
	n, rest := int(doc[0]&0x1f), doc[1:]
	var pairs [][]byte
	for range n {
		var value cbor.RawMessage
		after, err := cbor.UnmarshalFirst(rest[1:], &value)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, rest[:len(rest)-len(after)])
		rest = after
	}
	return pairs
}

// replaceList puts another value in place of the first array.
func replaceList(pairs [][]byte, value []byte) [][]byte {
	list := slices.Clone(pairs)
	for i, p := range list {
		if p[1]>>5 == 4 {
			list[i] = append([]byte{p[0]}, value...)
			break
		}
	}
	return list
}

func TestSignaturesAreByWhomTheyShould(t *testing.T) {
	stranger := testKey("stranger")
	for _, s := range samples() {
		flipped := s.seal(s.doc)
		flipped[len(flipped)-1] ^= 1
		all := append([]ed25519.PrivateKey{stranger}, s.keys...)
		twice := append([]ed25519.PrivateKey{s.keys[0]}, s.keys...)
		cases := map[string][]byte{
			"no signature":           sealAs(s.kind, s.doc),
			"a stranger's":           sealAs(s.kind, s.doc, stranger),
			"a stranger's too":       sealAs(s.kind, s.doc, all...),
			"one twice":              sealAs(s.kind, s.doc, twice...),
			"a wrong one":            flipped,
			"over other bytes":       reseal(s, func(e *envelope) { e.Document = append(e.Document, 0) }),
			"by the zero ID":         reseal(s, func(e *envelope) { e.Signatures[0].Signer = wire.ID{} }),
			"by a small-order ID":    reseal(s, func(e *envelope) { e.Signatures[0].Signer = wire.ID{0: 1} }),
			"a good and a wrong one": reseal(s, func(e *envelope) { e.Signatures = append(e.Signatures, Signature{Signer: wire.ID{31: 0x7e, 0: 0xff}}) }),
		}
		for _, other := range samples() {
			if other.kind != s.kind {
				cases["as a "+other.kind.name] = sealAs(other.kind, s.doc, s.keys...)
			}
		}
		for name, raw := range cases {
			if _, err := s.parse(raw); !errors.Is(err, ErrSignature) {
				t.Errorf("%s: %s: %v", s.kind.name, name, err)
			}
		}
	}
}

// reseal changes a good envelope without signing it again.
func reseal(s sample, change func(*envelope)) []byte {
	var e envelope
	if err := decode(shortLists, s.seal(s.doc), &e); err != nil {
		panic(err)
	}
	change(&e)
	return encode(&e)
}

func TestEnvelopeOrder(t *testing.T) {
	n, _ := testNetwork(4)
	s := samples()[4]
	raw := reseal(s, func(e *envelope) { e.Signatures[0], e.Signatures[1] = e.Signatures[1], e.Signatures[0] })
	if _, err := ParseConsensus(raw, n); !errors.Is(err, ErrSignature) {
		t.Errorf("signers out of order: %v", err)
	}
}

// What is too large is refused before anything looks at it.
func TestTooLarge(t *testing.T) {
	for _, s := range samples() {
		if _, err := s.parse(make([]byte, s.kind.max+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", s.kind.name, err)
		}
		if _, err := s.parse(make([]byte, s.kind.max)); errors.Is(err, ErrTooLarge) {
			t.Errorf("%s of exactly its bound: %v", s.kind.name, err)
		}
	}
	if _, err := ParseNetwork(make([]byte, MaxNetworkFile+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("network file: %v", err)
	}
}

// A list that claims more elements than the bound is refused, whatever they are.
func TestTooManyElements(t *testing.T) {
	for _, s := range samples() {
		if s.kind == kindEndorsement {
			continue
		}
		pairs := splitMap(t, s.doc)
		list := binary.BigEndian.AppendUint32([]byte{0x9a}, MaxRelays+1)
		list = append(list, bytes.Repeat([]byte{0xa0}, MaxRelays+1)...)
		doc := append([]byte{s.doc[0]}, bytes.Join(replaceList(pairs, list), nil)...)
		if _, err := s.parse(s.seal(doc)); !errors.Is(err, ErrEncoding) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", s.kind.name, err)
		}
	}
}

// For a key of small order a signature can be made without any secret: the reason why they are refused.
func TestSmallOrderKeysAreForgeable(t *testing.T) {
	for _, weak := range smallOrder {
		for _, sign := range []byte{0, 0x80} {
			id := weak
			id[31] |= sign
			if err := checkID(id); err == nil {
				t.Errorf("%s is not refused", id)
			}
			if !forgeable(id) {
				t.Errorf("%s does not belong into the list", id)
			}
		}
	}
	if forgeable(wire.PublicID(testKey("relay"))) {
		t.Error("an ordinary key is forgeable, the test shows nothing")
	}
}

// forgeable looks for a message with a signature R | S of S = 0 and R of small order.
func forgeable(id wire.ID) bool {
	for i := range 64 {
		message := fmt.Appendf(nil, "message %d", i)
		for _, r := range smallOrder {
			for _, sign := range []byte{0, 0x80} {
				sig := make([]byte, ed25519.SignatureSize)
				copy(sig, r[:])
				sig[31] |= sign
				if ed25519.Verify(id[:], message, sig) {
					return true
				}
			}
		}
	}
	return false
}

func TestCheckID(t *testing.T) {
	var p wire.ID // the field prime, little-endian
	for i := range p {
		p[i] = 0xff
	}
	p[0], p[31] = 0xed, 0x7f
	for d := range 19 { // p .. 2^255-1, and with the sign bit
		id := p
		id[0] += byte(d)
		if checkID(id) == nil {
			t.Errorf("%s is not refused", id)
		}
		id[31] |= 0x80
		if checkID(id) == nil {
			t.Errorf("%s is not refused", id)
		}
	}
	below := p
	below[0] = 0xeb
	if err := checkID(below); err != nil {
		t.Errorf("%s: %v", below, err)
	}
}
