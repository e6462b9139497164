package polyval

import (
	"strconv"
	"testing"
)

// hashed is how much of a cell a layer hashes behind the tweak: a byte, and all but the tag.
const hashed = 1217

func BenchmarkUpdate(b *testing.B) {
	for _, im := range implementations() {
		for _, n := range []int{16, 512, hashed} {
			b.Run(im.name+"/"+strconv.Itoa(n), func(b *testing.B) {
				var k Key
				h, acc, data := [BlockSize]byte{1, 2, 3}, [BlockSize]byte{}, make([]byte, n)
				im.init(&k, &h)
				b.SetBytes(int64(n))
				for b.Loop() {
					im.update(&k, &acc, data)
				}
			})
		}
	}
}

func BenchmarkInit(b *testing.B) {
	for _, im := range implementations() {
		b.Run(im.name, func(b *testing.B) {
			var k Key
			h := [BlockSize]byte{1, 2, 3}
			for b.Loop() {
				im.init(&k, &h)
			}
		})
	}
}

func BenchmarkDot(b *testing.B) {
	for _, im := range implementations() {
		b.Run(im.name, func(b *testing.B) {
			h, acc := [BlockSize]byte{1, 2, 3}, [BlockSize]byte{4, 5, 6}
			for b.Loop() {
				im.dot(&acc, &h)
			}
		})
	}
}

// BenchmarkCell is the hash at a circuit's end: a new key, a block of tag, and the rest of the cell.
func BenchmarkCell(b *testing.B) {
	for _, im := range implementations() {
		b.Run(im.name, func(b *testing.B) {
			var k Key
			h, acc, data := [BlockSize]byte{1, 2, 3}, [BlockSize]byte{}, make([]byte, hashed)
			for b.Loop() {
				im.init(&k, &h)
				im.update(&k, &acc, data[:BlockSize])
				im.update(&k, &acc, data)
			}
		})
	}
}
