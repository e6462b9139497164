package netdoc

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"torproxy/wire"
)

// The documents that the tests start from, all made of fixed seeds.

const (
	testStart = int64(1_790_000_000_000)
	testHour  = int64(3_600_000)
)

// testKey returns the private key of a seed.
func testKey(seed string) ed25519.PrivateKey {
	h := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(h[:])
}

// testNetwork returns a network of n authorities and their keys in the order of its list.
func testNetwork(n int) (*Network, []ed25519.PrivateKey) {
	keys := make([]ed25519.PrivateKey, n)
	net := &Network{
		Version: Version,
		Name:    "testnet",
		Params: Params{
			Round:            Duration(5e9),
			Start:            testStart,
			InitialRound:     Duration(250e6),
			InitialRounds:    8,
			MinRelays:        5,
			OnionKeyLifetime: Duration(24 * 3600e9),
		},
	}
	for i := range keys {
		keys[i] = testKey(fmt.Sprintf("authority %d", i))
		net.Authorities = append(net.Authorities, Authority{
			Nickname:  fmt.Sprintf("authority%d", i+1),
			ID:        wire.PublicID(keys[i]),
			Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(7001+i))},
		})
	}
	return net, keys
}

func testOnionKey(seed string, from int64) OnionKey {
	public := make([]byte, 0, OnionKeySize)
	for i := 0; len(public) < OnionKeySize; i++ {
		h := sha256.Sum256(fmt.Append(nil, seed, i))
		public = append(public, h[:]...)
	}
	return OnionKey{Public: public[:OnionKeySize], From: from, Until: from + 24*testHour}
}

func mustPolicy(s string) Policy {
	p, err := ParsePolicy(s)
	if err != nil {
		panic(err)
	}
	return p
}

// testDescriptor returns a descriptor that uses every field, and its key.
func testDescriptor() (*Descriptor, ed25519.PrivateKey) {
	key := testKey("relay")
	family := []wire.ID{wire.PublicID(testKey("cousin 1")), wire.PublicID(testKey("cousin 2"))}
	slices.SortFunc(family, CompareIDs)
	return &Descriptor{
		Version:  Version,
		ID:       wire.PublicID(key),
		Nickname: "Relay-1",
		Addresses: []netip.AddrPort{
			netip.MustParseAddrPort("192.0.2.7:9001"), netip.MustParseAddrPort("[2001:db8::7]:9001"),
		},
		OnionKeys: []OnionKey{testOnionKey("new", testStart), testOnionKey("old", testStart-24*testHour)},
		Policy:    mustPolicy("reject *:25,accept *:80-443,accept [2001:db8::]/32:22"),
		Family:    family,
		Bandwidth: 12_500_000,
		Protocols: []uint64{1, 2},
		Software:  "torproxy 0.1",
		Published: testStart,
	}, key
}

// testRelays returns n relays in order.
func testRelays(n int) []Relay {
	relays := make([]Relay, n)
	for i := range relays {
		seed := fmt.Sprintf("relay %d", i)
		var addr [4]byte
		binary.BigEndian.PutUint32(addr[:], 0x0a000001+uint32(i))
		relays[i] = Relay{
			ID:         wire.PublicID(testKey(seed)),
			Descriptor: DigestOf([]byte(seed)),
			Nickname:   fmt.Sprintf("relay%d", i),
			Addresses:  []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4(addr), 9001)},
			Key:        keyRef(testOnionKey(seed, testStart)),
			Weight:     uint64(1000 + i),
			Flags:      Running | Fast,
		}
		if i%3 == 0 {
			relays[i].Policy = mustPolicy("accept private:*,accept *:*")
			relays[i].Flags |= Exit
		}
	}
	slices.SortFunc(relays, func(a, b Relay) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return relays
}

func testVote(net *Network, i int) *Vote {
	v := &Vote{
		Network:    net.Name,
		Authority:  net.Authorities[i].ID,
		ValidAfter: testStart + testHour,
		Published:  testStart + testHour - 1000,
		Params:     net.Params.Consensus(),
	}
	for _, r := range testRelays(6) {
		v.Relays = append(v.Relays, VoteEntry{
			ID: r.ID, Descriptor: r.Descriptor, Published: testStart, Flags: r.Flags, Measured: r.Weight,
		})
	}
	return v
}

// testRefs returns a reference to one vote of each authority, in order.
func testRefs(net *Network) []VoteRef {
	var refs []VoteRef
	for _, a := range net.Authorities {
		refs = append(refs, VoteRef{Authority: a.ID, Digest: DigestOf(a.ID[:])})
	}
	slices.SortFunc(refs, CompareVoteRefs)
	return refs
}

func testEcho(net *Network, i int) *Echo {
	return &Echo{
		Network:    net.Name,
		Authority:  net.Authorities[i].ID,
		ValidAfter: testStart + testHour,
		Votes:      testRefs(net),
	}
}

func testConsensus(net *Network, relays int) *Consensus {
	return &Consensus{
		Network:    net.Name,
		ValidAfter: testStart + testHour,
		FreshUntil: testStart + 2*testHour,
		ValidUntil: testStart + 4*testHour,
		Params:     net.Params.Consensus(),
		Voters:     testRefs(net),
		Relays:     testRelays(relays),
	}
}

// sealed encodes c and seals it with the signatures of keys.
func sealed(t testing.TB, c *Consensus, keys ...ed25519.PrivateKey) []byte {
	t.Helper()
	doc, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var sigs []Signature
	for _, key := range keys {
		sigs = append(sigs, SignConsensus(doc, key))
	}
	return SealConsensus(doc, sigs)
}

// must unwraps what cannot fail in a test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func keyRef(k OnionKey) KeyRef { return k.Ref() }
