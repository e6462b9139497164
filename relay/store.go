package relay

import (
	"torproxy/wire/netdoc"
	"torproxy/wire/onion"
)

// OnionKey is an onion key with its period.
type OnionKey struct {
	Private *onion.PrivateKey
	From    int64 // Unix milliseconds: announced since then,
	Until   int64 // and until then
	Last    int64 // of a replaced key: until then a client's consensus may list it; else 0
}

func (k *OnionKey) document() netdoc.OnionKey {
	return netdoc.OnionKey{Public: k.Private.Public(), From: k.From, Until: k.Until}
}

// Store keeps a relay's onion keys beyond its process, and with them every packet that they have peeled:
// a key that came back without that memory would peel a recorded packet a second time (section 3.4 of
// SPEC.md). Save, Append and Expire may be called concurrently with one another.
type Store interface {
	// Keys returns the keys to go on with, the current one first, at most two; none: make a new one.
	// They are only keys of which every peeled packet is known.
	Keys() []OnionKey

	// Peeled calls f with each packet that was peeled by one of Keys and may come again.
	Peeled(f func(onion.ReplayEntry)) error

	// Save replaces the keys; they are on stable storage when it returns nil. The packets of keys that
	// are not among them may be forgotten.
	Save(keys []OnionKey) error

	// Append remembers a packet: it survives the process when it returns nil, though not necessarily the
	// machine, which is why Keys returns none after the machine has stopped uncleanly.
	Append(onion.ReplayEntry) error

	// Expire lets go of packets of hours before oldest, Unix seconds / 3600.
	Expire(oldest uint32) error
}

// memory is the Store of keys that end with their process.
type memory struct{}

func (memory) Keys() []OnionKey                     { return nil }
func (memory) Peeled(func(onion.ReplayEntry)) error { return nil }
func (memory) Save([]OnionKey) error                { return nil }
func (memory) Append(onion.ReplayEntry) error       { return nil }
func (memory) Expire(uint32) error                  { return nil }
