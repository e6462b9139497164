package netdoc

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// differencePair returns a network, a consensus, and the next one: a relay gone, one new, one with another
// key, one with another address more, one with another weight.
func differencePair(t testing.TB, relays int) (n *Network, base *Consensus, target []byte) {
	t.Helper()
	n, keys := testNetwork(4)
	c := testConsensus(n, relays)
	base = must(ParseConsensus(sealed(t, c, keys[:3]...), n))
	next := *c
	next.ValidAfter, next.FreshUntil, next.ValidUntil = c.ValidAfter+testHour, c.FreshUntil+testHour, c.ValidUntil+testHour
	next.Relays = slices.Clone(c.Relays)
	if relays > 5 {
		next.Relays[1].Key = keyRef(testOnionKey("rotated", testStart+testHour))
		next.Relays[1].Descriptor = DigestOf([]byte("rotated"))
		next.Relays[2].Addresses = append(next.Relays[2].Addresses[:1:1], must(parseAddresses([][]byte{{10, 9, 8, 7, 1, 1}}))...)
		next.Relays[3].Weight = 1 << 30
		next.Relays = slices.Delete(next.Relays, 4, 5)
		added := testRelays(relays + 1)
		for _, r := range added {
			if r.Nickname == "relay"+string(rune('0'+relays)) {
				next.Relays = append(next.Relays, r)
			}
		}
		slices.SortFunc(next.Relays, func(a, b Relay) int { return CompareIDs(a.ID, b.ID) })
	}
	return n, base, sealed(t, &next, keys[1], keys[2], keys[3])
}

func TestDifference(t *testing.T) {
	for _, relays := range []int{0, 1, 9} {
		n, base, target := differencePair(t, relays)
		d := must(Difference(base.Raw(), target))
		if !IsDifference(d) || IsDifference(target) || !bytes.Equal(d, must(Difference(base.Raw(), target))) {
			t.Fatalf("%d relays: not a difference, or not always the same", relays)
		}
		got, err := ApplyDifference(d, base)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, target) {
			t.Errorf("%d relays: makes another envelope", relays)
		}
		if _, err := ParseConsensus(got, n); err != nil {
			t.Errorf("%d relays: %v", relays, err)
		}
		if relays == 9 && len(d) > len(target)*2/3 {
			t.Errorf("a difference of %d bytes to a consensus of %d", len(d), len(target))
		}
		other := must(ParseConsensus(target, n))
		if _, err := ApplyDifference(d, other); !errors.Is(err, ErrBase) {
			t.Errorf("applied to another consensus: %v", err)
		}
	}
}

func TestDifferenceToItself(t *testing.T) {
	_, base, _ := differencePair(t, 9)
	d := must(Difference(base.Raw(), base.Raw()))
	if got, err := ApplyDifference(d, base); err != nil || !bytes.Equal(got, base.Raw()) {
		t.Errorf("makes another envelope: %v", err)
	}
}

func TestDifferenceRefused(t *testing.T) {
	_, base, target := differencePair(t, 9)
	good := must(Difference(base.Raw(), target))
	for i := range good {
		if _, err := ApplyDifference(good[:i], base); err == nil {
			t.Fatalf("the first %d of %d bytes were applied", i, len(good))
		}
	}
	try := func(name string, want error, change func(*differenceDoc)) {
		t.Helper()
		var w differenceDoc
		if err := decode(shortLists, good, &w); err != nil {
			t.Fatal(err)
		}
		change(&w)
		if _, err := ApplyDifference(encode(&w), base); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	try("version", ErrVersion, func(w *differenceDoc) { w.Version = 2 })
	try("base", ErrBase, func(w *differenceDoc) { w.Base[0] ^= 1 })
	try("target", nil, func(w *differenceDoc) { w.Target[0] ^= 1 })
	try("an inserted byte", nil, func(w *differenceDoc) { w.Inserted[5] ^= 1 })
	try("bytes not used", nil, func(w *differenceDoc) { w.Inserted = append(w.Inserted, 0) })
	try("no instructions", nil, func(w *differenceDoc) { w.Instructions = nil })
	try("a cut varint", ErrEncoding, func(w *differenceDoc) { w.Instructions = []byte{0x80} })
	try("a long varint", ErrEncoding, func(w *differenceDoc) { w.Instructions = []byte{0x80, 0x00, 0, 0} })
	try("more than there is", nil, func(w *differenceDoc) { w.Instructions = []byte{0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0} })
	try("a sum that overflows", nil, func(w *differenceDoc) {
		w.Instructions = append(bytes.Repeat([]byte{0xff}, 9), 1)
		w.Instructions = append(w.Instructions, w.Instructions...)
		w.Instructions = append(w.Instructions, 0)
	})
	if _, err := ApplyDifference(make([]byte, MaxDifference+1), base); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

// Whatever is applied, what comes out is the document of the named digest, and bounded by what came in.
func FuzzApplyDifference(f *testing.F) {
	_, base, target := differencePair(f, 9)
	good := must(Difference(base.Raw(), target))
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{differencePairs, 1, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := ApplyDifference(raw, base)
		if err != nil {
			return
		}
		var w differenceDoc
		if err := decode(shortLists, raw, &w); err != nil {
			t.Fatal(err)
		}
		if DigestOf(document(got)) != w.Target || len(got) > len(base.Raw())+len(raw)+1024 {
			t.Errorf("%d bytes of another document", len(got))
		}
	})
}

// FuzzPatch applies instructions that no digest protects.
func FuzzPatch(f *testing.F) {
	f.Add([]byte{1, 1, 1}, []byte("a"), []byte("bc"))
	f.Add([]byte{0xff, 0xff, 0x03, 0, 0}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, instructions, inserted, base []byte) {
		if got, err := apply(instructions, inserted, base); err == nil && len(got) > len(inserted)+len(base) {
			t.Errorf("%d bytes out of %d and %d", len(got), len(inserted), len(base))
		}
	})
}
