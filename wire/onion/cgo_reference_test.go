package onion

import (
	"bytes"
	"crypto/aes"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"torproxy/wire"
)

// reference is SPEC.md section 4 written down line by line, over integers of any size, slow and not in constant time.
// The published vectors are for one cell size; this stands in for vectors of the others.
type reference struct {
	kb, ku, k, b, n, tweak []byte
	cmd                    byte
}

func newReference(keys []byte, cmd byte) *reference {
	return &reference{kb: keys[:16], ku: keys[16:32], k: keys[32:48], b: keys[48:64], n: keys[64:80], tweak: make([]byte, 16), cmd: cmd}
}

// polynomial is x^128 + x^127 + x^126 + x^121 + 1.
var polynomial = func() *big.Int {
	p := new(big.Int)
	for _, bit := range []int{128, 127, 126, 121, 0} {
		p.SetBit(p, bit, 1)
	}
	return p
}()

// p is POLYVAL: field elements are little-endian, and dot(a, b) = a * b * x^-128.
func (r *reference) p(h, m []byte) []byte {
	reverse := func(b []byte) *big.Int {
		b = bytes.Clone(b)
		slices.Reverse(b)
		return new(big.Int).SetBytes(b)
	}
	key, s := reverse(h), new(big.Int)
	for chunk := range slices.Chunk(m, 16) {
		s.Xor(s, reverse(append(bytes.Clone(chunk), make([]byte, 16-len(chunk))...)))
		product := new(big.Int)
		for i := range 128 {
			if key.Bit(i) == 1 {
				product.Xor(product, new(big.Int).Lsh(s, uint(i)))
			}
		}
		for range 128 {
			if product.Bit(0) == 1 {
				product.Xor(product, polynomial)
			}
			product.Rsh(product, 1)
		}
		s = product
	}
	out := s.FillBytes(make([]byte, 16))
	slices.Reverse(out)
	return out
}

// prf returns PRF(T, t, n) for cells with |X_R| = right.
func (r *reference) prf(T []byte, t, n, right int) (out []byte) {
	c := 0
	for 1<<c < (right+15)/16+(80+15)/16 {
		c++
	}
	iv := new(big.Int).SetBytes(r.p(r.b, T))
	for i := range c {
		iv.SetBit(iv, i, 0)
	}
	if t == 1 {
		iv.Add(iv, big.NewInt(int64((right+15)/16)))
	}
	block, _ := aes.NewCipher(r.k)
	for len(out) < n {
		b := iv.FillBytes(make([]byte, 16))
		block.Encrypt(b, b)
		out = append(out, b...)
		iv.Add(iv, big.NewInt(1))
	}
	return out[:n]
}

// enc returns Enc(cell), and sets T' to its tag.
func (r *reference) enc(cell []byte) []byte {
	xl, xr := cell[:16], cell[16:]
	d := r.p(r.ku, slices.Concat(r.tweak, []byte{r.cmd}, xr))
	yl := xor(xl, d)
	block, _ := aes.NewCipher(r.kb)
	block.Encrypt(yl, yl)
	yl = xor(yl, d)
	r.tweak = yl
	return slices.Concat(yl, xor(xr, r.prf(yl, 0, len(xr), len(xr))))
}

// originate is the last relay, inward.
func (r *reference) originate(cell []byte) []byte {
	out := r.enc(slices.Concat(r.n, cell[16:]))
	next := newReference(r.prf(out[:16], 1, 80, len(cell)-16), r.cmd)
	next.tweak = out[:16]
	*r = *next
	return out
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}

// TestReference compares layers with the reference, over several cells, at sizes on both sides of c's steps.
func TestReference(t *testing.T) {
	for _, size := range []int{17, 32, 64, 65, 509, 512, wire.CellSize, 2063, 4096} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			keys := testHopKeys(2)
			end, middle := NewLayer(&keys[1].Backward, size), NewLayer(&keys[0].Backward, size)
			refEnd, refMiddle := newReference(keys[1].Backward[:], cellCommand), newReference(keys[0].Backward[:], cellCommand)
			for i := range uint64(3) {
				cell := make([]byte, size)
				fillTest(cell, i)
				want := refMiddle.enc(refEnd.originate(cell))
				end.Originate(cell)
				middle.Pass(cell)
				equal(t, "cell", cell, want)
			}
		})
	}
}
