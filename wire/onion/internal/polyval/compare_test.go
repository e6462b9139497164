package polyval

import (
	"bytes"
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"
)

// longest is the longest input of these tests: that of a cell and more.
const longest = 2100

func newRandom() *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte([]byte("polyval: the same inputs, always")))
}

// corpus returns elements at the field's edges and random ones.
func corpus(r *rand.ChaCha8) [][BlockSize]byte {
	blocks := [][BlockSize]byte{
		{},               // 0
		{0: 1},           // 1
		{0: 1, 15: 0xc2}, // x^128
		{15: 0x80},       // x^127
		{7: 0x80, 8: 1},  // x^63 + x^64, where the halves meet
		toBytes(inverse), // x^-128
		[BlockSize]byte(bytes.Repeat([]byte{0xff}, BlockSize)),
		[BlockSize]byte(bytes.Repeat([]byte{0x11}, BlockSize)), // one column of multiply's four, full
		[BlockSize]byte(bytes.Repeat([]byte{0x88}, BlockSize)),
	}
	for range 16 {
		blocks = append(blocks, randomBlock(r))
	}
	return blocks
}

func randomBlock(r *rand.ChaCha8) (b [BlockSize]byte) {
	r.Read(b[:])
	return b
}

// TestMultiply holds the portable multiplier to shifting and adding, at the numbers that would carry if a
// column could overflow too.
func TestMultiply(t *testing.T) {
	r := newRandom()
	words := []uint64{0, 1, 1 << 59, 1 << 60, 1 << 63, 1<<60 - 1, 0xf << 60, 1<<64 - 1}
	for c := range 4 {
		words = append(words, 0x1111111111111111<<c)
	}
	for range 100 {
		words = append(words, r.Uint64())
	}
	for _, x := range words {
		for _, y := range words {
			var hi, lo uint64
			for i := range 64 {
				if y>>i&1 == 1 {
					lo ^= x << i
					hi ^= x >> (64 - i)
				}
			}
			if gotHi, gotLo := multiply(x, y); gotHi != hi || gotLo != lo {
				t.Fatalf("multiply(%#x, %#x) = %#x, %#x, want %#x, %#x", x, y, gotHi, gotLo, hi, lo)
			}
		}
	}
}

// TestDotBasis multiplies every x^i with every x^j. The product is linear in both, so with TestDot's sums this
// covers each path of a bit through the multiplier and the reduction.
func TestDotBasis(t *testing.T) {
	var want [255][BlockSize]byte // want[n] is x^(n-128)
	for n, p := 0, inverse; n < len(want); n, p = n+1, refMulX(p) {
		want[n] = toBytes(p)
	}
	for _, im := range implementations() {
		for i := range 128 {
			for j := range 128 {
				got, h := toBytes(polynomial(i)), toBytes(polynomial(j))
				im.dot(&got, &h)
				if got != want[i+j] {
					t.Fatalf("%s: dot(x^%d, x^%d) = %x, want %x", im.name, i, j, got, want[i+j])
				}
			}
		}
	}
}

func TestDot(t *testing.T) {
	blocks := corpus(newRandom())
	for _, a := range blocks {
		for _, h := range blocks {
			want := toBytes(refDot(fromBytes(a[:]), fromBytes(h[:])))
			for _, im := range implementations() {
				got := a
				im.dot(&got, &h)
				if got != want {
					t.Errorf("%s: dot(%x, %x) = %x, want %x", im.name, a, h, got, want)
				}
				if got := im.hash(h, a[:]); got != want {
					t.Errorf("%s: POLYVAL(%x, %x) = %x, want %x", im.name, h, a, got, want)
				}
			}
		}
	}
}

// TestDotSquare checks that acc and h may be the same block.
func TestDotSquare(t *testing.T) {
	for _, a := range corpus(newRandom()) {
		want := toBytes(refDot(fromBytes(a[:]), fromBytes(a[:])))
		for _, im := range implementations() {
			got := a
			im.dot(&got, &got)
			if got != want {
				t.Errorf("%s: dot(%x, itself) = %x, want %x", im.name, a, got, want)
			}
		}
	}
}

// TestInit checks that every implementation makes the same Key, so that all of it is tested, and that
// re-initialising leaves nothing of the key before.
func TestInit(t *testing.T) {
	for _, im := range implementations() {
		var k Key
		for _, h := range corpus(newRandom()) {
			im.init(&k, &h)
			var want Key
			for i, p := 0, fromBytes(h[:]); i < aggregate; i, p = i+1, refDot(p, fromBytes(h[:])) {
				want.power[i] = split(p)
				want.fold[i] = want.power[i].lo ^ want.power[i].hi
			}
			if k != want {
				t.Errorf("%s: Init(%x) = %x, %x, want %x, %x", im.name, h, k.power, k.fold, want.power, want.fold)
			}
		}
	}
}

func split(p *big.Int) element {
	hi := new(big.Int).Rsh(p, 64)
	return element{new(big.Int).Sub(p, new(big.Int).Lsh(hi, 64)).Uint64(), hi.Uint64()}
}

// TestLengths runs every length at every alignment, with the sum at another alignment, through every
// implementation.
func TestLengths(t *testing.T) {
	r := newRandom()
	h, start, data := randomBlock(r), randomBlock(r), make([]byte, longest)
	r.Read(data)
	want := prefixes(h, start, data)

	buffer := make([]byte, longest+BlockSize)
	sums := make([]byte, 3*BlockSize)
	for _, im := range implementations() {
		var k Key
		im.init(&k, &h)
		initial := k
		for align := range BlockSize {
			aligned := buffer[align:][:longest]
			copy(aligned, data)
			acc := (*[BlockSize]byte)(sums[BlockSize-align+5:])
			for n := range longest + 1 {
				*acc = start
				im.update(&k, acc, aligned[:n])
				if *acc != want[n] {
					t.Fatalf("%s: %d bytes at alignment %d: %x, want %x", im.name, n, align, *acc, want[n])
				}
			}
			if !bytes.Equal(aligned, data) {
				t.Fatalf("%s: Update changed its input", im.name)
			}
		}
		if k != initial {
			t.Fatalf("%s: Update changed the key", im.name)
		}
	}
}

// prefixes returns by the reference what start becomes for each length of a prefix of data.
func prefixes(h, start [BlockSize]byte, data []byte) [][BlockSize]byte {
	want := make([][BlockSize]byte, len(data)+1)
	for n := range want {
		whole := max(n-1, 0) / BlockSize * BlockSize
		if n == 0 {
			want[n] = start
			continue
		}
		want[n] = refUpdate(h, want[whole], data[whole:n])
	}
	return want
}

// TestSplit checks that a hash may be fed in pieces of whole blocks.
func TestSplit(t *testing.T) {
	r := newRandom()
	h, data := randomBlock(r), make([]byte, 2049)
	r.Read(data)
	for _, im := range implementations() {
		want := im.hash(h, data)
		for cut := 0; cut < len(data); cut += BlockSize {
			var k Key
			var acc [BlockSize]byte
			im.init(&k, &h)
			im.update(&k, &acc, data[:cut])
			im.update(&k, &acc, data[cut:])
			if acc != want {
				t.Fatalf("%s: cut at %d: %x, want %x", im.name, cut, acc, want)
			}
		}
	}
}

// TestRandom holds all implementations to the first one, under many keys, and the exported functions with them.
func TestRandom(t *testing.T) {
	r := newRandom()
	keys := corpus(r)
	for range 500 {
		keys = append(keys, randomBlock(r))
	}
	data := make([]byte, longest)
	for _, h := range keys {
		r.Read(data)
		start, n := randomBlock(r), r.Uint64()%(longest+1)
		checkAgree(t, h, start, data[:n])
	}
}

// checkAgree checks that all implementations and the exported functions say the same.
func checkAgree(t *testing.T, h, start [BlockSize]byte, data []byte) {
	t.Helper()
	exported := implementation{"exported", (*Key).Init, (*Key).Update, Dot}
	var wantSum, wantDot [BlockSize]byte
	for i, im := range append(implementations(), exported) {
		var k Key
		sum, product := start, start
		im.init(&k, &h)
		im.update(&k, &sum, data)
		im.dot(&product, &h)
		if i == 0 {
			wantSum, wantDot = sum, product
			continue
		}
		if sum != wantSum {
			t.Errorf("%s: Update(%x, %x) under %x = %x, want %x", im.name, start, data, h, sum, wantSum)
		}
		if product != wantDot {
			t.Errorf("%s: dot(%x, %x) = %x, want %x", im.name, start, h, product, wantDot)
		}
	}
}

// TestRedacted checks that no verb prints a key.
func TestRedacted(t *testing.T) {
	var k Key
	k.Init(&[BlockSize]byte{0: 0xab})
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d", "%s"} {
		for _, got := range []string{fmt.Sprintf(verb, k), fmt.Sprintf(verb, &k)} {
			if got != "(redacted)" {
				t.Errorf("%s prints %q", verb, got)
			}
		}
	}
}

// TestAllocations checks that a cell's hash leaves the heap alone.
func TestAllocations(t *testing.T) {
	data := make([]byte, hashed)
	allocations := testing.AllocsPerRun(100, func() {
		var k Key
		var acc, h [BlockSize]byte
		k.Init(&h)
		k.Update(&acc, data[:16])
		k.Update(&acc, data)
		Dot(&acc, &h)
	})
	if allocations != 0 {
		t.Errorf("%v allocations, want none", allocations)
	}
}
