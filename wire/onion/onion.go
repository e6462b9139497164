// Package onion holds the cryptography of a circuit: the packets that build it, CREATE and CREATED (SPEC.md
// section 3), and the layer of encryption that each hop then puts on its cells (SPEC.md section 4).
//
// The packets, in the order in which they travel:
//
//	CREATE, 9792 bytes: out, through hops 1 to n. Each relay takes one layer off, and what is left is again 9792.
//
//	0            1120      1152                                                    9792
//	+------------+---------+----------------------------------------------------------+
//	| enc        | tag     | body                                                     |
//	+------------+---------+----------------------------------------------------------+
//	                       |  decrypted: slot 1224, and the body of what is left
//	                       v
//	0      1     2     6          38       70         72          1192       1224
//	+------+-----+-----+----------+--------+----------+------------+----------+--- - -
//	| role |flags| hour| next     | C      | reserved | enc        | tag      | body
//	+------+-----+-----+----------+--------+----------+------------+----------+--- - -
//	|<- head: for this hop ------------------------->|<- the packet for the next hop -
//
//	CREATED, 576 bytes: back, through hops n to 1. Each relay puts its slot in front and drops the last 72 bytes.
//
//	0        1          8            40       56       72                           576
//	+--------+----------+------------+--------+--------+------------------------------+
//	| status | reserved | Y          | auth   | back   | what came back, cut           |
//	+--------+----------+------------+--------+--------+------------------------------+
//
// A client calls Create, sends the packet, and gives the answer to Handshake.Finish, whose keys make a Client. A
// relay calls Keyring.Peel, forwards Peeled.Packet, and calls Peeled.Answer, whose keys make two Layers.
//
// The package is pure: no network, no clock, no logging. Randomness is the process's (crypto/rand).
package onion

import (
	"torproxy/wire"
)

// Sizes in bytes of the parts of CREATE and CREATED (SPEC.md sections 3.2 and 3.3).
const (
	encSize  = 1120 // HPKE's encapsulated key: ML-KEM-768 ciphertext 1088 | X25519 share 32
	macSize  = 32   // HMAC-SHA256
	headSize = 72
	slotSize = headSize + encSize + macSize         // 1224: what one hop takes off
	bodySize = headSize + (wire.MaxHops-1)*slotSize // 8640
	keyRange = bodySize + slotSize                  // 9864: bytes of KS(stream) that one hop uses

	answerSize = 72 // one slot of CREATED
	dhSize     = 32 // an X25519 public key
	authSize   = 16
	backSize   = 16
)

// These compile only while the parts of CREATE add up, and the eight slots of CREATED.
var (
	_ [wire.CreateSize]byte  = [encSize + macSize + bodySize]byte{}
	_ [wire.CreatedSize]byte = [wire.MaxHops * answerSize]byte{}
)
