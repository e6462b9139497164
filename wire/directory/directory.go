// Package directory carries signed documents between authorities, relays and clients, as HTTP/3 requests on
// connections of wire/link (section 5 of SPEC.md).
//
//	relay     Publisher --- POST descriptor --->  RegistrationHandler           authority
//	anybody   Follower  --- GET consensus ----->  Follower.Mirror    authority, or any relay as a mirror
//	                    --- POST onionkeys ---->
//	authority Client    --- POST vote, echo, signature, GET descriptor --->     authority
//
// The transport authenticates the server by its identity and nothing else: a document is worth what its
// signatures are worth, wherever it came from. Every request has a deadline, every body and header a limit.
package directory

import (
	"net/netip"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// The resources of a directory server. Votes, echoes and signatures are for authorities among themselves.
const (
	ConsensusPath  = "/torproxy/1/consensus"  // GET: the newest consensus; ETag and If-None-Match, ?from=DIGEST
	KeysPath       = "/torproxy/1/onionkeys"  // POST: onion keys by their digests
	DescriptorPath = "/torproxy/1/descriptor" // POST: register; GET with "/" and a digest in hex: that descriptor
	VotePath       = "/torproxy/1/vote"       // POST
	EchoPath       = "/torproxy/1/echo"       // POST
	SignaturePath  = "/torproxy/1/signature"  // POST
)

// ContentType is the media type of every signed document.
const ContentType = "application/cbor"

// Peer is a directory server: who it must be, and where it is tried, in order.
type Peer struct {
	ID        wire.ID
	Addresses []netip.AddrPort
}

// PeerOf returns an authority as a Peer.
func PeerOf(a netdoc.Authority) Peer { return Peer{ID: a.ID, Addresses: a.Addresses} }
