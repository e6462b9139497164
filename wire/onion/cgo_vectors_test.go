package onion

import (
	"bytes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"torproxy/wire"
	"torproxy/wire/onion/internal/ctr"
)

// hexBytes is a byte string that vector files hold as hex digits.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// cgoVectors is one testdata/cgo*.json. Keys that it does not name are ignored.
type cgoVectors struct {
	ET []struct {
		Name                       string
		Encrypt                    bool
		Keys, Tweak, Block, Expect hexBytes
	}
	PRF []struct {
		Name                string
		T                   int
		Keys, Input, Expect hexBytes
	}
	UIV []struct {
		Name    string
		Encrypt bool
		Keys, H hexBytes
		XL      hexBytes `json:"x_l"`
		XR      hexBytes `json:"x_r"`
		YL      hexBytes `json:"y_l"`
		YR      hexBytes `json:"y_r"`
	}
	UIVUpdate []struct {
		Name        string
		Keys, Nonce hexBytes
		NewKeys     hexBytes `json:"new_keys"`
		NewNonce    hexBytes `json:"new_nonce"`
	} `json:"uiv_update"`
	Relay []struct {
		Name    string
		Inbound bool
		cgoCell
		StateIn  cgoState `json:"state_in"`
		StateOut cgoState `json:"state_out"`
	}
	RelayOriginate []struct {
		Name string
		cgoCell
		StateIn  cgoState `json:"state_in"`
		StateOut cgoState `json:"state_out"`
	} `json:"relay_originate"`
	ClientOriginate []struct {
		Name      string
		TargetHop int `json:"target_hop"`
		cgoCell
		StateIn  []cgoState `json:"state_in"`
		StateOut []cgoState `json:"state_out"`
	} `json:"client_originate"`
}

type cgoCell struct {
	Cmd, Tag, Msg hexBytes
	TOut          hexBytes `json:"t_out"`
	MsgOut        hexBytes `json:"msg_out"`
}

type cgoState struct {
	Keys, Nonce, TPrime hexBytes
}

// state makes production's state of a vector's.
func (v *cgoState) state(cellSize int, cmd byte) state {
	keys := [KeySize]byte(append(bytes.Clone(v.Keys), v.Nonce...))
	s := newState(&keys, cellSize, cmd)
	copy(s.tweak[:], v.TPrime)
	return s
}

// expect compares s with a vector's state. Keys are compared by what they do, since only their expansion is kept.
func (v *cgoState) expect(t *testing.T, s *state) {
	t.Helper()
	want := v.state(wire.TagSize+s.right, s.cmd)
	equal(t, "N", s.n[:], v.Nonce)
	equal(t, "T'", s.tweak[:], v.TPrime)
	equal(t, "B", s.b[:], want.b[:])
	if s.ku != want.ku {
		t.Error("KU differs")
	}
	equal(t, "KB", encryptZero(s.kb), encryptZero(want.kb))
	equal(t, "K", streamZero(&s.k), streamZero(&want.k))
}

func encryptZero(b cipher.Block) []byte {
	out := make([]byte, 16)
	b.Encrypt(out, out)
	return out
}

// streamZero moves s to the counter zero, as the next call of the PRF would to another.
func streamZero(s *ctr.Stream) []byte {
	out := make([]byte, 16)
	s.Seek(out)
	s.XORKeyStream(out, out)
	return out
}

func equal(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %.64x, want %.64x (%d and %d bytes)", what, got, want, len(got), len(want))
	}
}

// TestPublishedVectors runs every testdata/cgo*.json through the code that production runs.
func TestPublishedVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/cgo*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var v cgoVectors
			if err := json.Unmarshal(raw, &v); err != nil {
				t.Fatal(err)
			}
			ran := v.et(t) + v.prf(t) + v.uiv(t) + v.uivUpdate(t) + v.relay(t) + v.relayOriginate(t) + v.clientOriginate(t)
			if ran == 0 {
				t.Error("the file holds no vector of a known section")
			}
		})
	}
}

func (v *cgoVectors) et(t *testing.T) int {
	for _, c := range v.ET {
		t.Run("et/"+c.Name, func(t *testing.T) {
			xr := c.Tweak[17:]
			cell := append(bytes.Clone(c.Block), xr...)
			var keys [KeySize]byte
			copy(keys[:], c.Keys)
			s := newState(&keys, len(cell), c.Tweak[16])
			copy(s.tweak[:], c.Tweak)
			if c.Encrypt {
				s.etEncrypt(cell)
			} else {
				s.etDecrypt(cell)
			}
			equal(t, "block", cell[:16], c.Expect)
			equal(t, "X_R, which ET only reads", cell[16:], xr)
		})
	}
	return len(v.ET)
}

// prf: t = 0 covers a whole X_R, so that its length is the cell's; t = 1 is of the same cell size.
func (v *cgoVectors) prf(t *testing.T) int {
	right := 0
	for _, c := range v.PRF {
		right = max(right, len(c.Expect))
	}
	for _, c := range v.PRF {
		t.Run("prf/"+c.Name, func(t *testing.T) {
			var keys [KeySize]byte
			copy(keys[32:], c.Keys)
			s := newState(&keys, wire.TagSize+right, 0)
			in := [16]byte(c.Input)
			s.prf(&in)
			out := make([]byte, right)
			s.k.XORKeyStream(out, out)
			if c.T == 1 {
				s.update()
				want := cgoState{Keys: c.Expect[:64], Nonce: c.Expect[64:80], TPrime: make([]byte, 16)}
				want.expect(t, &s)
				return
			}
			equal(t, "key stream", out, c.Expect)
		})
	}
	return len(v.PRF)
}

func (v *cgoVectors) uiv(t *testing.T) int {
	for _, c := range v.UIV {
		t.Run("uiv/"+c.Name, func(t *testing.T) {
			st := cgoState{Keys: c.Keys, Nonce: make([]byte, 16), TPrime: c.H[:16]}
			cell := append(bytes.Clone(c.XL), c.XR...)
			s := st.state(len(cell), c.H[16])
			if c.Encrypt {
				s.encipher(cell)
				equal(t, "T' after Enc", s.tweak[:], c.YL)
			} else {
				s.decipher(cell)
				equal(t, "T' after Dec", s.tweak[:], c.XL)
			}
			equal(t, "Y_L", cell[:16], c.YL)
			equal(t, "Y_R", cell[16:], c.YR)
		})
	}
	return len(v.UIV)
}

// publishedCell is the cell size of the vectors that carry no cell.
const publishedCell = 509

func (v *cgoVectors) uivUpdate(t *testing.T) int {
	for _, c := range v.UIVUpdate {
		t.Run("uiv_update/"+c.Name, func(t *testing.T) {
			in := cgoState{Keys: c.Keys, Nonce: c.Nonce, TPrime: make([]byte, 16)}
			s := in.state(publishedCell, 0)
			s.prf((*[16]byte)(c.Nonce))
			through := make([]byte, s.right)
			s.k.XORKeyStream(through, through)
			s.update()
			out := cgoState{Keys: c.NewKeys, Nonce: c.NewNonce, TPrime: make([]byte, 16)}
			out.expect(t, &s)
		})
	}
	return len(v.UIVUpdate)
}

func (v *cgoVectors) relay(t *testing.T) int {
	for _, c := range v.Relay {
		t.Run("relay/"+c.Name, func(t *testing.T) {
			cell := append(bytes.Clone(c.Tag), c.Msg...)
			l := &Layer{s: c.StateIn.state(len(cell), c.Cmd[0])}
			// Recognise does what Pass does, and then looks at the tag; none of the vectors' tags is N.
			if c.Inbound {
				l.Pass(cell)
			} else if l.Recognise(cell) {
				t.Error("recognised")
			}
			equal(t, "tag", cell[:16], c.TOut)
			equal(t, "message", cell[16:], c.MsgOut)
			c.StateOut.expect(t, &l.s)
		})
	}
	return len(v.Relay)
}

func (v *cgoVectors) relayOriginate(t *testing.T) int {
	for _, c := range v.RelayOriginate {
		t.Run("relay_originate/"+c.Name, func(t *testing.T) {
			cell := append(make([]byte, 16), c.Msg...)
			l := &Layer{s: c.StateIn.state(len(cell), c.Cmd[0])}
			l.Originate(cell)
			equal(t, "tag", cell[:16], c.TOut)
			equal(t, "message", cell[16:], c.MsgOut)
			c.StateOut.expect(t, &l.s)
		})
	}
	return len(v.RelayOriginate)
}

// clientOriginate: a circuit here ends at its last hop, so a cell for hop h is one of the circuit's first h hops.
func (v *cgoVectors) clientOriginate(t *testing.T) int {
	for _, c := range v.ClientOriginate {
		t.Run("client_originate/"+c.Name, func(t *testing.T) {
			cell := append(make([]byte, 16), c.Msg...)
			client := new(Client)
			for i := range c.TargetHop {
				client.forward = append(client.forward, c.StateIn[i].state(len(cell), c.Cmd[0]))
			}
			client.Seal(cell)
			equal(t, "tag", cell[:16], c.TOut)
			equal(t, "message", cell[16:], c.MsgOut)
			for i := range client.forward {
				c.StateOut[i].expect(t, &client.forward[i])
			}
		})
	}
	return len(v.ClientOriginate)
}
