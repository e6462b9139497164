package polyval

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// An implementation is one way to compute what the package exports. All of a build's implementations run
// through the same tests, whichever of them Init, Update and Dot choose.
type implementation struct {
	name   string
	init   func(k *Key, h *[BlockSize]byte)
	update func(k *Key, acc *[BlockSize]byte, data []byte)
	dot    func(acc, h *[BlockSize]byte)
}

func implementations() []implementation {
	all := []implementation{{"generic", initGeneric, updateGeneric, dotGeneric}}
	if accelerated {
		all = append(all, implementation{"assembly", (*Key).Init, updateNarrow, Dot})
	}
	if wide {
		all = append(all, implementation{"wide", (*Key).Init, (*Key).Update, Dot})
	}
	return all
}

// hash returns the hash of data under h.
func (im implementation) hash(h [BlockSize]byte, data []byte) (acc [BlockSize]byte) {
	var k Key
	im.init(&k, &h)
	im.update(&k, &acc, data)
	return acc
}

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

func (b hexBytes) block() [BlockSize]byte { return [BlockSize]byte(b) }

// vectors are the RFC's, in testdata/rfc8452.json.
type vectors struct {
	Field   []struct{ A, B, Sum, Product, Dot hexBytes }
	MulX    []struct{ In, Out hexBytes }
	Polyval []struct {
		Section          string
		Key, Input, Hash hexBytes
	}
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	raw, err := os.ReadFile("testdata/rfc8452.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Field) == 0 || len(v.MulX) == 0 || len(v.Polyval) == 0 {
		t.Fatal("testdata/rfc8452.json lacks a group of vectors")
	}
	return v
}

// TestReference holds the bitwise reference to the RFC, so that it may judge the others.
func TestReference(t *testing.T) {
	v := readVectors(t)
	for _, c := range v.MulX {
		if got := toBytes(refMulX(fromBytes(c.In))); got != c.Out.block() {
			t.Errorf("mulX(%x) = %x, want %x", c.In, got, c.Out)
		}
	}
	for _, c := range v.Field {
		a, b := fromBytes(c.A), fromBytes(c.B)
		if got := toBytes(refMul(a, b)); got != c.Product.block() {
			t.Errorf("%x * %x = %x, want %x", c.A, c.B, got, c.Product)
		}
		if got := toBytes(refDot(a, b)); got != c.Dot.block() {
			t.Errorf("dot(%x, %x) = %x, want %x", c.A, c.B, got, c.Dot)
		}
		if got := toBytes(a.Xor(a, b)); got != c.Sum.block() {
			t.Errorf("%x + %x = %x, want %x", c.A, c.B, got, c.Sum)
		}
	}
	for _, c := range v.Polyval {
		if got := refUpdate(c.Key.block(), [BlockSize]byte{}, c.Input); got != c.Hash.block() {
			t.Errorf("%s: POLYVAL(%x, %x) = %x, want %x", c.Section, c.Key, c.Input, got, c.Hash)
		}
	}
}

func TestVectors(t *testing.T) {
	v := readVectors(t)
	for _, im := range implementations() {
		for _, c := range v.Field {
			got, b := c.A.block(), c.B.block()
			im.dot(&got, &b)
			if got != c.Dot.block() {
				t.Errorf("%s: dot(%x, %x) = %x, want %x", im.name, c.A, c.B, got, c.Dot)
			}
		}
		for _, c := range v.Polyval {
			if got := im.hash(c.Key.block(), c.Input); got != c.Hash.block() {
				t.Errorf("%s: %s: POLYVAL(%x, %x) = %x, want %x", im.name, c.Section, c.Key, c.Input, got, c.Hash)
			}
		}
	}
}
