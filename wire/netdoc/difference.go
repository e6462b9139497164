package netdoc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// A difference makes one consensus out of an earlier one that the reader holds. It is a patch of bytes: what
// comes out is the very document that authorities signed, or it is refused by its digest. Its making knows the
// shape of a consensus; its application knows nothing but bytes, and so has nothing to get wrong.
//
//	instructions   (copy, skip, insert)*, each a varint: take so many bytes of the old document, pass over so
//	               many, take so many of the inserted bytes

// ErrBase says that a difference is to another consensus than the one given.
var ErrBase = errors.New("difference to another consensus")

type differenceDoc struct {
	Version      uint64      `cbor:"1,keyasint"`
	Base         Digest      `cbor:"2,keyasint"`
	Target       Digest      `cbor:"3,keyasint"`
	Instructions []byte      `cbor:"4,keyasint"`
	Inserted     []byte      `cbor:"5,keyasint"`
	Signatures   []Signature `cbor:"6,keyasint"`
}

// differencePairs is the head of a difference, a map of six pairs, as an envelope is one of two.
const differencePairs = majorMap | 6

// IsDifference reports whether an answer to a request for a consensus is a difference, or else an envelope.
func IsDifference(raw []byte) bool { return len(raw) > 0 && raw[0] == differencePairs }

// Difference returns what makes the consensus of the envelope target out of that of the envelope base. Both
// were accepted by ParseConsensus. The same two give the same bytes.
func Difference(base, target []byte) ([]byte, error) {
	from, err := kindConsensus.open(base)
	if err != nil {
		return nil, fmt.Errorf("netdoc: difference: base: %w", err)
	}
	to, err := kindConsensus.open(target)
	if err != nil {
		return nil, fmt.Errorf("netdoc: difference: target: %w", err)
	}
	var p patch
	if err := p.documents(from.Document, to.Document); err != nil {
		return nil, fmt.Errorf("netdoc: difference: %w", err)
	}
	raw := encode(&differenceDoc{
		Version: Version, Base: DigestOf(from.Document), Target: DigestOf(to.Document),
		Instructions: p.instructions, Inserted: p.inserted, Signatures: to.Signatures,
	})
	if len(raw) > MaxDifference {
		return nil, fmt.Errorf("netdoc: difference: %w", ErrTooLarge)
	}
	return raw, nil
}

// ApplyDifference returns the envelope that a difference makes out of base, which was parsed. Nothing is
// known of it but that its document has the digest that the difference names: it is for ParseConsensus.
// ErrBase says that the difference is to another consensus.
func ApplyDifference(raw []byte, base *Consensus) ([]byte, error) {
	if len(raw) > MaxDifference {
		return nil, fmt.Errorf("netdoc: difference: %w", ErrTooLarge)
	}
	var w differenceDoc
	if err := decodeDocument(shortLists, raw, &w); err != nil {
		return nil, fmt.Errorf("netdoc: difference: %w", err)
	}
	if w.Base != base.Digest() {
		return nil, fmt.Errorf("netdoc: %w: to %s", ErrBase, w.Base)
	}
	e, err := kindConsensus.open(base.Raw())
	if err != nil {
		return nil, fmt.Errorf("netdoc: difference: base: %w", err)
	}
	doc, err := apply(w.Instructions, w.Inserted, e.Document)
	if err == nil && DigestOf(doc) != w.Target {
		err = errors.New("makes another document than it says")
	}
	if err != nil {
		return nil, fmt.Errorf("netdoc: difference: %w", err)
	}
	return SealConsensus(doc, w.Signatures), nil
}

// apply follows the instructions. Both inputs are used up from front to back, so that the result is never
// longer than both together.
func apply(instructions, inserted, base []byte) ([]byte, error) {
	doc := make([]byte, 0, min(len(base)+len(inserted), maxConsensusDoc))
	for len(instructions) > 0 {
		var n [3]uint64 // copy, skip, insert
		for i := range n {
			value, size := binary.Uvarint(instructions)
			if size <= 0 || size > 1 && instructions[size-1] == 0 {
				return nil, fmt.Errorf("%w: an instruction", ErrEncoding)
			}
			n[i], instructions = value, instructions[size:]
		}
		if n[0] > uint64(len(base)) || n[1] > uint64(len(base))-n[0] || n[2] > uint64(len(inserted)) {
			return nil, errors.New("more is taken than there is")
		}
		if n[0]+n[2] > uint64(maxConsensusDoc-len(doc)) {
			return nil, ErrTooLarge
		}
		doc = append(doc, base[:n[0]]...)
		doc = append(doc, inserted[:n[2]]...)
		base, inserted = base[n[0]+n[1]:], inserted[n[2]:]
	}
	if len(base)+len(inserted) > 0 {
		return nil, errors.New("not all is used")
	}
	return doc, nil
}

// patch collects instructions. The last one is open until something is kept again.
type patch struct {
	instructions []byte
	inserted     []byte
	open         [3]uint64 // copy, skip, insert
}

func (p *patch) keep(n int) {
	if p.open[1]+p.open[2] > 0 {
		p.close()
	}
	p.open[0] += uint64(n)
}

func (p *patch) replace(old, by []byte) {
	p.inserted = append(p.inserted, by...)
	p.open[1] += uint64(len(old))
	p.open[2] += uint64(len(by))
}

func (p *patch) close() {
	for i, n := range p.open {
		p.instructions = binary.AppendUvarint(p.instructions, n)
		p.open[i] = 0
	}
}

// documents compares two documents: the heads as a whole, the relays merged by ID.
func (p *patch) documents(from, to []byte) error {
	old, oldRelays, err := splitConsensus(from)
	if err != nil {
		return err
	}
	head, relays, err := splitConsensus(to)
	if err != nil {
		return err
	}
	p.replace(old, head)
	for len(oldRelays)+len(relays) > 0 {
		order := 1 // of the next old entry to the next new one; an entry starts with its ID
		switch {
		case len(relays) == 0:
			order = -1
		case len(oldRelays) > 0:
			order = bytes.Compare(oldRelays[0][:entryID], relays[0][:entryID])
		}
		switch {
		case order < 0:
			p.replace(oldRelays[0], nil)
			oldRelays = oldRelays[1:]
		case order > 0:
			p.replace(nil, relays[0])
			relays = relays[1:]
		default:
			p.entries(oldRelays[0], relays[0])
			oldRelays, relays = oldRelays[1:], relays[1:]
		}
	}
	p.close()
	return nil
}

// entries compares two entries of one relay, item by item if they are of one shape.
func (p *patch) entries(old, by []byte) {
	if bytes.Equal(old, by) {
		p.keep(len(old))
		return
	}
	was, is := items(old), items(by)
	if len(was) != len(is) {
		p.replace(old, by)
		return
	}
	for i := range was {
		if bytes.Equal(was[i], is[i]) {
			p.keep(len(was[i]))
		} else {
			p.replace(was[i], is[i])
		}
	}
}

// entryID is where an entry's ID ends: behind the map's head, key 1, and the head of a string of 32.
const entryID = 1 + 1 + 2 + 32

// splitConsensus cuts a document into what stands before the first relay, and the relays.
func splitConsensus(doc []byte) (head []byte, relays [][]byte, err error) {
	r := &reader{data: doc}
	_, _, n := r.consensusHead()
	head = doc[:r.at]
	relays = make([][]byte, n)
	for i := range relays {
		at := r.at
		r.skip(4)
		relays[i] = doc[at:r.at]
		if len(relays[i]) < entryID {
			r.fail("no relay")
		}
	}
	return head, relays, r.end()
}

// items cuts an entry into its items; the head of a list or map is one by itself.
func items(entry []byte) [][]byte {
	var all [][]byte
	for r := (&reader{data: entry}); r.err == nil && r.at < len(entry); {
		at := r.at
		switch major := entry[at] & 0xe0; major {
		case majorArray, majorMap:
			r.head(major)
		default:
			r.skip(0)
		}
		all = append(all, entry[at:r.at])
	}
	return all
}
