package netdoc

import (
	"bytes"
	"reflect"
	"testing"
)

// Whatever is accepted encodes to the bytes that it came from. The fuzzer's bytes are tried twice: as an
// envelope, and as a document inside an envelope that is signed well, which random bytes never get to.
// Give -fuzzminimizetime=1x: else the minutes go into making the first find smaller.

func fuzzDocument(f *testing.F, k kind) {
	var s sample
	for _, s = range samples() {
		if s.kind == k {
			break
		}
	}
	f.Add(s.doc)
	f.Add(s.seal(s.doc))
	f.Add(s.doc[:len(s.doc)/2])
	f.Add([]byte{0xa2, 0x01, 0x01, 0x02, 0x9f, 0xff})
	f.Add([]byte{0xbf, 0x01, 0x18, 0x01, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, raw := range [][]byte{b, s.seal(b)} {
			again, err := s.parse(raw)
			if err != nil {
				continue
			}
			if got := must(again()); !bytes.Equal(document(got), document(raw)) {
				t.Errorf("accepted %x, encodes to %x", raw, got)
			}
		}
	})
}

func FuzzParseDescriptor(f *testing.F)  { fuzzDocument(f, kindDescriptor) }
func FuzzParseVote(f *testing.F)        { fuzzDocument(f, kindVote) }
func FuzzParseEcho(f *testing.F)        { fuzzDocument(f, kindEcho) }
func FuzzParseEndorsement(f *testing.F) { fuzzDocument(f, kindEndorsement) }
func FuzzParseConsensus(f *testing.F)   { fuzzDocument(f, kindConsensus) }

func FuzzParseNetwork(f *testing.F) {
	n, _ := testNetwork(2)
	f.Add([]byte(networkText(n)))
	f.Add([]byte(`{"version": 1, "version": 1}`))
	f.Add([]byte(`{"version": 1, "name": "x", "authorities": [{}], "parameters": {"round": "5s"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := ParseNetwork(data)
		if err != nil {
			return
		}
		again, err := ParseNetwork(n.Marshal())
		if err != nil || !reflect.DeepEqual(again, n) {
			t.Errorf("accepted\n%s\nwrites\n%s\n%v", data, n.Marshal(), err)
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	for _, s := range []string{
		"", "accept *:*", "reject private:*, accept *:80-443", "accept [2001:db8::]/32:22,accept 10.0.0.0/8:*", "accept [::ffff:1.2.3.4]:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePolicy(s)
		if err != nil {
			return
		}
		text := p.String()
		again, err := parseCanonicalPolicy(text)
		if err != nil || again.String() != text || !reflect.DeepEqual(again, p) {
			t.Errorf("%q is canonically %q, which reads as %q, %v", s, text, again, err)
		}
	})
}
