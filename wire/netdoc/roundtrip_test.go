package netdoc

import (
	"bytes"
	"reflect"
	"testing"
)

// Every document comes back equal, and re-encodes to the bytes that it came from.

func TestDescriptorRoundTrip(t *testing.T) {
	d, key := testDescriptor()
	raw := must(d.Sign(key))
	got, err := ParseDescriptor(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest() != DigestOf(raw) || !bytes.Equal(got.Raw(), raw) {
		t.Error("digest or raw bytes are not those of the envelope")
	}
	if again := must(got.Sign(key)); !bytes.Equal(again, raw) {
		t.Error("signing what was parsed gives other bytes")
	}
	got.raw, got.digest = nil, Digest{}
	if !reflect.DeepEqual(got, d) {
		t.Errorf("got  %+v\nwant %+v", got, d)
	}
}

func TestVoteRoundTrip(t *testing.T) {
	n, keys := testNetwork(4)
	v := testVote(n, 2)
	raw := must(v.Sign(keys[2]))
	got, err := ParseVote(raw, n)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest() != DigestOf(raw) || !bytes.Equal(got.Raw(), raw) {
		t.Error("digest or raw bytes are not those of the envelope")
	}
	got.raw, got.digest = nil, Digest{}
	if !reflect.DeepEqual(got, v) {
		t.Errorf("got  %+v\nwant %+v", got, v)
	}
}

func TestEchoRoundTrip(t *testing.T) {
	n, keys := testNetwork(4)
	e := testEcho(n, 1)
	raw := must(e.Sign(keys[1]))
	got, err := ParseEcho(raw, n)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest() != DigestOf(raw) || !bytes.Equal(got.Raw(), raw) {
		t.Error("digest or raw bytes are not those of the envelope")
	}
	got.raw, got.digest = nil, Digest{}
	if !reflect.DeepEqual(got, e) {
		t.Errorf("got  %+v\nwant %+v", got, e)
	}
}

func TestEndorsementRoundTrip(t *testing.T) {
	n, keys := testNetwork(4)
	doc := must(testConsensus(n, 3).Encode())
	s := SignConsensus(doc, keys[0])
	e := &Endorsement{
		Network: n.Name, Authority: s.Signer, ValidAfter: testStart, Consensus: DigestOf(doc), Value: s.Value,
	}
	raw := must(e.Sign(keys[0]))
	got, err := ParseEndorsement(raw, n)
	if err != nil {
		t.Fatal(err)
	}
	if !VerifyConsensus(doc, got.Signature()) || VerifyConsensus(doc[1:], got.Signature()) {
		t.Error("the signature inside is not that of the consensus")
	}
	got.raw, got.digest = nil, Digest{}
	if !reflect.DeepEqual(got, e) {
		t.Errorf("got  %+v\nwant %+v", got, e)
	}
}

func TestConsensusRoundTrip(t *testing.T) {
	n, keys := testNetwork(4)
	c := testConsensus(n, 20)
	raw := sealed(t, c, keys[3], keys[0], keys[1])
	got, err := ParseConsensus(raw, n)
	if err != nil {
		t.Fatal(err)
	}
	doc := must(got.Encode())
	if got.Digest() != DigestOf(doc) || !bytes.Equal(got.Raw(), raw) {
		t.Error("digest or raw bytes are not those of the document")
	}
	for i := range c.Relays {
		r, ok := got.Relay(c.Relays[i].ID)
		if !ok || r != &got.Relays[i] || r.OnionKey() != nil {
			t.Fatalf("relay %d is not found by its ID", i)
		}
	}
	if _, ok := got.Relay(n.Authorities[0].ID); ok {
		t.Error("found a relay that is not in the consensus")
	}
	got.raw, got.digest, got.keyless = nil, Digest{}, 0
	for _, list := range [][]Relay{got.Relays, c.Relays} { // no family: nil or empty
		for i := range list {
			list[i].Family = nil
		}
	}
	if !reflect.DeepEqual(got, c) {
		t.Errorf("got  %+v\nwant %+v", got, c)
	}
}

func TestNetworkRoundTrip(t *testing.T) {
	for _, authorities := range []int{1, 4, MaxAuthorities} {
		n, _ := testNetwork(authorities)
		data := n.Marshal()
		got, err := ParseNetwork(data)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		if !reflect.DeepEqual(got, n) {
			t.Errorf("got  %+v\nwant %+v", got, n)
		}
	}
}
