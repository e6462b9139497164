package ctr

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// bothWays runs a test with the states that are known, and without.
func bothWays(t *testing.T, f func(t *testing.T)) {
	t.Run("rewritten", func(t *testing.T) {
		if known == nil {
			t.Fatal("the standard library's stream is not as it was: cells cost an allocation at each hop")
		}
		f(t)
	})
	t.Run("new", func(t *testing.T) {
		defer func(was *layout) { known = was }(known)
		known = nil
		f(t)
	})
}

// TestStream compares a stream that is moved about and given other keys with new ones.
func TestStream(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		rnd := rand.NewChaCha8([32]byte{1})
		var s Stream
		key, iv := make([]byte, KeySize), make([]byte, BlockSize)
		for i := range 500 {
			if i%7 == 0 {
				rnd.Read(key)
				s.Rekey(key)
			}
			rnd.Read(iv)
			if i%5 == 0 {
				copy(iv[8:], bytes.Repeat([]byte{0xff}, 8)) // the counter carries
			}
			s.Seek(iv)
			block, err := aes.NewCipher(key)
			if err != nil {
				t.Fatal(err)
			}
			reference := cipher.NewCTR(block, iv)
			for range 3 {
				got := make([]byte, i%300)
				rnd.Read(got)
				want := bytes.Clone(got)
				s.XORKeyStream(got, got)
				reference.XORKeyStream(want, want)
				if !bytes.Equal(got, want) {
					t.Fatalf("round %d, %d bytes: the streams differ", i, len(got))
				}
			}
		}
	})
}

// TestVector is F.5.1 of NIST SP 800-38A.
func TestVector(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		var s Stream
		s.Rekey(unhex("2b7e151628aed2a6abf7158809cf4f3c"))
		for range 2 {
			s.Seek(unhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"))
			got := unhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
			s.XORKeyStream(got, got)
			if want := "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"; fmt.Sprintf("%x", got) != want {
				t.Errorf("got %x, want %s", got, want)
			}
		}
	})
}

func unhex(s string) (b []byte) {
	fmt.Sscanf(s, "%x", &b)
	return b
}

// TestAllocations holds the reason of this package.
func TestAllocations(t *testing.T) {
	var s Stream
	s.Rekey(make([]byte, KeySize))
	iv, b := make([]byte, BlockSize), make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() { s.Seek(iv); s.XORKeyStream(b, b) }); n != 0 {
		t.Errorf("%v allocations for a new counter", n)
	}
}

// TestOtherLayouts checks that streams of another make are not taken for what they are not.
func TestOtherLayouts(t *testing.T) {
	block, err := aes.NewCipher(make([]byte, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	stream := cipher.NewCTR(block, make([]byte, BlockSize))
	for name, l := range map[string]*layout{
		"a wrapped block":          layoutOf(struct{ cipher.Block }{block}, stream),
		"a stream of no pointer":   layoutOf(block, plain{}),
		"a state of other types":   layoutOf(block, pointing{&words{1, 2, 3, 4}}),
		"the generic stream":       layoutOf(block, cipher.NewCTR(struct{ cipher.Block }{block}, make([]byte, BlockSize))),
		"a pointer to something":   layoutOf(block, &plain{}),
		"a struct of two pointers": layoutOf(block, two{new(int), new(int)}),
	} {
		if l != nil {
			t.Errorf("%s passes for the standard library's", name)
		}
	}
	if known != nil && known.of(plain{}) != nil {
		t.Error("another stream has a state")
	}
}

type plain struct{ cipher.Stream }

type pointing struct{ c *words }

type words struct{ b, ivlo, ivhi, offset uint64 }

func (pointing) XORKeyStream(dst, src []byte) {}

type two struct{ a, b *int }

func (two) XORKeyStream(dst, src []byte) {}

func TestRedacted(t *testing.T) {
	var s Stream
	s.Rekey([]byte("0123456789abcdef"))
	if got := fmt.Sprintf("%v %+v %#v %s", &s, &s, &s, &s); strings.Count(got, "(redacted)") != 4 || strings.Contains(got, "48") {
		t.Error(got)
	}
}

func BenchmarkSeek(b *testing.B) {
	var s Stream
	s.Rekey(make([]byte, KeySize))
	iv, buf := make([]byte, BlockSize), make([]byte, 1216)
	block, err := aes.NewCipher(make([]byte, KeySize))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("way=rewritten", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Seek(iv)
			s.XORKeyStream(buf, buf)
		}
	})
	b.Run("way=new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			cipher.NewCTR(block, iv).XORKeyStream(buf, buf)
		}
	})
	key := make([]byte, KeySize)
	b.Run("way=rekeyed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Rekey(key)
			s.Seek(iv)
		}
	})
}
