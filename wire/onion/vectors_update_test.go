package onion

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"torproxy/wire"
)

var update = flag.Bool("update", false, "write testdata/create.json anew, with new keys")

// vectorNotes explains testdata/create.json to whoever implements the protocol again.
var vectorNotes = []string{
	"CREATE and CREATED of SPEC.md section 3, in the opening direction: recorded packets under fixed private keys. Byte strings are hex.",
	"relays: id; onion_key is the private key as the KEM serializes it (32-byte seed); digest is SHA-256 of the public key.",
	"circuits: packet is the CREATE that the first hop gets at Unix time `time`, created the CREATED that the client gets back. The path's hops 1 to `hop` peeled it; hop `hop` answered `result`.",
	"hops: relay is an index into relays; c and y are X25519 private keys; enc and tag are those of the packet that the hop gets, packet_sha256 is the hash of all of it; mac to chain are the first-pass keys; next is the next relay's ID, absent at the path's end.",
	"hops: status and created are the hop's answer; forward and backward are its data keys, absent where there are none. A hop that the packet did not reach has no packet_sha256 and nothing of an answer.",
	"peel: relay gets, at Unix time `time`, packet, or that of circuit `of`, with bit 0 of each byte in flip flipped. It peels it `times` times first. result: accepted, no answer (the stream is reset), or the status answered.",
	"finish: the client of circuit `of` gets created. result: violation.",
}

// TestUpdateVectors writes the vectors if -update is given; else it checks that they could be written: that the
// recorder and the file agree on what there is.
func TestUpdateVectors(t *testing.T) {
	v := record(t)
	if !*update {
		old := readCreateVectors(t)
		if len(old.Circuits) != len(v.Circuits) || len(old.Peel) != len(v.Peel) || len(old.Finish) != len(v.Finish) {
			t.Error("testdata/create.json lacks vectors: run go test -run UpdateVectors -update")
		}
		return
	}
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata/create.json", append(out, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recorder makes vectors over one network of eight relays.
type recorder struct {
	*createVectors
	net *testNet
}

func record(t *testing.T) *createVectors {
	r := &recorder{createVectors: &createVectors{Notes: vectorNotes}, net: newTestNet(t, wire.MaxHops)}
	for i, key := range r.net.keys {
		digest := key.Digest()
		r.Relays = append(r.Relays, vectorRelay{ID: r.net.path[i].ID[:], OnionKey: key.Bytes(), Digest: digest[:]})
	}
	for _, c := range []struct {
		name       string
		hops, ends int
		status     wire.Status
	}{
		{"one hop", 1, 1, wire.StatusReady},
		{"two hops", 2, 2, wire.StatusReady},
		{"three hops", 3, 3, wire.StatusReady},
		{"eight hops", 8, 8, wire.StatusReady},
		{"first hop of two is overloaded", 2, 1, wire.StatusOverloaded},
		{"second hop of three cannot reach the third", 3, 2, wire.StatusNextUnreachable},
		{"last hop of three refuses", 3, 3, wire.StatusRefused},
	} {
		r.circuit(t, c.name, c.hops, c.ends, c.status)
	}
	r.peels(t)
	r.finishes(t)
	return r.createVectors
}

// upTo returns the network's first n relays with empty replay caches.
func (r *recorder) upTo(n int) *testNet {
	net := &testNet{path: r.net.path[:n], keys: r.net.keys[:n]}
	for i := range n {
		net.rings = append(net.rings, NewKeyring(net.path[i].ID, net.keys[i], testLimit))
	}
	return net
}

func (r *recorder) circuit(t *testing.T, name string, n, ends int, status wire.Status) {
	t.Helper()
	net := r.upTo(n)
	packet, h := net.create(t)
	c := vectorCircuit{Name: name, Time: testNow.Unix(), Packet: packet, Result: status.String(), Hop: ends}
	for i := range h.hops {
		p := &h.hops[i]
		c.Hops = append(c.Hops, vectorHop{Relay: i, C: p.c.Bytes(), Enc: p.enc, Tag: p.tag[:], Mac: p.first.mac[:],
			Stream: p.first.stream[:], Reply: p.first.reply[:], Pad: p.first.pad[:], Chain: p.first.chain[:]})
	}
	var peeled []*Peeled
	for i := range ends {
		hv := &c.Hops[i]
		sum := sha256.Sum256(packet)
		hv.Packet = sum[:]
		p, err := net.rings[i].peel(packet, testNow, func() (*ecdh.PrivateKey, error) {
			y, err := newShare()
			hv.Y = y.Bytes()
			return y, err
		})
		if err != nil {
			t.Fatal(err)
		}
		if !p.Last {
			hv.Next = p.Next[:]
		}
		peeled, packet = append(peeled, p), p.Packet
	}
	for i := ends - 1; i >= 0; i-- {
		out, keys, err := peeled[i].Answer(status, c.Created)
		if err != nil {
			t.Fatal(err)
		}
		hv := &c.Hops[i]
		hv.Status, hv.Created, c.Created = status, out, out
		if keys != nil {
			hv.Forward, hv.Backward = keys.Forward[:], keys.Backward[:]
		}
		status = wire.StatusForwarded
	}
	r.Circuits = append(r.Circuits, c)
}

// peels records what one relay makes of one packet: circuit "two hops" changed in transit or peeled at another time,
// and packets that were made wrong.
func (r *recorder) peels(t *testing.T) {
	const of = "two hops"
	now := testNow.Unix()
	hour := int64(time.Hour / time.Second)
	r.Peel = []vectorPeel{
		{Name: "as it was", Time: now, Of: of, Result: resultAccepted},
		{Name: "replayed", Time: now, Of: of, Times: 1, Result: resultNoAnswer},
		{Name: "another relay", Relay: 1, Time: now, Of: of, Result: resultNoAnswer},
		{Name: "last second of the hour after", Time: now + 3*hour/2 - 1, Of: of, Result: resultAccepted},
		{Name: "two hours after", Time: now + 3*hour/2, Of: of, Result: resultNoAnswer},
		{Name: "first second of the hour before", Time: now - 3*hour/2, Of: of, Result: resultAccepted},
		{Name: "two hours before", Time: now - 3*hour/2 - 1, Of: of, Result: resultNoAnswer},
		{Name: "enc changed, ML-KEM", Time: now, Of: of, Flip: []int{0}, Result: resultNoAnswer},
		{Name: "enc changed, X25519", Time: now, Of: of, Flip: []int{encSize - 1}, Result: resultNoAnswer},
		{Name: "tag changed", Time: now, Of: of, Flip: []int{encSize + macSize - 1}, Result: resultNoAnswer},
		{Name: "head changed", Time: now, Of: of, Flip: []int{encSize + macSize}, Result: resultNoAnswer},
		{Name: "last byte changed", Time: now, Of: of, Flip: []int{wire.CreateSize - 1}, Result: resultNoAnswer},
		{Name: "one byte short", Time: now, Packet: r.Circuits[1].Packet[:wire.CreateSize-1], Result: resultNoAnswer},
	}
	points := lowOrderPoints(t)
	refused := wire.StatusRefused.String()
	for _, c := range []struct {
		name, result string
		hops         int
		edit         func(h *head)
	}{
		{"C is zero", resultNoAnswer, 1, func(h *head) { h.c = points[0] }},
		{"C has order eight", resultNoAnswer, 1, func(h *head) { h.c = points[2] }},
		{"C is p, and a flag is set", resultNoAnswer, 1, func(h *head) { h.c, h.flags = points[5], 1 }},
		{"hour two ahead", resultNoAnswer, 1, func(h *head) { h.hour += 2 }},
		{"hour two behind", resultNoAnswer, 1, func(h *head) { h.hour -= 2 }},
		{"role 0", refused, 1, func(h *head) { h.role = 0 }},
		{"role 3", refused, 2, func(h *head) { h.role = 3 }},
		{"flags 1", refused, 1, func(h *head) { h.flags = 1 }},
		{"reserved 0 1", refused, 1, func(h *head) { h.reserved[1] = 1 }},
		{"role end with a next", refused, 1, func(h *head) { h.next[31] = 1 }},
		{"role forward without a next", refused, 2, func(h *head) { h.next = wire.ID{} }},
		{"next is the relay itself", refused, 2, func(h *head) { h.next = r.net.path[0].ID }},
	} {
		packet, _ := r.upTo(c.hops).craft(t, func(heads []head) { c.edit(&heads[0]) })
		r.Peel = append(r.Peel, vectorPeel{Name: c.name, Time: now, Packet: packet, Result: c.result})
	}
}

// finishes records answers to circuit "three hops" that were changed on the way, and some that a hop with the right
// keys made wrong.
func (r *recorder) finishes(t *testing.T) {
	const of, hops = "three hops", 3
	c := r.createVectors.circuit(t, of)
	add := func(name string, created []byte) {
		r.Finish = append(r.Finish, vectorFinish{Name: name, Of: of, Created: created, Result: resultViolation})
	}
	for _, at := range []int{0, 1, 8, 40, 56, 72, 3*answerSize - 1, 3 * answerSize, wire.CreatedSize - 1} {
		changed := bytes.Clone(c.Created)
		changed[at] ^= 1
		add(fmt.Sprintf("byte %d changed", at), changed)
	}
	add("one byte short", c.Created[:wire.CreatedSize-1])
	add("of another circuit", r.createVectors.circuit(t, "eight hops").Created)

	peeled := r.upTo(hops).carryOut(t, c.Packet, hops)
	points := lowOrderPoints(t)
	for _, l := range []struct {
		name string
		hop  int
		came []byte
		edit func(a *answer)
	}{
		{"hop 1 says status 0", 1, nil, func(a *answer) { a.status = 0 }},
		{"hop 2 says status 9", 2, nil, func(a *answer) { a.status = 9 }},
		{"hop 2 says ready", 2, nil, func(a *answer) {}},
		{"hop 3 says forwarded", 3, c.Created, func(a *answer) { a.status = wire.StatusForwarded }},
		{"hop 3 sets reserved", 3, nil, func(a *answer) { a.reserved[6] = 1 }},
		{"hop 3 has the wrong auth", 3, nil, func(a *answer) { a.auth[0] = 1 }},
		{"hop 3 sends Y of order eight", 3, nil, func(a *answer) { a.y = points[3] }},
		{"hop 2 refuses, with another pad", 2, c.Created, func(a *answer) { a.status = wire.StatusRefused }},
		{"hop 1 forwards noise", 1, c.Created, func(a *answer) { a.status = wire.StatusForwarded }},
	} {
		forged := forge(t, copyPeeled(t, peeled[l.hop-1]), l.came, l.edit)
		add(l.name, rewrap(t, peeled[:l.hop-1], forged))
	}
}
