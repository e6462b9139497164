package polyval

import (
	"math/big"
	"slices"
)

// This file is POLYVAL as RFC 8452 section 3 defines it, one bit after the other: the third opinion beside the
// assembly and the portable code, with which it shares nothing.

// modulus is x^128 + x^127 + x^126 + x^121 + 1; bit i stands for x^i.
var modulus = polynomial(128, 127, 126, 121, 0)

// inverse is x^-128, which the section gives as x^127 + x^124 + x^121 + x^114 + 1.
var inverse = polynomial(127, 124, 121, 114, 0)

func polynomial(exponents ...int) *big.Int {
	p := new(big.Int)
	for _, e := range exponents {
		p.SetBit(p, e, 1)
	}
	return p
}

// fromBytes reads a block: the least significant bit of the first byte is the coefficient of x^0. Less than a
// block is padded with zeros.
func fromBytes(b []byte) *big.Int {
	reversed := slices.Clone(b)
	slices.Reverse(reversed)
	return new(big.Int).SetBytes(reversed)
}

func toBytes(p *big.Int) (b [BlockSize]byte) {
	p.FillBytes(b[:])
	slices.Reverse(b[:])
	return b
}

// refMulX returns a * x.
func refMulX(a *big.Int) *big.Int {
	r := new(big.Int).Lsh(a, 1)
	if r.Bit(128) == 1 {
		r.Xor(r, modulus)
	}
	return r
}

// refMul returns a * b.
func refMul(a, b *big.Int) *big.Int {
	r := new(big.Int)
	for i := range 128 {
		if b.Bit(i) == 1 {
			r.Xor(r, a)
		}
		a = refMulX(a)
	}
	return r
}

// refDot returns a * b * x^-128.
func refDot(a, b *big.Int) *big.Int { return refMul(refMul(a, b), inverse) }

// refUpdate returns what acc becomes when data is absorbed under the key h.
func refUpdate(h, acc [BlockSize]byte, data []byte) [BlockSize]byte {
	s, key := fromBytes(acc[:]), refMul(fromBytes(h[:]), inverse)
	for block := range slices.Chunk(data, BlockSize) {
		s = refMul(s.Xor(s, fromBytes(block)), key)
	}
	return toBytes(s)
}
