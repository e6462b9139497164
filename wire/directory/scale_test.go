package directory

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// The benchmarks of SCALE.md: a network of 10,000 relays whose documents are as hard to compress as real
// ones. IDs and digests are noise; addresses are all over the net, a third of the relays have two; a third are
// exits, with one of a few policies or, one in ten, with one of their own; a fifth are in families of four;
// weights are log-normal.

const manyRelays = 10_000

var manyPolicies = []string{
	"accept *:*", "reject *:25,accept *:*", "accept *:80,accept *:443", "accept *:53,accept *:80,accept *:443,accept *:993",
	"reject *:25,reject *:119,reject *:135-139,reject *:445,reject *:563,reject *:1214,accept *:*",
}

// manyNetwork returns the relays, ascending by ID, of the same network in every run.
func manyNetwork(t testing.TB) []netdoc.Relay {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	relays := make([]netdoc.Relay, manyRelays)
	for i := range relays {
		relays[i] = manyRelay(t, rnd, i)
	}
	for i := 0; i < manyRelays/5; i += 4 {
		for _, r := range relays[i : i+4] {
			for j := range relays[i : i+4] {
				if member := &relays[i+j]; member.ID != r.ID {
					member.Family = append(member.Family, r.ID)
				}
			}
		}
	}
	for i := range relays {
		slices.SortFunc(relays[i].Family, netdoc.CompareIDs)
	}
	slices.SortFunc(relays, func(a, b netdoc.Relay) int { return netdoc.CompareIDs(a.ID, b.ID) })
	return relays
}

func manyRelay(t testing.TB, rnd *rand.Rand, i int) netdoc.Relay {
	r := netdoc.Relay{
		ID: wire.ID(noise(rnd, 32)), Descriptor: netdoc.Digest(noise(rnd, 32)),
		Nickname: fmt.Sprintf("%s%d", []string{"relay", "onion", "node", "exit", "Unnamed"}[rnd.IntN(5)], rnd.IntN(100_000)),
		Weight:   uint64(1<<20*math.Exp(rnd.NormFloat64()*1.5)) / 1000 * 1000,
		Flags:    netdoc.Running,
	}
	r.ID[31] &= 0x3f
	port := []uint16{9001, 443, 9001, 9030, uint16(1024 + rnd.IntN(60_000))}[rnd.IntN(5)]
	r.Addresses = append(r.Addresses, netip.AddrPortFrom(netip.AddrFrom4([4]byte(append([]byte{byte(1 + rnd.IntN(220))}, noise(rnd, 3)...))), port))
	if i%3 == 0 {
		six := append([]byte{0x2a, byte(rnd.IntN(16)), byte(rnd.IntN(256)), byte(rnd.IntN(256))}, make([]byte, 12)...)
		binary.BigEndian.PutUint32(six[4:], rnd.Uint32())
		six[15] = byte(rnd.IntN(256))
		r.Addresses = append(r.Addresses, netip.AddrPortFrom(netip.AddrFrom16([16]byte(six)), port))
	}
	for _, f := range []netdoc.Flags{netdoc.Fast, netdoc.Stable, netdoc.Guard} {
		if rnd.IntN(2) == 0 {
			r.Flags |= f
		}
	}
	if rnd.IntN(3) == 0 {
		text := manyPolicies[rnd.IntN(len(manyPolicies))]
		if rnd.IntN(10) == 0 {
			text = fmt.Sprintf("reject %d.%d.0.0/16:*,%s", 1+rnd.IntN(200), rnd.IntN(256), text)
		}
		p, err := netdoc.ParsePolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Policy, r.Flags = p, r.Flags|netdoc.Exit
	}
	rotate(rnd, &r, bubbleStart)
	return r
}

func noise(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// rotate gives a relay a new key, made within the hour before at.
func rotate(rnd *rand.Rand, r *netdoc.Relay, at time.Time) {
	from := at.UnixMilli() - rnd.Int64N(3_600_000)
	r.Key = netdoc.KeyRef{Digest: netdoc.Digest(noise(rnd, 32)), From: from, Until: from + 24*3_600_000}
	r.Descriptor = netdoc.Digest(noise(rnd, 32))
}

// manyConsensus signs a consensus of these relays.
func manyConsensus(t testing.TB, n *netdoc.Network, validAfter time.Time, relays []netdoc.Relay) []byte {
	t.Helper()
	fresh, valid := n.Params.Times(validAfter)
	c := &netdoc.Consensus{
		Network: n.Name, ValidAfter: validAfter.UnixMilli(), FreshUntil: fresh.UnixMilli(), ValidUntil: valid.UnixMilli(),
		Params: n.Params.Consensus(), Relays: relays,
	}
	for i, a := range n.Authorities {
		c.Voters = append(c.Voters, netdoc.VoteRef{Authority: a.ID, Digest: netdoc.DigestOf(fmt.Append(nil, i, validAfter))})
	}
	slices.SortFunc(c.Voters, netdoc.CompareVoteRefs)
	doc, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var signatures []netdoc.Signature
	for i := range netdoc.Quorum(len(n.Authorities)) {
		signatures = append(signatures, netdoc.SignConsensus(doc, testKey(i)))
	}
	return netdoc.SealConsensus(doc, signatures)
}

// hour is what happens in an hour besides that a twenty-fourth of the keys rotates and two of a hundred relays
// change: a quarter of these are gone and as many have come, a quarter have another address, half another
// weight and flag.
type hour struct {
	name       string
	renewed    float64 // of the descriptors are made anew
	reweighted float64 // of the weights are others
}

// after returns the network after that hour.
func (h hour) after(t testing.TB, relays []netdoc.Relay) []netdoc.Relay {
	rnd := rand.New(rand.NewPCG(3, 4))
	later := bubbleStart.Add(time.Hour)
	next := slices.Clone(relays)
	for i := range next {
		switch {
		case i%24 == 7:
			rotate(rnd, &next[i], later)
		case rnd.Float64() < h.renewed:
			next[i].Descriptor = netdoc.Digest(noise(rnd, 32))
		}
		if rnd.Float64() < h.reweighted {
			next[i].Weight += uint64(rnd.IntN(1 << 16))
		}
	}
	changed := rnd.Perm(len(next))[:len(next)/50]
	part := len(changed) / 4
	for _, i := range changed[:part] {
		next[i] = manyRelay(t, rnd, i)
	}
	for _, i := range changed[part : 2*part] {
		next[i].Addresses = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte(append([]byte{77}, noise(rnd, 3)...))), 443)}
		next[i].Descriptor = netdoc.Digest(noise(rnd, 32))
	}
	for _, i := range changed[2*part:] {
		next[i].Weight = next[i].Weight/2 + 1000
		next[i].Flags ^= netdoc.Guard
	}
	slices.SortFunc(next, func(a, b netdoc.Relay) int { return netdoc.CompareIDs(a.ID, b.ID) })
	return next
}

// BenchmarkScaleVerify is what a client does with a list that came whole: unpack, verify, decode, check and
// index. heap-MB is what stays.
func BenchmarkScaleVerify(b *testing.B) {
	n := testNetwork(4, time.Hour)
	packed := compress(manyConsensus(b, n, bubbleStart, manyNetwork(b)))
	b.ReportAllocs()
	before := heap()
	var c *netdoc.Consensus
	for b.Loop() {
		raw, err := decompress(packed, netdoc.MaxConsensus)
		if err != nil {
			b.Fatal(err)
		}
		c = parse(b, n, raw)
	}
	b.ReportMetric((heap()-before)/1e6, "heap-MB")
	runtime.KeepAlive(c)
	runtime.KeepAlive(packed)
}

// heap returns the bytes in use.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // pools let go with the second
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkScaleCompress is what a server does once a round with the whole list.
func BenchmarkScaleCompress(b *testing.B) {
	raw := manyConsensus(b, testNetwork(4, time.Hour), bubbleStart, manyNetwork(b))
	for b.Loop() {
		compress(raw)
	}
}

// BenchmarkScaleKeys is what a client does with all keys of a first start: verify, keep, attach.
func BenchmarkScaleKeys(b *testing.B) {
	n, relays := testNetwork(4, time.Hour), manyNetwork(b)
	rnd := rand.New(rand.NewPCG(5, 6))
	var answer []byte
	for i := range relays {
		public := noise(rnd, netdoc.OnionKeySize)
		relays[i].Key.Digest = netdoc.DigestOf(public)
		answer = append(answer, public...)
	}
	c := parse(b, n, manyConsensus(b, n, bubbleStart, relays))
	b.ReportAllocs()
	for b.Loop() {
		var keys keyStore
		rest := answer
		for missing := keys.missing(c); len(missing) > 0; {
			batch := missing[:min(len(missing), keysPerRequest)]
			size := len(batch) * netdoc.OnionKeySize
			keys.takeAnswer(batch, rest[:size])
			missing, rest = missing[len(batch):], rest[size:]
		}
		if with := c.WithKeys(keys.key); with.Keyless() != 0 {
			b.Fatalf("%d relays without keys", with.Keyless())
		}
	}
	b.ReportMetric(float64(len(answer)), "keys-bytes")
	b.ReportMetric(float64(len(compress(answer[:keysPerRequest*netdoc.OnionKeySize])))/float64(keysPerRequest*netdoc.OnionKeySize), "zstd-ratio")
}

// BenchmarkScaleDifference makes (a server, once for each of the last rounds) and applies (a client) the
// difference of an hour: as it is; if every descriptor were made anew every eight hours; and if every weight
// changed in every round.
func BenchmarkScaleDifference(b *testing.B) {
	n, relays := testNetwork(4, time.Hour), manyNetwork(b)
	base := parse(b, n, manyConsensus(b, n, bubbleStart, relays))
	for _, h := range []hour{{name: "as-it-is"}, {name: "all-renewed-8h", renewed: 1.0 / 8}, {name: "all-reweighted", reweighted: 1}} {
		target := manyConsensus(b, n, bubbleStart.Add(time.Hour), h.after(b, relays))
		d, err := netdoc.Difference(base.Raw(), target)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(h.name+"/make", func(b *testing.B) {
			for b.Loop() {
				if d, err = netdoc.Difference(base.Raw(), target); err != nil {
					b.Fatal(err)
				}
				compress(d)
			}
			whole, difference := len(compress(target)), len(compress(d))
			b.ReportMetric(float64(len(target)), "whole-bytes")
			b.ReportMetric(float64(whole), "whole-zstd")
			b.ReportMetric(float64(len(d)), "difference-bytes")
			b.ReportMetric(float64(difference), "difference-zstd")
			b.ReportMetric(100*float64(difference)/float64(whole), "%-of-whole-zstd")
			b.ReportMetric(100*float64(len(d))/float64(len(target)), "%-of-whole")
		})
		b.Run(h.name+"/apply", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				raw, err := netdoc.ApplyDifference(d, base)
				if err != nil || !bytes.Equal(raw, target) {
					b.Fatal(err)
				}
				parse(b, n, raw)
			}
		})
	}
}

// oneServer sends every request to one peer: the relays of the benchmarks exist nowhere.
type oneServer struct {
	*Client
	peer Peer
}

func (o oneServer) Fetch(ctx context.Context, _ Peer, path, etag string, limit int64) ([]byte, string, error) {
	return o.Client.Fetch(ctx, o.peer, path, etag, limit)
}

func (o oneServer) Post(ctx context.Context, _ Peer, path string, body []byte, limit int64) ([]byte, error) {
	return o.Client.Post(ctx, o.peer, path, body, limit)
}

// BenchmarkScaleStart is a first start over loopback, client and server on the same processors: from nothing
// to a consensus with all keys.
func BenchmarkScaleStart(b *testing.B) {
	n, relays := testNetwork(4, time.Hour), manyNetwork(b)
	rnd := rand.New(rand.NewPCG(5, 6))
	keys := map[netdoc.Digest][]byte{}
	for i := range relays {
		public := noise(rnd, netdoc.OnionKeySize)
		relays[i].Key.Digest = netdoc.DigestOf(public)
		keys[relays[i].Key.Digest] = public
	}
	server := NewFollower(FollowerConfig{Network: n, LocalKey: func(r *netdoc.Relay) []byte { return keys[r.Key.Digest] }})
	if err := server.Offer(manyConsensus(b, n, time.Now().Truncate(time.Hour), relays)); err != nil {
		b.Fatal(err)
	}
	s := startServer(b, listenUDP(b, "127.0.0.1:0"), testKey(0), server.Mirror())
	for b.Loop() {
		client := startClient(b, listenUDP(b, "127.0.0.1:0"))
		all := oneServer{client, s.Peer}
		f := NewFollower(FollowerConfig{Network: n, Client: all, Keys: all, Routes: true})
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		changed := f.Changed()
		go func() { ended <- f.Run(ctx) }()
		<-changed
		cancel()
		<-ended
		if c := f.Current(); c.Keyless() > 0 {
			b.Fatalf("%d keys missing", c.Keyless())
		}
		client.Close()
	}
}
