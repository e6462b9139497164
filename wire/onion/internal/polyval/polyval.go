// Package polyval computes POLYVAL, the universal hash of RFC 8452 section 3, with a key that changes often:
// at the ends of a circuit each cell brings a new one.
//
// A block of 16 bytes is a polynomial over GF(2): bit i of byte j is the coefficient of x^(8j+i). The field is
// GF(2)[x] modulo x^128 + x^127 + x^126 + x^121 + 1, its product
//
//	dot(a, b) = a * b * x^-128
//
// and POLYVAL(H, X_1, ..., X_s) is S_s, where S_0 = 0 and S_j = dot(S_(j-1) + X_j, H). Eight steps unrolled,
// where H^1 = H and H^(i+1) = dot(H^i, H), need the costly reduction once:
//
//	S_8 = dot(S_0 + X_1, H^8) + dot(X_2, H^7) + ... + dot(X_8, H^1)
//
// Processors with a carry-less multiplication (PCLMULQDQ, PMULL) use it, two at a time where they can
// (VPCLMULQDQ with AVX2); all others, and builds with the tag purego, run the portable code of generic.go. No
// implementation's time or memory accesses depend on the key or the data, only on the length of the data.
package polyval

import (
	"fmt"
	"io"
)

// BlockSize is the size of a key, of a block and of a hash, in bytes.
const BlockSize = 16

// aggregate is how many blocks share one reduction, hence how many powers of H a Key holds.
const aggregate = 8

// A Key is a POLYVAL key with its powers. It holds no pointers and may be copied. Update only reads it, so it
// serves concurrent callers; Init needs it alone. The zero Key is the key H = 0, under which all hashes are
// zero. A Key is a secret: assign Key{} to erase it.
type Key struct {
	power [aggregate]element // power[i] is H^(i+1)
	fold  [aggregate]uint64  // fold[i] is power[i].lo ^ power[i].hi, for Karatsuba's middle product
}

// Format prints "(redacted)", whatever the verb.
func (Key) Format(f fmt.State, _ rune) { io.WriteString(f, "(redacted)") }

// An element is a member of the field; lo holds the coefficients of x^0 (least significant bit) to x^63.
// The assembly knows this layout and Key's.
type element struct{ lo, hi uint64 }

// Init sets k to the key h. It costs about as much as the hash of eight blocks: for the hash of a single block
// Dot is cheaper.
func (k *Key) Init(h *[BlockSize]byte) {
	if accelerated {
		initAsm(k, h)
		return
	}
	initGeneric(k, h)
}

// Update absorbs data into acc: S_j = dot(S_(j-1) + X_j, H) for each block X_j, from S_0 = acc on, the last
// block padded with zeros if it is partial. Before the first Update of a hash acc is zero; after the last one
// it is the hash. Without data acc stays as it is. data and acc need no alignment; acc must not overlap data.
func (k *Key) Update(acc *[BlockSize]byte, data []byte) {
	if !accelerated {
		updateGeneric(k, acc, data)
		return
	}
	if n := len(data) &^ (aggregate*BlockSize - 1); wide && n > 0 {
		updateWide(k, acc, data[:n])
		data = data[n:]
	}
	updateNarrow(k, acc, data)
}

// updateNarrow is Update with one block in a register.
func updateNarrow(k *Key, acc *[BlockSize]byte, data []byte) {
	whole := len(data) &^ (BlockSize - 1)
	if whole == len(data) {
		updateAsm(k, acc, data, nil)
		return
	}
	var last [BlockSize]byte
	copy(last[:], data[whole:])
	updateAsm(k, acc, data[:whole], &last)
}

// Dot sets acc to dot(acc, h): the hash of the single block acc under the key h.
func Dot(acc, h *[BlockSize]byte) {
	if accelerated {
		dotAsm(acc, h)
		return
	}
	dotGeneric(acc, h)
}
