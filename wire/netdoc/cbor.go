package netdoc

import (
	"bytes"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// maxListed bounds every list but those of MaxRelays before its own bound is looked at.
const maxListed = 2 * MaxAuthorities

// The encoder writes deterministic CBOR; a nil list is an empty one.
var encoder = func() cbor.EncMode {
	opts := cbor.CoreDetEncOptions()
	opts.NilContainers = cbor.NilContainerAsEmpty
	opts.TagsMd = cbor.TagsForbidden
	mode, err := opts.EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// Two decoders that differ in how long an array may be. The long one is only for lists whose elements
// hold no list themselves (the entries of a vote): else a document could ask for much more memory than it
// has bytes. A consensus is read by a reader of its own.
var (
	shortLists = newDecoder(maxListed)
	longLists  = newDecoder(MaxRelays)
)

func newDecoder(elements int) cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   5, // of a consensus: document, relays, relay, onion keys, onion key
		MaxArrayElements:  elements,
		MaxMapPairs:       16,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}

// encode writes v, one of this package's wire structs; they have no field that could fail.
func encode(v any) []byte {
	b, err := encoder.Marshal(v)
	if err != nil {
		panic("netdoc: " + err.Error())
	}
	return b
}

// decode reads data into v, a pointer to a wire struct, and refuses every encoding but the one that
// encode writes. The caller has bounded data.
func decode(mode cbor.DecMode, data []byte, v any) error {
	if err := mode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %v", ErrEncoding, err)
	}
	if !bytes.Equal(encode(v), data) {
		return ErrEncoding
	}
	return nil
}

// decodeDocument is decode for a whole document: a version other than ours is named as the cause, not
// its unknown keys. Every document is a map of at most 16 keys that starts with key 1, the version.
func decodeDocument(mode cbor.DecMode, data []byte, v any) error {
	if otherVersion(data) {
		return ErrVersion
	}
	return decode(mode, data, v)
}

// otherVersion reports whether a document begins like one of a version that is not ours.
func otherVersion(data []byte) bool {
	return len(data) >= 3 && data[0]>>4 == 0xa && data[1] == 1 && data[2] != Version
}
