package onion

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"torproxy/wire"
	"torproxy/wire/onion/internal/ctr"
	"torproxy/wire/onion/internal/polyval"
)

// cellCommand is cmd, the byte between T' and X_R in ET's tweak. Tor puts a cell's command there; cells here have
// none, so it is one constant (SPEC.md section 4). Published vectors carry their own.
const cellCommand = 0x03

// state is Counter Galois Onion for one hop in one direction (SPEC.md section 4; Tor proposal 359; UIV+ of ePrint
// 2025/583). A cell is X_L | X_R on its way in and Y_L | Y_R on its way out, tag 16 | payload:
//
//	X_L                X_R                     ET   encrypts the tag under a tweak that is all of X_R
//	 |                  |                      PRF  makes the key stream for X_R from the encrypted tag
//	ET <-- T'|cmd|X_R --+
//	 |                  |                      T' becomes Y_L in every case of section 4, and so does N
//	 +------ PRF ---> xor                      where there is an Update: neither needs to be told
//	 |                  |
//	Y_L                Y_R
//
// A changed bit of X_R changes the tag, a changed tag changes all of Y_R, and T' carries both into the next cell.
// All work is in the caller's cell. The arrays d, iv and fresh are scratch: an array on the stack would escape
// through cipher.Block's interface, once per cell. Not for concurrent use.
type state struct {
	kb    cipher.Block // J: ET's block cipher
	ku    polyval.Key  // J: ET's hash key
	k     ctr.Stream   // S: the PRF's block cipher, and the key stream of its last call
	b     [16]byte     // S: the PRF's hash key, for one product only
	n     [16]byte     // N, the tag that the next cell must have at the end that recognises it
	tweak [16]byte     // T'

	cmd     byte
	right   int    // |X_R|
	counter uint32 // the low c bits of an iv, which start at zero

	d     [16]byte
	iv    [16]byte
	fresh [15 + KeySize]byte
}

// newState expands the keys KB | KU | K | B | N for cells of cellSize bytes; T' is zero.
func newState(keys *[KeySize]byte, cellSize int, cmd byte) state {
	if cellSize < wire.TagSize+1 {
		panic(fmt.Sprintf("onion: cells of %d bytes have no payload", cellSize))
	}
	right := cellSize - wire.TagSize
	s := state{cmd: cmd, right: right, counter: 1<<counterBits(right) - 1}
	s.rekey(keys[:])
	return s
}

// counterBits returns c for |X_R| = right: the smallest with 2^c >= the blocks that t = 0 and t = 1 use together,
// so that the counter never carries into the bits that the hash chose.
func counterBits(right int) (c int) {
	for used := blocks(right) + blocks(KeySize); 1<<c < used; {
		c++
	}
	return c
}

// blocks returns ceil(n/16).
func blocks(n int) int { return (n + 15) / 16 }

func (s *state) rekey(keys []byte) {
	s.kb = newAES(keys[0:16])
	s.ku.Init((*[16]byte)(keys[16:32]))
	s.k.Rekey(keys[32:48])
	s.b = [16]byte(keys[48:64])
	s.n = [16]byte(keys[64:80])
}

// encipher is Enc, and T' = Y_L. It leaves the PRF's key stream behind t = 0, for update.
func (s *state) encipher(cell []byte) {
	s.check(cell)
	s.etEncrypt(cell)
	s.tweak = [16]byte(cell)
	s.prf(&s.tweak)
	s.k.XORKeyStream(cell[16:], cell[16:])
}

// decipher is Dec, the inverse of Enc, and T' = Y_L, the tag that came. It leaves the PRF's key stream behind
// t = 0, for update.
func (s *state) decipher(cell []byte) {
	s.check(cell)
	came := [16]byte(cell)
	s.prf(&came)
	s.k.XORKeyStream(cell[16:], cell[16:])
	s.etDecrypt(cell)
	s.tweak = came
}

// check guards every access below: a cell of another length would be a bug of the caller, never of a peer.
func (s *state) check(cell []byte) {
	if len(cell) != wire.TagSize+s.right {
		panic(fmt.Sprintf("onion: a cell of %d bytes where the circuit has %d", len(cell), wire.TagSize+s.right))
	}
}

// etEncrypt is ET.Enc(X) = AES_KB(X xor d) xor d on the cell's tag.
func (s *state) etEncrypt(cell []byte) {
	s.hash(cell)
	subtle.XORBytes(cell, cell[:16], s.d[:])
	s.kb.Encrypt(cell, cell)
	subtle.XORBytes(cell, cell[:16], s.d[:])
}

// etDecrypt is ET.Dec, the inverse of ET.Enc under the same X_R.
func (s *state) etDecrypt(cell []byte) {
	s.hash(cell)
	subtle.XORBytes(cell, cell[:16], s.d[:])
	s.kb.Decrypt(cell, cell)
	subtle.XORBytes(cell, cell[:16], s.d[:])
}

// hash sets d = P(KU, T' | cmd | X_R). So that X_R need not be copied behind cmd, cmd stands in for the tag's last
// byte, the one before X_R, while the hash runs.
func (s *state) hash(cell []byte) {
	last := cell[15]
	cell[15] = s.cmd
	s.d = [16]byte{}
	s.ku.Update(&s.d, s.tweak[:])
	s.ku.Update(&s.d, cell[15:])
	cell[15] = last
}

// prf moves k's key stream to the beginning of PRF(T, 0, ...). PRF(T, 1, ...) is the same stream from block
// ceil(|X_R|/16) on: both have the iv P(B, T) with its low c bits cleared.
func (s *state) prf(t *[16]byte) {
	s.iv = *t
	polyval.Dot(&s.iv, &s.b)
	low := binary.BigEndian.Uint32(s.iv[12:])
	binary.BigEndian.PutUint32(s.iv[12:], low&^s.counter)
	s.k.Seek(s.iv[:])
}

// update is Update(N): KB | KU | K | B | N = PRF(N, 1, 80). In every use N is the Y_L of the cell just done, so
// the key stream that encipher or decipher left only has to be advanced to the next whole block.
func (s *state) update() {
	skip := -s.right & 15
	fresh := s.fresh[:skip+KeySize]
	clear(fresh)
	s.k.XORKeyStream(fresh, fresh)
	s.rekey(fresh[skip:])
	clear(fresh)
}
