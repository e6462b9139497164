package netdoc

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Major types of CBOR, as the upper three bits of an item's first byte.
const (
	majorUint  = 0 << 5
	majorBytes = 2 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
	majorMap   = 5 << 5
	majorOther = 7 << 5
)

// reader reads deterministic CBOR item by item. A consensus of 10,000 relays is read by every client in
// every round: a reader that takes nothing but the one shortest form of what it expects needs neither
// reflection nor a second encoding to compare with. The first error stays, and everything read after it is
// zero.
type reader struct {
	data []byte
	at   int
	err  error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d", ErrEncoding, what, r.at)
	}
}

// head reads the head of an item of that major type: its argument, in the shortest form.
func (r *reader) head(major byte) uint64 {
	if r.err != nil || r.at >= len(r.data) {
		r.fail("the end")
		return 0
	}
	first := r.data[r.at]
	if first&0xe0 != major {
		r.fail("an item of another type")
		return 0
	}
	info := first & 0x1f
	if info < 24 {
		r.at++
		return uint64(info)
	}
	if info > 27 {
		r.fail("an indefinite or reserved length")
		return 0
	}
	size := 1 << (info - 24)
	if len(r.data)-r.at-1 < size {
		r.fail("the end")
		return 0
	}
	var full [8]byte
	copy(full[8-size:], r.data[r.at+1:r.at+1+size])
	n := binary.BigEndian.Uint64(full[:])
	if n < 24 || size > 1 && n>>(4*size) == 0 {
		r.fail("a number that is not in its shortest form")
		return 0
	}
	r.at += 1 + size
	return n
}

// exactly reads a head with that very argument.
func (r *reader) exactly(major byte, n uint64, what string) {
	at := r.at
	if got := r.head(major); r.err == nil && got != n {
		r.at = at
		r.fail(what)
	}
}

// object reads the head of a map of n pairs, whose keys follow as key reads them.
func (r *reader) object(n uint64) { r.exactly(majorMap, n, "a map of other keys") }

func (r *reader) key(n uint64) { r.exactly(majorUint, n, "another key") }

// array reads the head of an array of at most most elements, each of which takes a byte at least.
func (r *reader) array(most int) int {
	n := r.head(majorArray)
	if r.err == nil && (n > uint64(most) || n > uint64(len(r.data)-r.at)) {
		r.fail(fmt.Sprintf("an array of more than %d elements", most))
		return 0
	}
	return int(n)
}

// string reads a byte or text string; the result is part of the data.
func (r *reader) string(major byte) []byte {
	n := r.head(major)
	if r.err == nil && n > uint64(len(r.data)-r.at) {
		r.fail("the end")
	}
	if r.err != nil {
		return nil
	}
	r.at += int(n)
	return r.data[r.at-int(n) : r.at]
}

// fixed reads a byte string into out, which it must fill.
func (r *reader) fixed(out []byte) {
	if b := r.string(majorBytes); r.err == nil && copy(out, b)+len(b) != 2*len(out) {
		r.fail("a byte string of another length")
	}
}

func (r *reader) uint() uint64 { return r.head(majorUint) }

func (r *reader) uint32() uint32 {
	n := r.uint()
	if n > math.MaxUint32 {
		r.fail("a number out of range")
		return 0
	}
	return uint32(n)
}

// time reads Unix milliseconds; whether they lie within bounds is checked with the other fields.
func (r *reader) time() int64 {
	n := r.uint()
	if n > math.MaxInt64 {
		r.fail("a time out of range")
		return 0
	}
	return int64(n)
}

func (r *reader) bool() bool {
	n := r.head(majorOther)
	if r.err == nil && n != 20 && n != 21 {
		r.fail("neither true nor false")
	}
	return n == 21
}

// skip passes over one item of whatever type, which holds at most depth levels of others.
func (r *reader) skip(depth int) {
	if r.err != nil || r.at >= len(r.data) || depth < 0 {
		r.fail("the end, or too deep")
		return
	}
	switch major := r.data[r.at] & 0xe0; major {
	case majorUint, majorOther:
		r.head(major)
	case majorBytes, majorText:
		r.string(major)
	case majorArray, majorMap:
		n := r.head(major)
		if major == majorMap {
			n *= 2
		}
		for ; n > 0 && r.err == nil; n-- {
			r.skip(depth - 1)
		}
	default:
		r.fail("an item of another type")
	}
}

// end returns the first error; bytes behind the last item are one.
func (r *reader) end() error {
	if r.err == nil && r.at != len(r.data) {
		r.fail("more than there should be")
	}
	return r.err
}
