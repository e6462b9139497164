package onion

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"torproxy/wire"
)

// createVectors is testdata/create.json: CREATE and CREATED in the opening direction, so that another implementation
// can check itself. What its notes say of the fields is not repeated here. vectors_update_test.go writes the file.
type createVectors struct {
	Notes    []string        `json:"notes"`
	Relays   []vectorRelay   `json:"relays"`
	Circuits []vectorCircuit `json:"circuits"`
	Peel     []vectorPeel    `json:"peel"`
	Finish   []vectorFinish  `json:"finish"`
}

type vectorRelay struct {
	ID       hexBytes `json:"id"`
	OnionKey hexBytes `json:"onion_key"`
	Digest   hexBytes `json:"digest"`
}

type vectorCircuit struct {
	Name    string      `json:"name"`
	Time    int64       `json:"time"`
	Packet  hexBytes    `json:"packet"`
	Hops    []vectorHop `json:"hops"`
	Created hexBytes    `json:"created"`
	Result  string      `json:"result"`
	Hop     int         `json:"hop"`
}

type vectorHop struct {
	Relay    int         `json:"relay"`
	C        hexBytes    `json:"c"`
	Enc      hexBytes    `json:"enc"`
	Tag      hexBytes    `json:"tag"`
	Mac      hexBytes    `json:"mac"`
	Stream   hexBytes    `json:"stream"`
	Reply    hexBytes    `json:"reply"`
	Pad      hexBytes    `json:"pad"`
	Chain    hexBytes    `json:"chain"`
	Packet   hexBytes    `json:"packet_sha256,omitempty"`
	Next     hexBytes    `json:"next,omitempty"`
	Y        hexBytes    `json:"y,omitempty"`
	Status   wire.Status `json:"status,omitempty"`
	Created  hexBytes    `json:"created,omitempty"`
	Forward  hexBytes    `json:"forward,omitempty"`
	Backward hexBytes    `json:"backward,omitempty"`
}

type vectorPeel struct {
	Name   string   `json:"name"`
	Relay  int      `json:"relay"`
	Time   int64    `json:"time"`
	Of     string   `json:"of,omitempty"`
	Flip   []int    `json:"flip,omitempty"`
	Packet hexBytes `json:"packet,omitempty"`
	Times  int      `json:"times,omitempty"`
	Result string   `json:"result"`
}

type vectorFinish struct {
	Name    string   `json:"name"`
	Of      string   `json:"of"`
	Created hexBytes `json:"created"`
	Result  string   `json:"result"`
}

// Results of a vector, besides the texts of wire.Status.
const (
	resultAccepted  = "accepted"  // peel: the relay goes on with it
	resultNoAnswer  = "no answer" // peel: the stream is reset
	resultViolation = "violation" // finish
)

func readCreateVectors(t *testing.T) *createVectors {
	t.Helper()
	raw, err := os.ReadFile("testdata/create.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(createVectors)
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatal(err)
	}
	if len(v.Circuits) == 0 || len(v.Peel) == 0 || len(v.Finish) == 0 {
		t.Fatal("vectors are missing")
	}
	return v
}

// keyring makes relay i's keyring. As an old key, a new one stands before the vector's.
func (v *createVectors) keyring(t *testing.T, i int, old bool) *Keyring {
	t.Helper()
	key, err := ParsePrivateKey(v.Relays[i].OnionKey)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "onion key digest", key.digest[:], v.Relays[i].Digest)
	ring := NewKeyring(wire.ID(v.Relays[i].ID), key, testLimit)
	if old {
		ring.Rotate(newTestKey(t))
	}
	return ring
}

func (v *createVectors) circuit(t *testing.T, name string) *vectorCircuit {
	t.Helper()
	for i := range v.Circuits {
		if v.Circuits[i].Name == name {
			return &v.Circuits[i]
		}
	}
	t.Fatalf("no circuit %q", name)
	return nil
}

// handshake makes the client's side of a circuit.
func (v *createVectors) handshake(t *testing.T, c *vectorCircuit) *Handshake {
	t.Helper()
	h := new(Handshake)
	for i := range c.Hops {
		hv := &c.Hops[i]
		p := hop{
			id:     wire.ID(v.Relays[hv.Relay].ID),
			digest: [32]byte(v.Relays[hv.Relay].Digest),
			enc:    hv.Enc,
			tag:    [macSize]byte(hv.Tag),
			first:  hv.first(),
			c:      share(t, hv.C),
		}
		h.hops = append(h.hops, p)
	}
	return h
}

func (hv *vectorHop) first() *firstPass {
	return &firstPass{mac: [32]byte(hv.Mac), stream: [32]byte(hv.Stream), reply: [32]byte(hv.Reply),
		pad: [32]byte(hv.Pad), chain: [32]byte(hv.Chain)}
}

func share(t *testing.T, private []byte) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestCreateVectors opens every recorded circuit, under each relay's current and old key.
func TestCreateVectors(t *testing.T) {
	v := readCreateVectors(t)
	for i := range v.Circuits {
		c := &v.Circuits[i]
		for key, old := range map[string]bool{"current key": false, "old key": true} {
			t.Run(c.Name+"/"+key, func(t *testing.T) {
				created := v.relays(t, c, old)
				equal(t, "CREATED", created, c.Created)
				keys, err := v.handshake(t, c).Finish(c.Created)
				if said := new(HopError); errors.As(err, &said) {
					if said.Status.String() != c.Result || said.Hop+1 != c.Hop || keys != nil {
						t.Fatalf("got %v, want hop %d: %s", err, c.Hop, c.Result)
					}
					return
				}
				if err != nil || c.Result != wire.StatusReady.String() || len(keys) != len(c.Hops) || c.Hop != len(c.Hops) {
					t.Fatalf("got %d keys, %v; want %s", len(keys), err, c.Result)
				}
				for i := range keys {
					equal(t, "client's forward", keys[i].Forward[:], c.Hops[i].Forward)
					equal(t, "client's backward", keys[i].Backward[:], c.Hops[i].Backward)
				}
			})
		}
	}
}

// relays takes a circuit's packet out and its answer back.
func (v *createVectors) relays(t *testing.T, c *vectorCircuit, old bool) (created []byte) {
	t.Helper()
	packet := []byte(c.Packet)
	var peeled []*Peeled
	for i := range c.Hop {
		hv := &c.Hops[i]
		sum := sha256.Sum256(packet)
		equal(t, "packet", sum[:], hv.Packet)
		equal(t, "enc", packet[:encSize], hv.Enc)
		equal(t, "tag", packet[encSize:encSize+macSize], hv.Tag)
		ring := v.keyring(t, hv.Relay, old)
		y := func() (*ecdh.PrivateKey, error) { return share(t, hv.Y), nil }
		p, err := ring.peel(packet, time.Unix(c.Time, 0), y)
		if err != nil || p.Verdict != 0 {
			t.Fatalf("hop %d: %v", i+1, err)
		}
		if *p.first != *hv.first() {
			t.Fatalf("hop %d: first-pass keys differ", i+1)
		}
		if p.Last != (hv.Next == nil) || !p.Last && !bytes.Equal(p.Next[:], hv.Next) {
			t.Fatalf("hop %d: last %v, next %v", i+1, p.Last, p.Next)
		}
		peeled = append(peeled, p)
		packet = p.Packet
	}
	for i := len(peeled) - 1; i >= 0; i-- {
		hv := &c.Hops[i]
		out, keys, err := peeled[i].Answer(hv.Status, created)
		if err != nil {
			t.Fatalf("hop %d: %v", i+1, err)
		}
		equal(t, "a hop's CREATED", out, hv.Created)
		if (keys == nil) != (hv.Forward == nil) {
			t.Fatalf("hop %d: keys %v", i+1, keys != nil)
		}
		if keys != nil {
			equal(t, "forward", keys.Forward[:], hv.Forward)
			equal(t, "backward", keys.Backward[:], hv.Backward)
		}
		created = out
	}
	return created
}

// TestPeelVectors: packets that a relay must accept, refuse, or not answer.
func TestPeelVectors(t *testing.T) {
	v := readCreateVectors(t)
	for _, c := range v.Peel {
		t.Run(c.Name, func(t *testing.T) {
			packet := c.Packet
			if c.Of != "" {
				packet = bytes.Clone(v.circuit(t, c.Of).Packet)
			}
			for _, at := range c.Flip {
				packet[at] ^= 1
			}
			ring := v.keyring(t, c.Relay, false)
			for range c.Times {
				if _, err := ring.Peel(packet, time.Unix(c.Time, 0)); err != nil {
					t.Fatal(err)
				}
			}
			if got := peelResult(ring.Peel(packet, time.Unix(c.Time, 0))); got != c.Result {
				t.Errorf("got %q, want %q", got, c.Result)
			}
		})
	}
}

func peelResult(p *Peeled, err error) string {
	switch {
	case errors.Is(err, ErrCreate):
		return resultNoAnswer
	case err != nil:
		return err.Error()
	case p.Verdict != 0:
		return p.Verdict.String()
	}
	return resultAccepted
}

// TestFinishVectors: answers that a client must not accept.
func TestFinishVectors(t *testing.T) {
	v := readCreateVectors(t)
	for _, c := range v.Finish {
		t.Run(c.Name, func(t *testing.T) {
			keys, err := v.handshake(t, v.circuit(t, c.Of)).Finish(c.Created)
			if !errors.Is(err, wire.ErrViolation) || keys != nil || c.Result != resultViolation {
				t.Errorf("got %v, want %s", err, c.Result)
			}
		})
	}
}
