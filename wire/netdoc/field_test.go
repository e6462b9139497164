package netdoc

import (
	"bytes"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"torproxy/wire"
)

// Every field at its bounds and beyond: the document is well encoded and well signed, and refused for the
// one field that is wrong. An empty want: accepted.

var (
	badNames = map[string]string{
		"": "nickname", "twenty-letters-long1": "nickname", "under_score": "nickname", "two words": "nickname",
		"naïve": "nickname", "dot.dot": "nickname", "nul\x00": "nickname",
		"a": "", "nineteen-letters-19": "", "0": "", "-": "",
	}
	badAddresses = map[string]string{
		"":                                     "addresses: 0 in place",
		"7f000001":                             "an address of 4 bytes",
		"7f00000100500050":                     "an address of 8 bytes",
		"7f0000010000":                         "port 0",
		"000000000050":                         "unspecified",
		"e00000010050":                         "multicast",
		"ffffffff0050":                         "broadcast",
		strings.Repeat("00", 16) + "0050":      "unspecified",
		"ff02" + strings.Repeat("00", 16):      "port 0",
		"ff02000000000000000000000000000150":   "an address of 17 bytes",
		"ff0200000000000000000000000000010050": "multicast",
		"00000000000000000000ffff0a0000010050": "IPv4-mapped",
		"7f0000010050 7f0000010050":            "one address twice",
		"1 2 3 4 5 6 7 8 9":                    "9 in place",
		"7f0000010050":                         "",
		"7f0000010050 7f0000010051 fd0000000000000000000000000000010050": "",
		"1 2 3 4 5 6 7 8": "",
	}
)

// wireAddresses reads hex words; a single digit N stands for 10.0.0.N:80.
func wireAddresses(t *testing.T, s string) [][]byte {
	t.Helper()
	var out [][]byte
	for _, word := range strings.Fields(s) {
		if len(word) == 1 {
			out = append(out, []byte{10, 0, 0, word[0] - '0', 0, 80})
			continue
		}
		b := make([]byte, len(word)/2)
		for i := range b {
			b[i] = unhex(word[2*i])<<4 | unhex(word[2*i+1])
		}
		out = append(out, b)
	}
	return out
}

func unhex(c byte) byte { return byte(strings.IndexByte("0123456789abcdef", c)) }

// refusal checks an error against what it should name.
func refusal(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: refused: %v", name, err)
	case want != "" && err == nil:
		t.Errorf("%s: accepted", name)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%s: got %q, want %q in it", name, err, want)
	}
}

// tryDescriptor returns a function that changes one thing of a good descriptor and reads the result.
func tryDescriptor(t *testing.T) func(name, want string, change func(*descriptorDoc)) {
	d, key := testDescriptor()
	good := document(must(d.Sign(key)))
	return func(name, want string, change func(*descriptorDoc)) {
		t.Helper()
		var w descriptorDoc
		if err := decode(shortLists, good, &w); err != nil {
			t.Fatal(err)
		}
		change(&w)
		_, err := ParseDescriptor(sealAs(kindDescriptor, encode(&w), key))
		refusal(t, name, err, want)
	}
}

func TestDescriptorFields(t *testing.T) {
	try := tryDescriptor(t)
	try("unchanged", "", func(w *descriptorDoc) {})
	try("version", "version", func(w *descriptorDoc) { w.Version = 1 << 40 })
	try("another's ID", "not by the relay itself", func(w *descriptorDoc) { w.ID[0] ^= 1 })
	for name, want := range badNames {
		try("nickname "+name, want, func(w *descriptorDoc) { w.Nickname = name })
	}
	for list, want := range badAddresses {
		try("addresses "+list, want, func(w *descriptorDoc) { w.Addresses = wireAddresses(t, list) })
	}

	try("bandwidth 0", "", func(w *descriptorDoc) { w.Bandwidth = 0 })
	try("bandwidth most", "", func(w *descriptorDoc) { w.Bandwidth = MaxBandwidth })
	try("bandwidth above", "bandwidth", func(w *descriptorDoc) { w.Bandwidth = MaxBandwidth + 1 })
	try("no protocols", "protocols", func(w *descriptorDoc) { w.Protocols = nil })
	try("17 protocols", "protocols", func(w *descriptorDoc) { w.Protocols = make([]uint64, 17) })
	try("protocols out of order", "protocols", func(w *descriptorDoc) { w.Protocols = []uint64{2, 1} })
	try("protocol twice", "protocols", func(w *descriptorDoc) { w.Protocols = []uint64{1, 1} })
	try("software of 64", "", func(w *descriptorDoc) { w.Software = strings.Repeat("~", 64) })
	try("software of 65", "software", func(w *descriptorDoc) { w.Software = strings.Repeat("~", 65) })
	try("software with an escape", "software", func(w *descriptorDoc) { w.Software = "\x1b[31m" })
	try("software not ASCII", "software", func(w *descriptorDoc) { w.Software = "tör" })
	for ms, want := range map[int64]string{1: "", maxTime: "", 0: "published", -1: "published", maxTime + 1: "published", math.MaxInt64: "published"} {
		try("published", want, func(w *descriptorDoc) { w.Published = ms })
	}
}

func TestDescriptorOnionKeys(t *testing.T) {
	try := tryDescriptor(t)
	keys := map[string][]OnionKey{
		"0 in place":          {},
		"3 in place":          {testOnionKey("a", 1), testOnionKey("b", 1), testOnionKey("c", 1)},
		"one key twice":       {testOnionKey("a", 1), testOnionKey("a", 2)},
		"1215 bytes":          {{testOnionKey("a", 1).Public[1:], 1, 2}},
		"1217 bytes":          {{append(testOnionKey("a", 1).Public, 0), 1, 2}},
		"ends before":         {{testOnionKey("a", 1).Public, 2, 2}},
		"onion keys: time -1": {{testOnionKey("a", 1).Public, -1, 2}},
		"time 2534023008":     {{testOnionKey("a", 1).Public, 1, maxTime + 1}},
		"onion keys: time 0":  {testOnionKey("a", 1), {testOnionKey("b", 1).Public, 0, 2}},
	}
	for want, list := range keys {
		try("onion keys", want, func(w *descriptorDoc) { w.OnionKeys = list })
	}
}

func TestDescriptorPolicy(t *testing.T) {
	try := tryDescriptor(t)
	policies := map[string]string{
		"accept *:*":                         "",
		"":                                   "",
		"accept  *:*":                        "canonical",
		"accept *:*,":                        "policy",
		"accept *:1-65535":                   "canonical",
		"accept *:80, accept *:81":           "canonical",
		"accept 10.0.0.1/32:80":              "canonical",
		"accept [2001:DB8::1]:80":            "canonical",
		" ":                                  "canonical",
		"accept anything":                    "policy",
		strings.Repeat("x", MaxPolicyText+1): "4097 bytes",
		manyRules(MaxPolicyRules):            "",
		manyRules(MaxPolicyRules + 1):        "more than 64 rules",
		"accept *:80\x00":                    "policy",
	}
	for text, want := range policies {
		try("policy "+text, want, func(w *descriptorDoc) { w.Policy = text })
	}
}

func TestDescriptorFamily(t *testing.T) {
	try := tryDescriptor(t)
	family := func(n int) []wire.ID {
		var list []wire.ID
		for i := range n {
			list = append(list, wire.PublicID(testKey(strings.Repeat("f", i+1))))
		}
		slices.SortFunc(list, CompareIDs)
		return list
	}
	try("family of 32", "", func(w *descriptorDoc) { w.Family = family(32) })
	try("no family", "", func(w *descriptorDoc) { w.Family = nil })
	try("family of 33", "33 members", func(w *descriptorDoc) { w.Family = family(33) })
	try("family out of order", "out of order", func(w *descriptorDoc) { slices.Reverse(w.Family) })
	try("family twice", "out of order", func(w *descriptorDoc) { w.Family[1] = w.Family[0] })
	try("family of itself", "the relay itself", func(w *descriptorDoc) { w.Family = []wire.ID{w.ID} })
	try("family of nobody", "zero ID", func(w *descriptorDoc) { w.Family = []wire.ID{{}} })
}

// What Sign is asked to write it checks like a reader: an operator hears of a mistake before any authority.
func TestSignChecks(t *testing.T) {
	n, keys := testNetwork(4)
	d, key := testDescriptor()
	d.Addresses[0] = netip.MustParseAddrPort("[::ffff:10.0.0.1]:80")
	_, err := d.Sign(key)
	refusal(t, "descriptor", err, "IPv4-mapped")
	d, key = testDescriptor()
	d.Addresses[0] = netip.MustParseAddrPort("[fe80::1%eth0]:80")
	_, err = d.Sign(key)
	refusal(t, "descriptor", err, "zone")
	d.Addresses[0] = netip.AddrPort{}
	_, err = d.Sign(key)
	refusal(t, "descriptor", err, "no address")
	d, _ = testDescriptor()
	_, err = d.Sign(keys[0])
	refusal(t, "descriptor with another's key", err, "key is not that of")
	_, err = d.Sign(nil)
	refusal(t, "descriptor with no key", err, "no private key")
	d.Version = 0
	_, err = d.Sign(key)
	refusal(t, "descriptor without version", err, "version")

	v := testVote(n, 0)
	slices.Reverse(v.Relays)
	_, err = v.Sign(keys[0])
	refusal(t, "vote out of order", err, "out of order")
	_, err = testVote(n, 0).Sign(keys[1])
	refusal(t, "vote with another's key", err, "key is not that of")
	e := testEcho(n, 0)
	slices.Reverse(e.Votes)
	_, err = e.Sign(keys[0])
	refusal(t, "echo out of order", err, "out of order")
	_, err = (&Endorsement{Network: "x", Authority: v.Authority, ValidAfter: 1}).Sign(keys[0])
	refusal(t, "endorsement of nothing", err, "zero digest")
	c := testConsensus(n, 3)
	slices.Reverse(c.Relays)
	_, err = c.Encode()
	refusal(t, "consensus out of order", err, "out of order")
}

func TestVoteFields(t *testing.T) {
	n, keys := testNetwork(4)
	good := document(must(testVote(n, 0).Sign(keys[0])))
	try := func(name, want string, change func(*voteDoc)) {
		t.Helper()
		var w voteDoc
		if err := decode(longLists, good, &w); err != nil {
			t.Fatal(err)
		}
		change(&w)
		_, err := ParseVote(sealAs(kindVote, encode(&w), keys[0]), n)
		refusal(t, name, err, want)
	}
	try("unchanged", "", func(w *voteDoc) {})
	try("no relays", "", func(w *voteDoc) { w.Relays = nil })
	try("version", "version", func(w *voteDoc) { w.Version = 0 })
	try("network", "another network", func(w *voteDoc) { w.Network = "other" })
	try("another authority", "not by the authority", func(w *voteDoc) { w.Authority = n.Authorities[1].ID })
	try("valid-after", "valid-after", func(w *voteDoc) { w.ValidAfter = 0 })
	try("published", "published", func(w *voteDoc) { w.Published = maxTime + 1 })
	try("relays out of order", "out of order", func(w *voteDoc) { slices.Reverse(w.Relays) })
	try("relay twice", "one twice", func(w *voteDoc) { w.Relays[1] = w.Relays[0] })
	try("zero ID", "zero ID", func(w *voteDoc) { w.Relays[0].ID = wire.ID{} })
	try("zero digest", "zero digest", func(w *voteDoc) { w.Relays[0].Descriptor = Digest{} })
	try("entry published", "published", func(w *voteDoc) { w.Relays[0].Published = 0 })
	try("unknown flag", "unknown flag 0x40", func(w *voteDoc) { w.Relays[0].Flags |= BadExit << 1 })
	try("all flags", "", func(w *voteDoc) { w.Relays[0].Flags = knownFlags })
	try("measured", "measured", func(w *voteDoc) { w.Relays[0].Measured = MaxBandwidth + 1 })
	tryParams(t, func(name, want string, change func(*paramsDoc)) {
		try(name, want, func(w *voteDoc) { change(&w.Params) })
	})
}

func tryParams(t *testing.T, try func(name, want string, change func(*paramsDoc))) {
	year := maxLifetime.Milliseconds()
	try("min relays most", "", func(w *paramsDoc) { w.MinRelays = MaxRelays })
	try("min relays", "minimum of relays", func(w *paramsDoc) { w.MinRelays = MaxRelays + 1 })
	try("min relays", "minimum of relays", func(w *paramsDoc) { w.MinRelays = math.MaxUint32 })
	try("per address", "relays per address", func(w *paramsDoc) { w.PerAddress = MaxRelays + 1 })
	try("lifetime 0", "onion key lifetime", func(w *paramsDoc) { w.OnionKeyLifetime = 0 })
	try("lifetime negative", "onion key lifetime", func(w *paramsDoc) { w.OnionKeyLifetime = math.MinInt64 })
	try("lifetime year", "", func(w *paramsDoc) { w.OnionKeyLifetime = year })
	try("lifetime more", "onion key lifetime", func(w *paramsDoc) { w.OnionKeyLifetime = year + 1 })
	try("lifetime overflow", "onion key lifetime", func(w *paramsDoc) { w.OnionKeyLifetime = math.MaxInt64 })
}

func TestEchoFields(t *testing.T) {
	n, keys := testNetwork(4)
	good := document(must(testEcho(n, 0).Sign(keys[0])))
	try := func(name, want string, change func(*echoDoc)) {
		t.Helper()
		var w echoDoc
		if err := decode(shortLists, good, &w); err != nil {
			t.Fatal(err)
		}
		change(&w)
		_, err := ParseEcho(sealAs(kindEcho, encode(&w), keys[0]), n)
		refusal(t, name, err, want)
	}
	again := func(votes []VoteRef, i int, fill byte) VoteRef {
		return VoteRef{Authority: votes[i].Authority, Digest: Digest(bytes.Repeat([]byte{fill}, 32))}
	}
	try("unchanged", "", func(w *echoDoc) {})
	try("no votes", "", func(w *echoDoc) { w.Votes = nil })
	try("version", "version", func(w *echoDoc) { w.Version = 2 })
	try("network", "another network", func(w *echoDoc) { w.Network = "" })
	try("another authority", "not by the authority", func(w *echoDoc) { w.Authority = n.Authorities[1].ID })
	try("valid-after", "valid-after", func(w *echoDoc) { w.ValidAfter = -5 })
	try("out of order", "out of order", func(w *echoDoc) { slices.Reverse(w.Votes) })
	try("one vote twice", "one twice", func(w *echoDoc) { w.Votes[1] = w.Votes[0] })
	try("zero digest", "zero digest", func(w *echoDoc) { w.Votes[0].Digest = Digest{} })
	try("a stranger's vote", "no authority", func(w *echoDoc) { w.Votes = []VoteRef{{wire.ID{1, 2}, Digest{1}}} })
	try("two votes of one", "", func(w *echoDoc) { w.Votes = slices.Insert(w.Votes, 4, again(w.Votes, 3, 0xff)) })
	try("three votes of one", "more than 2", func(w *echoDoc) {
		w.Votes = []VoteRef{again(w.Votes, 0, 1), again(w.Votes, 0, 2), again(w.Votes, 0, 3)}
	})
}

func TestConsensusFields(t *testing.T) {
	n, keys := testNetwork(4)
	good := must(testConsensus(n, 4).Encode())
	try := func(name, want string, change func(*consensusDoc)) {
		t.Helper()
		var w consensusDoc
		if err := decode(longLists, good, &w); err != nil {
			t.Fatal(err)
		}
		change(&w)
		_, err := ParseConsensus(sealAs(kindConsensus, encode(&w), keys[:3]...), n)
		refusal(t, name, err, want)
	}
	try("unchanged", "", func(w *consensusDoc) {})
	try("no relays", "", func(w *consensusDoc) { w.Relays = nil })
	try("version", "version", func(w *consensusDoc) { w.Version = 2 })
	try("network", "another network", func(w *consensusDoc) { w.Network = "TESTNET" })
	try("valid-after", "valid-after", func(w *consensusDoc) { w.ValidAfter = 0 })
	try("fresh before valid-after", "times", func(w *consensusDoc) { w.FreshUntil = w.ValidAfter })
	try("fresh after valid-until", "times", func(w *consensusDoc) { w.FreshUntil = w.ValidUntil + 1 })
	try("fresh at valid-until", "", func(w *consensusDoc) { w.FreshUntil = w.ValidUntil })
	try("valid-until", "valid-until", func(w *consensusDoc) { w.ValidUntil = maxTime + 1 })
	try("f voters", "too few", func(w *consensusDoc) { w.Voters = w.Voters[:1] })
	try("f+1 voters", "", func(w *consensusDoc) { w.Voters = w.Voters[:2] })
	try("voters out of order", "out of order", func(w *consensusDoc) { slices.Reverse(w.Voters) })
	try("one voter with two votes", "more than 1", func(w *consensusDoc) {
		w.Voters[1] = VoteRef{w.Voters[0].Authority, Digest(bytes.Repeat([]byte{0xff}, 32))}
	})
	try("a stranger among the voters", "no authority", func(w *consensusDoc) { w.Voters[3] = VoteRef{wire.ID{31: 0x7e, 0: 0xff}, Digest{1}} })
	try("relays out of order", "out of order", func(w *consensusDoc) { slices.Reverse(w.Relays) })
	try("a relay twice", "one twice", func(w *consensusDoc) { w.Relays[1] = w.Relays[0] })
	try("a relay that is null", "relay 0", func(w *consensusDoc) { w.Relays[0] = []byte{0xf6} })
	try("a relay that is a number", "relay 0", func(w *consensusDoc) { w.Relays[0] = []byte{0x01} })
	tryParams(t, func(name, want string, change func(*paramsDoc)) {
		if name == "lifetime negative" { // not read as a number at all
			want = "another type"
		}
		try(name, want, func(w *consensusDoc) { change(&w.Params) })
	})

	tryRelay := func(name, want string, change func(*relayDoc)) {
		t.Helper()
		try(name, want, func(w *consensusDoc) {
			var r relayDoc
			if err := decode(shortLists, w.Relays[0], &r); err != nil {
				t.Fatal(err)
			}
			change(&r)
			w.Relays[0] = encode(&r)
		})
	}
	for name, want := range badNames {
		tryRelay("nickname "+name, want, func(r *relayDoc) { r.Nickname = name })
	}
	for list, want := range badAddresses {
		tryRelay("addresses "+list, want, func(r *relayDoc) { r.Addresses = wireAddresses(t, list) })
	}
	tryRelay("zero ID", "zero ID", func(r *relayDoc) { r.ID = wire.ID{} })
	tryRelay("zero digest", "zero digest", func(r *relayDoc) { r.Descriptor = Digest{} })
	tryRelay("no onion key", "onion key: the zero digest", func(r *relayDoc) { r.Key.Digest = Digest{} })
	tryRelay("an onion key's period", "ends before", func(r *relayDoc) { r.Key.Until = r.Key.From })
	tryRelay("an onion key from 0", "onion key: time 0", func(r *relayDoc) { r.Key.From = 0 })
	tryRelay("policy", "canonical", func(r *relayDoc) { r.Policy = "accept\t*:*" })
	tryRelay("family", "the relay itself", func(r *relayDoc) { r.Family = []wire.ID{r.ID} })
	tryRelay("a family of 65", "more than 64 elements", func(r *relayDoc) { r.Family = make([]wire.ID, 65) })
	tryRelay("weight", "weight", func(r *relayDoc) { r.Weight = MaxBandwidth + 1 })
	tryRelay("unknown flag", "unknown flag", func(r *relayDoc) { r.Flags |= 1 << 31 })
	tryRelay("not running", "not Running", func(r *relayDoc) { r.Flags &^= Running })
	tryRelay("exit without policy", "accepts nothing", func(r *relayDoc) { r.Flags |= Exit; r.Policy = "reject *:*" })
	tryRelay("policy without exit", "", func(r *relayDoc) { r.Flags &^= Exit; r.Policy = "accept *:*" })
}

func TestQuorum(t *testing.T) {
	for n, want := range map[int][2]int{0: {0, 0}, 1: {0, 1}, 2: {0, 2}, 3: {0, 3}, 4: {1, 3}, 5: {1, 4}, 6: {1, 5}, 7: {2, 5}, 10: {3, 7}} {
		if f, q := Faulty(n), Quorum(n); f != want[0] || q != want[1] {
			t.Errorf("%d authorities: f = %d, q = %d; want %v", n, f, q, want)
		}
	}
	for authorities := 1; authorities <= 7; authorities++ {
		n, keys := testNetwork(authorities)
		c := testConsensus(n, 2)
		for signers := 0; signers <= authorities; signers++ {
			_, err := ParseConsensus(sealed(t, c, keys[:signers]...), n)
			if enough := signers >= Quorum(authorities); (err == nil) != enough {
				t.Errorf("%d of %d signatures: %v", signers, authorities, err)
			}
		}
	}
}

// Two documents for one round can both be valid only if f+1 authorities signed both.
func TestSignaturesOfAnotherDocumentDoNotCount(t *testing.T) {
	n, keys := testNetwork(4)
	c := testConsensus(n, 2)
	doc := must(c.Encode())
	c.ValidUntil++
	other := must(c.Encode())
	sigs := []Signature{SignConsensus(doc, keys[0]), SignConsensus(doc, keys[1]), SignConsensus(other, keys[2])}
	if _, err := ParseConsensus(SealConsensus(doc, sigs), n); err == nil {
		t.Error("a signature of another document was counted")
	}
	if _, err := ParseConsensus(SealConsensus(doc, append(sigs[:2], SignConsensus(doc, keys[3]))), n); err != nil {
		t.Error(err)
	}
	if VerifyConsensus(doc, Signature{}) {
		t.Error("the zero signature is valid")
	}
}

// manyRules returns a policy of n short rules.
func manyRules(n int) string { return strings.TrimSuffix(strings.Repeat("accept *:80,", n), ",") }
