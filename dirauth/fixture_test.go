package dirauth

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// key returns the key of that name, the same in every run.
func key(name string, i int) ed25519.PrivateKey {
	seed := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, i))
	return ed25519.NewKeyFromSeed(seed[:])
}

// town is a network of n authorities, with their keys.
type town struct {
	*netdoc.Network
	keys []ed25519.PrivateKey
}

func newTown(n int) *town {
	w := &town{Network: &netdoc.Network{Version: netdoc.Version, Name: "test", Params: netdoc.Params{
		Round: netdoc.Duration(5 * time.Second), MinRelays: 5, OnionKeyLifetime: netdoc.Duration(24 * time.Hour),
	}}}
	for i := range n {
		w.keys = append(w.keys, key("authority", i))
		w.Authorities = append(w.Authorities, netdoc.Authority{
			Nickname:  fmt.Sprintf("authority%d", i+1),
			ID:        wire.PublicID(w.keys[i]),
			Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(7000+i))},
		})
	}
	return w
}

// validAfter is the round of pure tests.
var validAfter = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// describe returns relay i's descriptor, signed, with changes.
func describe(t testing.TB, i int, changes ...func(*netdoc.Descriptor)) *netdoc.Descriptor {
	t.Helper()
	k := key("relay", i)
	onion := make([]byte, netdoc.OnionKeySize)
	binary.BigEndian.PutUint32(onion, uint32(i)+1)
	d := &netdoc.Descriptor{
		Version:   netdoc.Version,
		ID:        wire.PublicID(k),
		Nickname:  fmt.Sprintf("relay%d", i),
		Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)}), 9000)},
		OnionKeys: []netdoc.OnionKey{{Public: onion, From: validAfter.Add(-time.Hour).UnixMilli(), Until: validAfter.Add(24 * time.Hour).UnixMilli()}},
		Policy:    public,
		Bandwidth: 1000,
		Protocols: []uint64{wire.Version},
		Software:  "test",
		Published: validAfter.Add(-time.Minute).UnixMilli(),
	}
	for _, change := range changes {
		change(d)
	}
	raw, err := d.Sign(k)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := netdoc.ParseDescriptor(raw)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// runs is an entry that lists a descriptor's relay as running, with further flags.
func runs(d *netdoc.Descriptor, flags ...netdoc.Flags) netdoc.VoteEntry {
	e := netdoc.VoteEntry{ID: d.ID, Descriptor: d.Digest(), Published: d.Published, Flags: netdoc.Running}
	for _, f := range flags {
		e.Flags |= f
	}
	return e
}

func measured(e netdoc.VoteEntry, bandwidth uint64) netdoc.VoteEntry {
	e.Measured = bandwidth
	return e
}

// vote returns authority i's vote for validAfter.
func (w *town) vote(t testing.TB, i int, entries ...netdoc.VoteEntry) *netdoc.Vote {
	t.Helper()
	return w.voteWith(t, i, nil, entries...)
}

func (w *town) voteWith(t testing.TB, i int, change func(*netdoc.Vote), entries ...netdoc.VoteEntry) *netdoc.Vote {
	t.Helper()
	slices.SortFunc(entries, func(a, b netdoc.VoteEntry) int { return netdoc.CompareIDs(a.ID, b.ID) })
	v := &netdoc.Vote{
		Network: w.Name, Authority: w.Authorities[i].ID, ValidAfter: validAfter.UnixMilli(),
		Published: validAfter.Add(-time.Second).UnixMilli(), Params: w.Params.Consensus(), Relays: entries,
	}
	if change != nil {
		change(v)
	}
	raw, err := v.Sign(w.keys[i])
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := netdoc.ParseVote(raw, w.Network)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// echo returns authority i's echo of votes.
func (w *town) echo(t testing.TB, i int, votes ...*netdoc.Vote) *netdoc.Echo {
	t.Helper()
	e := &netdoc.Echo{Network: w.Name, Authority: w.Authorities[i].ID, ValidAfter: validAfter.UnixMilli()}
	for _, v := range votes {
		e.Votes = append(e.Votes, refOf(v))
	}
	return w.signEcho(t, i, e)
}

func (w *town) signEcho(t testing.TB, i int, e *netdoc.Echo) *netdoc.Echo {
	t.Helper()
	slices.SortFunc(e.Votes, netdoc.CompareVoteRefs)
	raw, err := e.Sign(w.keys[i])
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := netdoc.ParseEcho(raw, w.Network)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// echoAll returns an echo of all votes by each of the authorities that voted.
func (w *town) echoAll(t testing.TB, votes ...*netdoc.Vote) []*netdoc.Echo {
	t.Helper()
	var echoes []*netdoc.Echo
	for _, v := range votes {
		i := slices.IndexFunc(w.Authorities, func(a netdoc.Authority) bool { return a.ID == v.Authority })
		echoes = append(echoes, w.echo(t, i, votes...))
	}
	return echoes
}

// library makes the descriptors held into a ballot's look-up.
func library(held ...*netdoc.Descriptor) func(netdoc.Digest) *netdoc.Descriptor {
	byDigest := map[netdoc.Digest]*netdoc.Descriptor{}
	for _, d := range held {
		byDigest[d.Digest()] = d
	}
	return func(digest netdoc.Digest) *netdoc.Descriptor { return byDigest[digest] }
}

func (w *town) ballot(votes []*netdoc.Vote, echoes []*netdoc.Echo, held ...*netdoc.Descriptor) *ballot {
	return &ballot{network: w.Network, validAfter: validAfter, votes: votes, echoes: echoes, descriptor: library(held...)}
}

// read tallies a ballot and reads the document, as all authorities would sign it.
func (w *town) read(t testing.TB, b *ballot) *netdoc.Consensus {
	t.Helper()
	document, err := b.tally()
	if err != nil {
		t.Fatal(err)
	}
	var signatures []netdoc.Signature
	for _, k := range w.keys {
		signatures = append(signatures, netdoc.SignConsensus(document, k))
	}
	c, err := netdoc.ParseConsensus(netdoc.SealConsensus(document, signatures), w.Network)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
