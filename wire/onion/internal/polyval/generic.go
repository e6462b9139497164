package polyval

import (
	"encoding/binary"
	"math/bits"
)

func initGeneric(k *Key, h *[BlockSize]byte) {
	k.power[0] = load(h[:])
	k.fold[0] = k.power[0].lo ^ k.power[0].hi
	for i := 1; i < aggregate; i++ {
		k.power[i] = dot(k.power[i-1], k, 0)
		k.fold[i] = k.power[i].lo ^ k.power[i].hi
	}
}

// updateGeneric is Update in portable Go. The partial block needs no special case: load pads it.
func updateGeneric(k *Key, acc *[BlockSize]byte, data []byte) {
	sum := load(acc[:])
	for len(data) > 0 {
		blocks := min((len(data)+BlockSize-1)/BlockSize, aggregate)
		var p product
		for i := blocks - 1; i >= 0; i-- {
			n := min(len(data), BlockSize)
			x := load(data[:n])
			x.lo ^= sum.lo
			x.hi ^= sum.hi
			sum = element{} // only the first block of the eight meets the sum so far
			p.add(x, k, i)
			data = data[n:]
		}
		sum = p.reduce()
	}
	sum.store(acc)
}

func dotGeneric(acc, h *[BlockSize]byte) {
	y := load(h[:])
	k := Key{power: [aggregate]element{y}, fold: [aggregate]uint64{y.lo ^ y.hi}}
	dot(load(acc[:]), &k, 0).store(acc)
}

// dot returns dot(x, H^(i+1)).
func dot(x element, k *Key, i int) element {
	var p product
	p.add(x, k, i)
	return p.reduce()
}

// load returns the element whose bytes are b, padded with zeros to a block.
func load(b []byte) element {
	if len(b) < BlockSize {
		var block [BlockSize]byte
		copy(block[:], b)
		b = block[:]
	}
	return element{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

func (e element) store(b *[BlockSize]byte) {
	binary.LittleEndian.PutUint64(b[:8], e.lo)
	binary.LittleEndian.PutUint64(b[8:], e.hi)
}

// A product is a sum of products of elements, not yet reduced: Karatsuba's three parts of 128 bits each, the
// products of the low halves, of the high halves and of the halves' sums.
type product struct{ lo0, lo1, mid0, mid1, hi0, hi1 uint64 }

// add adds x * H^(i+1) to p.
func (p *product) add(x element, k *Key, i int) {
	h1, h0 := multiply(x.lo, k.power[i].lo)
	p.lo0 ^= h0
	p.lo1 ^= h1
	h1, h0 = multiply(x.hi, k.power[i].hi)
	p.hi0 ^= h0
	p.hi1 ^= h1
	h1, h0 = multiply(x.lo^x.hi, k.fold[i])
	p.mid0 ^= h0
	p.mid1 ^= h1
}

// reduce returns p * x^-128. It is Montgomery's reduction: the modulus ends in ... + 1, so adding the modulus
// times the lowest word clears that word, and what is left after two words is the quotient by x^128.
func (p *product) reduce() element {
	w0 := p.lo0
	w1 := p.lo1 ^ p.mid0 ^ p.lo0 ^ p.hi0
	w2 := p.hi0 ^ p.mid1 ^ p.lo1 ^ p.hi1
	w3 := p.hi1
	// Over w0 stand x^128, and x^127 + x^126 + x^121: shifts to the left in word 1, to the right in word 2.
	w1 ^= w0<<63 ^ w0<<62 ^ w0<<57
	w2 ^= w0 ^ w0>>1 ^ w0>>2 ^ w0>>7
	w2 ^= w1<<63 ^ w1<<62 ^ w1<<57
	w3 ^= w1 ^ w1>>1 ^ w1>>2 ^ w1>>7
	return element{w2, w3}
}

// multiply returns the carry-less product of x and y. Integer multiplication would carry, so each factor is
// spread over four masks that keep every fourth bit: each column of such a product is a sum of at most as many
// ones as the sparser factor has, and its lowest bit is the carry-less result. Columns are four bits wide and
// must not reach 16, so x lends the multiplication only its low 60 bits, 15 per mask, and the four others are
// added by hand. math/bits promises that Mul64 takes the same time for all inputs.
func multiply(x, y uint64) (hi, lo uint64) {
	const (
		m0 = 0x1111111111111111
		m1 = m0 << 1
		m2 = m0 << 2
		m3 = m0 << 3
		t  = 1<<60 - 1
	)
	x0, x1, x2, x3 := x&m0&t, x&m1&t, x&m2&t, x&m3&t
	y0, y1, y2, y3 := y&m0, y&m1, y&m2, y&m3
	h0, l0 := column(x0, y0, x1, y3, x2, y2, x3, y1)
	h1, l1 := column(x0, y1, x1, y0, x2, y3, x3, y2)
	h2, l2 := column(x0, y2, x1, y1, x2, y0, x3, y3)
	h3, l3 := column(x0, y3, x1, y2, x2, y1, x3, y0)
	hi = h0&m0 | h1&m1 | h2&m2 | h3&m3
	lo = l0&m0 | l1&m1 | l2&m2 | l3&m3

	z0, z1, z2, z3 := y&-(x>>60&1), y&-(x>>61&1), y&-(x>>62&1), y&-(x>>63)
	hi ^= z0>>4 ^ z1>>3 ^ z2>>2 ^ z3>>1
	lo ^= z0<<60 ^ z1<<61 ^ z2<<62 ^ z3<<63
	return hi, lo
}

// column returns the sum, without carries, of four integer products whose columns fall on the same bits.
func column(a, b, c, d, e, f, g, h uint64) (hi, lo uint64) {
	h0, l0 := bits.Mul64(a, b)
	h1, l1 := bits.Mul64(c, d)
	h2, l2 := bits.Mul64(e, f)
	h3, l3 := bits.Mul64(g, h)
	return h0 ^ h1 ^ h2 ^ h3, l0 ^ l1 ^ l2 ^ l3
}
