package directory

import (
	"crypto/ed25519"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testKey returns the n-th key of a test network: authorities from 0, relays from 100.
func testKey(n int) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint32(seed, uint32(n))
	return ed25519.NewKeyFromSeed(seed)
}

// testNetwork returns a network of n authorities with rounds of that length since 1970.
func testNetwork(n int, round time.Duration) *netdoc.Network {
	network := &netdoc.Network{Version: netdoc.Version, Name: "test", Params: netdoc.Params{
		Round: netdoc.Duration(round), OnionKeyLifetime: netdoc.Duration(time.Hour),
	}}
	for i := range n {
		network.Authorities = append(network.Authorities, netdoc.Authority{
			Nickname: "authority" + string(rune('1'+i)), ID: wire.PublicID(testKey(i)), Addresses: testAddresses(i),
		})
	}
	return network
}

func testAddresses(n int) []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 9001)}
}

// consensusOf returns the envelope of a round's consensus with these relays, signed by a quorum.
func consensusOf(t testing.TB, n *netdoc.Network, validAfter time.Time, relays ...int) []byte {
	t.Helper()
	fresh, valid := n.Params.Times(validAfter)
	c := &netdoc.Consensus{
		Network: n.Name, ValidAfter: validAfter.UnixMilli(), FreshUntil: fresh.UnixMilli(), ValidUntil: valid.UnixMilli(),
		Params: n.Params.Consensus(),
	}
	for _, a := range n.Authorities {
		c.Voters = append(c.Voters, netdoc.VoteRef{Authority: a.ID, Digest: netdoc.DigestOf(a.ID[:])})
	}
	slices.SortFunc(c.Voters, netdoc.CompareVoteRefs)
	for _, r := range relays {
		c.Relays = append(c.Relays, netdoc.Relay{
			ID: relayID(r), Descriptor: netdoc.DigestOf([]byte{byte(r)}), Nickname: "relay", Addresses: testAddresses(100 + r),
			Key: netdoc.KeyRef{Digest: netdoc.DigestOf(onionKey(r)), From: 1, Until: 2}, Flags: netdoc.Running,
		})
	}
	slices.SortFunc(c.Relays, func(a, b netdoc.Relay) int { return netdoc.CompareIDs(a.ID, b.ID) })
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

// onionKey returns the onion key of a relay.
func onionKey(n int) []byte { return append(make([]byte, netdoc.OnionKeySize-1), byte(n)) }

func relayID(n int) wire.ID { return wire.PublicID(testKey(100 + n)) }

func parse(t testing.TB, n *netdoc.Network, raw []byte) *netdoc.Consensus {
	t.Helper()
	c, err := netdoc.ParseConsensus(raw, n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// journal is a log's lines above debug, without times.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// Write takes one line from the logger.
func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, string(line))
	return len(line), nil
}

func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	j.lines = nil
	return lines
}
