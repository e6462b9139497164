// Package ctr is AES-128 in counter mode (NIST SP 800-38A, section 6.5) that can be given a new counter block, or a
// new key, without an allocation: a cell needs a new counter at every hop, and cipher.NewCTR allocates 512 bytes for
// each, which at full speed is several times the traffic itself (proxy/PERFORMANCE.md).
//
// The cipher is the standard library's. What it keeps of a stream is a struct of which a Stream here rewrites three
// words, the counter and the position, and the expanded key:
//
//	CTR  = b (the expanded key) | ivlo | ivhi | offset          crypto/internal/fips140/aes/ctr.go
//
// Where these are is asked of reflection, by name and type, and what comes out is compared with cipher.NewCTR's,
// both once when the program starts. If either does not fit, in another release of Go, on another processor or with
// another implementation of AES, every call takes the plain way: NewCTR, and its allocation.
package ctr

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"reflect"
	"unsafe"
)

// KeySize and BlockSize are the sizes of a key and of a counter block, in bytes.
const (
	KeySize   = 16
	BlockSize = aes.BlockSize
)

// A Stream is a key stream. The zero Stream has no key: Rekey comes first, then Seek. It is a secret, and not for
// concurrent use.
type Stream struct {
	block  cipher.Block   // as long as state is not known
	stream cipher.Stream  // nil before the first Seek: who never has a cell has no state
	state  unsafe.Pointer // stream's, if it can be rewritten
}

// Format prints "(redacted)", whatever the verb.
func (*Stream) Format(f fmt.State, _ rune) { io.WriteString(f, "(redacted)") }

// Rekey gives the stream a key of 16 bytes. It does not keep key. Seek must come before XORKeyStream.
func (s *Stream) Rekey(key []byte) {
	block, err := aes.NewCipher(key[:KeySize])
	if err != nil {
		panic(fmt.Sprintf("ctr: %v", err)) // 16 bytes are a key
	}
	if s.state != nil {
		known.setKey(s.state, block)
		return
	}
	s.block = block
}

// Seek makes iv, 16 bytes, the block that is encrypted next.
func (s *Stream) Seek(iv []byte) {
	if s.state != nil {
		known.setCounter(s.state, iv)
		return
	}
	s.stream = cipher.NewCTR(s.block, iv)
	if known == nil {
		return
	}
	if s.state = known.of(s.stream); s.state != nil {
		s.block = nil // the state has a copy
	}
}

// XORKeyStream adds the key stream's next bytes to src, as cipher.Stream does.
func (s *Stream) XORKeyStream(dst, src []byte) { s.stream.XORKeyStream(dst, src) }

// known is where a stream's words are, nil if that is not known.
var known = look()

// layout is where the words of the standard library's stream are, in bytes from its beginning.
type layout struct {
	stream           reflect.Type // what NewCTR returns: a struct of one pointer, to the state
	block            reflect.Type // what aes.NewCipher points to, and the state has a copy of
	key              uintptr      // that copy
	low, high, place uintptr      // the counter's halves, and the position in the stream
}

// look finds the layout and tries it.
func look() *layout {
	block, err := aes.NewCipher(make([]byte, KeySize))
	if err != nil {
		return nil
	}
	l := layoutOf(block, cipher.NewCTR(block, make([]byte, BlockSize)))
	if l == nil || !l.works() {
		return nil
	}
	return l
}

// layoutOf reads the layout off a block and its stream, nil if anything of it is not as it should be.
func layoutOf(block cipher.Block, stream cipher.Stream) *layout {
	l := &layout{stream: reflect.TypeOf(stream)}
	if l.stream.Kind() != reflect.Struct || l.stream.NumField() != 1 || l.stream.Field(0).Type.Kind() != reflect.Pointer {
		return nil
	}
	state := l.stream.Field(0).Type.Elem()
	if reflect.TypeOf(block).Kind() != reflect.Pointer || state.Kind() != reflect.Struct || state.NumField() != 4 {
		return nil
	}
	l.block = reflect.TypeOf(block).Elem()
	word := reflect.TypeFor[uint64]()
	for _, f := range []struct {
		name string
		kind reflect.Type
		at   *uintptr
	}{{"b", l.block, &l.key}, {"ivlo", word, &l.low}, {"ivhi", word, &l.high}, {"offset", word, &l.place}} {
		found, ok := state.FieldByName(f.name)
		if !ok || found.Type != f.kind {
			return nil
		}
		*f.at = found.Offset
	}
	return l
}

// of returns a stream's state; nil if it is of another type than the one that was looked at.
func (l *layout) of(stream cipher.Stream) unsafe.Pointer {
	v := reflect.ValueOf(stream)
	if v.Type() != l.stream {
		return nil
	}
	return v.Field(0).UnsafePointer()
}

func (l *layout) setCounter(state unsafe.Pointer, iv []byte) {
	*(*uint64)(unsafe.Add(state, l.high)) = binary.BigEndian.Uint64(iv[:8])
	*(*uint64)(unsafe.Add(state, l.low)) = binary.BigEndian.Uint64(iv[8:BlockSize])
	*(*uint64)(unsafe.Add(state, l.place)) = 0
}

func (l *layout) setKey(state unsafe.Pointer, block cipher.Block) {
	from := reflect.ValueOf(block)
	if from.Type() != reflect.PointerTo(l.block) {
		panic("ctr: aes.NewCipher has changed its type")
	}
	reflect.NewAt(l.block, unsafe.Add(state, l.key)).Elem().Set(from.Elem())
}

// works compares rewritten streams with new ones: other counters, one that carries into its upper half, and another
// key, with a part of a block behind each, so that a position that stays would show.
func (l *layout) works() bool {
	var s Stream
	key, iv := make([]byte, KeySize), bytes.Repeat([]byte{0xff}, BlockSize)
	for i := range 8 {
		key[0], iv[i] = byte(i/3), byte(i)
		block, err := aes.NewCipher(key)
		if err != nil {
			return false
		}
		if s.state == nil {
			s.block, s.stream = block, cipher.NewCTR(block, make([]byte, BlockSize))
			if s.state = l.of(s.stream); s.state == nil {
				return false
			}
		}
		l.setKey(s.state, block)
		l.setCounter(s.state, iv)
		var got, want [5*BlockSize + 3]byte
		s.XORKeyStream(got[:], got[:])
		cipher.NewCTR(block, iv).XORKeyStream(want[:], want[:])
		if got != want {
			return false
		}
	}
	return true
}
