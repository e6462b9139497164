package onion

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"

	"torproxy/wire"
)

// circuit is both sides of a circuit's layers.
type circuit struct {
	client   *Client
	outward  []*Layer // per relay, first hop first
	inward   []*Layer
	cellSize int
}

func newCircuit(n, cellSize int) *circuit {
	keys := testHopKeys(n)
	c := &circuit{client: NewClient(keys, cellSize), cellSize: cellSize}
	for i := range keys {
		c.outward = append(c.outward, NewLayer(&keys[i].Forward, cellSize))
		c.inward = append(c.inward, NewLayer(&keys[i].Backward, cellSize))
	}
	return c
}

// cell returns a cell with a payload that seed picks and a tag of noise.
func (c *circuit) cell(seed uint64) []byte {
	cell := make([]byte, c.cellSize)
	fillTest(cell, seed)
	return cell
}

// send takes a sealed cell through the relays and reports whether the last one recognised it.
func (c *circuit) send(cell []byte) bool {
	last := len(c.outward) - 1
	for _, l := range c.outward[:last] {
		l.Pass(cell)
	}
	return c.outward[last].Recognise(cell)
}

// originate makes an inward cell at the last relay and brings it through the others.
func (c *circuit) originate(cell []byte) {
	last := len(c.inward) - 1
	c.inward[last].Originate(cell)
	for i := last - 1; i >= 0; i-- {
		c.inward[i].Pass(cell)
	}
}

// TestCells: every path length and several cell sizes, many cells in both directions, interleaved.
func TestCells(t *testing.T) {
	for _, size := range []int{17, 31, 32, 33, 509, 512, wire.CellSize, 4096} {
		for n := 1; n <= wire.MaxHops; n++ {
			t.Run(fmt.Sprintf("size=%d/hops=%d", size, n), func(t *testing.T) {
				c := newCircuit(n, size)
				for i := range uint64(20) {
					want := c.cell(i)[16:]
					cell := c.cell(i)
					c.client.Seal(cell)
					if bytes.Contains(cell, want[:min(16, len(want))]) && len(want) >= 16 {
						t.Fatal("the payload is in clear in the sealed cell")
					}
					if !c.send(cell) || !bytes.Equal(cell[16:], want) {
						t.Fatalf("outward cell %d: not recognised, or another payload", i)
					}
					cell = c.cell(i)
					c.originate(cell)
					if !c.client.Open(cell) || !bytes.Equal(cell[16:], want) {
						t.Fatalf("inward cell %d: not opened, or another payload", i)
					}
				}
			})
		}
	}
}

func TestCounterBits(t *testing.T) {
	for _, c := range []struct{ cell, want int }{
		{17, 3}, {509, 6}, {512, 6}, {wire.CellSize, 7}, {2048, 8}, {4096, 9},
		{16 + 16*3, 3}, {16 + 16*3 + 1, 4}, // 3 blocks + 5 = 8 = 2^3, and one more
	} {
		if got := counterBits(c.cell - 16); got != c.want {
			t.Errorf("cells of %d bytes: c = %d, want %d", c.cell, got, c.want)
		}
	}
}

// garbled reports an error unless got looks like noise beside want: of 1216 random bytes 5 are equal by chance.
func garbled(t *testing.T, what string, got, want []byte) {
	t.Helper()
	same := 0
	for i := range got {
		if got[i] == want[i] {
			same++
		}
	}
	if same > 8+len(got)/32 {
		t.Errorf("%s: %d of %d bytes survive", what, same, len(got))
	}
}

// TestFlippedBit: one changed bit, anywhere in a cell and before any hop, makes noise of that cell and of all after
// it, at the next honest hop already, and the end does not recognise any of them.
func TestFlippedBit(t *testing.T) {
	const hops = 3
	const size = wire.CellSize
	for at := range hops { // flipped in front of hop at
		for bit := at; bit < 8*size; bit += 61 { // 61 and 8 have no common factor: every bit of a byte has its turn
			clean, c := newCircuit(hops, size), newCircuit(hops, size)
			for n := range 2 {
				cell := c.cell(uint64(n))
				c.client.Seal(cell)
				pristine := bytes.Clone(cell)
				for i := range hops {
					if n == 0 && i == at {
						cell[bit/8] ^= 1 << (bit % 8)
					}
					recognised := false
					if i == hops-1 {
						recognised = c.outward[i].Recognise(cell)
						clean.outward[i].Recognise(pristine)
					} else {
						c.outward[i].Pass(cell)
						clean.outward[i].Pass(pristine)
					}
					if recognised {
						t.Fatalf("bit %d flipped before hop %d: cell %d recognised", bit, at+1, n)
					}
					if i >= at {
						garbled(t, fmt.Sprintf("bit %d, hop %d, cell %d", bit, i+1, n), cell, pristine)
					}
				}
			}
		}
	}
}

// TestFlippedBitInward: the same in the other direction. The client, which decrypts, may see most of the payload
// again, but it does not open the cell.
func TestFlippedBitInward(t *testing.T) {
	const hops = 3
	const size = wire.CellSize
	for at := range hops { // flipped behind hop at
		for bit := at; bit < 8*size; bit += 61 {
			clean, c := newCircuit(hops, size), newCircuit(hops, size)
			for n := range 2 {
				cell, pristine := c.cell(uint64(n)), c.cell(uint64(n))
				for hop := hops - 1; hop >= 0; hop-- {
					if hop == hops-1 {
						c.inward[hop].Originate(cell)
						clean.inward[hop].Originate(pristine)
					} else {
						c.inward[hop].Pass(cell)
						clean.inward[hop].Pass(pristine)
					}
					if hop < at {
						garbled(t, fmt.Sprintf("bit %d, hop %d, cell %d", bit, hop+1, n), cell, pristine)
					}
					if n == 0 && hop == at {
						cell[bit/8] ^= 1 << (bit % 8)
					}
				}
				if c.client.Open(cell) {
					t.Fatalf("bit %d flipped behind hop %d: cell %d opened", bit, at+1, n)
				}
			}
		}
	}
}

// TestCellOrder: a cell repeated, left out, swapped, or sent back where it came from is caught.
func TestCellOrder(t *testing.T) {
	const hops = 3
	sealed := func() (c *circuit, cells [][]byte) {
		c = newCircuit(hops, wire.CellSize)
		for i := range uint64(3) {
			cells = append(cells, c.cell(i))
			c.client.Seal(cells[i])
		}
		return c, cells
	}
	t.Run("in order", func(t *testing.T) {
		c, cells := sealed()
		for i := range cells {
			if !c.send(cells[i]) {
				t.Fatalf("cell %d", i)
			}
		}
	})
	for _, order := range [][]int{{1}, {2}, {0, 0}, {0, 2}, {0, 1, 0}, {0, 1, 1}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			c, cells := sealed()
			last := len(order) - 1
			for i, n := range order {
				if got := c.send(bytes.Clone(cells[n])); got != (i != last) {
					t.Fatalf("cell %d in place %d: recognised = %v", n, i, got)
				}
			}
			if c.send(cells[2]) {
				t.Error("a cell after the bad one is recognised")
			}
		})
	}
	t.Run("inward swapped", func(t *testing.T) {
		c := newCircuit(hops, wire.CellSize)
		first, second := c.cell(0), c.cell(1)
		c.originate(first)
		c.originate(second)
		if c.client.Open(second) || c.client.Open(first) {
			t.Error("opened")
		}
	})
	t.Run("inward repeated", func(t *testing.T) {
		c := newCircuit(hops, wire.CellSize)
		cell := c.cell(0)
		c.originate(cell)
		again := bytes.Clone(cell)
		if !c.client.Open(cell) || c.client.Open(again) {
			t.Error("the first cell is not opened, or its copy is")
		}
	})
	t.Run("reflected", func(t *testing.T) {
		c, cells := sealed()
		if c.client.Open(cells[0]) {
			t.Error("the client opened its own cell")
		}
	})
}

// TestOrderOfRelays: a cell that visits the relays in another order, or misses one, is noise.
func TestOrderOfRelays(t *testing.T) {
	for _, order := range [][]int{{1, 0, 2}, {0, 2}, {1, 2}, {2}, {0, 0, 1, 2}} {
		c := newCircuit(3, wire.CellSize)
		cell := c.cell(0)
		c.client.Seal(cell)
		for _, i := range order[:len(order)-1] {
			c.outward[i].Pass(cell)
		}
		if c.outward[2].Recognise(cell) {
			t.Errorf("recognised after hops %v", order)
		}
	}
}

// TestKeysReplaced: an end's keys after a cell open nothing that came before it (SPEC.md section 4).
func TestKeysReplaced(t *testing.T) {
	c := newCircuit(1, wire.CellSize)
	first := c.cell(0)
	c.client.Seal(first)
	sealed := bytes.Clone(first)
	if !c.send(first) {
		t.Fatal("not recognised")
	}
	late := &Layer{s: c.outward[0].s}
	late.s.tweak = [16]byte{}
	late.Pass(sealed)
	if bytes.Equal(sealed[16:], first[16:]) {
		t.Error("keys from after a cell read the cell")
	}
}

// TestSealsDiffer: equal payloads make unlike cells, and the tag that the caller left does not matter.
func TestSealsDiffer(t *testing.T) {
	a, b := newCircuit(2, wire.CellSize), newCircuit(2, wire.CellSize)
	x, y := make([]byte, wire.CellSize), make([]byte, wire.CellSize)
	_, _ = rand.Read(y[:16])
	a.client.Seal(x)
	b.client.Seal(y)
	if !bytes.Equal(x, y) {
		t.Error("the tag's old bytes went into the cell")
	}
	z := make([]byte, wire.CellSize)
	a.client.Seal(z)
	garbled(t, "the second cell", z, x)
}

func TestCellSizeIsChecked(t *testing.T) {
	c := newCircuit(2, wire.CellSize)
	for name, work := range map[string]func([]byte){
		"Pass":      c.outward[0].Pass,
		"Recognise": func(cell []byte) { c.outward[1].Recognise(cell) },
		"Originate": c.inward[1].Originate,
		"Seal":      c.client.Seal,
		"Open":      func(cell []byte) { c.client.Open(cell) },
	} {
		for _, n := range []int{16, wire.CellSize - 1, wire.CellSize + 1} {
			if !panics(func() { work(make([]byte, n)) }) {
				t.Errorf("%s took a cell of %d bytes", name, n)
			}
		}
	}
	if !panics(func() { NewLayer(new([KeySize]byte), 16) }) || !panics(func() { NewClient(nil, wire.CellSize) }) {
		t.Error("a cell without payload, or a circuit without hops")
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

// TestAllocations: the cell path allocates what crypto/aes forces and nothing else: two AES key schedules where keys
// are replaced.
func TestAllocations(t *testing.T) {
	const perUpdate = 2
	c := newCircuit(3, wire.CellSize)
	end := newCircuit(1, wire.CellSize)
	cell := make([]byte, wire.CellSize)
	for _, m := range []struct {
		name string
		work func()
		want float64
	}{
		{"Pass", func() { c.outward[0].Pass(cell) }, 0},
		{"Originate", func() { c.inward[2].Originate(cell) }, perUpdate},
		{"Seal", func() { c.client.Seal(cell) }, perUpdate},
		{"Seal and Recognise", func() { end.client.Seal(cell); end.send(cell) }, 2 * perUpdate},
		{"Originate and Open", func() { end.originate(cell); end.client.Open(cell) }, 2 * perUpdate},
	} {
		if got := testing.AllocsPerRun(100, m.work); got > m.want {
			t.Errorf("%s: %v allocations, want %v", m.name, got, m.want)
		}
	}
}

// FuzzCells: whatever the keys and the payload, cells go round; whatever is changed on the way is noticed.
func FuzzCells(f *testing.F) {
	f.Add(uint8(3), uint64(1), []byte("payload"), uint16(0), uint8(1))
	f.Add(uint8(1), uint64(0), []byte{}, uint16(16), uint8(0x80))
	f.Add(uint8(8), uint64(7), bytes.Repeat([]byte{0xff}, 3000), uint16(2047), uint8(0))
	f.Fuzz(func(t *testing.T, hops uint8, seed uint64, payload []byte, at uint16, flip uint8) {
		n := int(hops)%wire.MaxHops + 1
		c := newCircuit(n, wire.CellSize)
		want := make([]byte, wire.PayloadSize)
		copy(want, payload)
		for i := range 2 {
			cell := append(make([]byte, wire.TagSize), want...)
			c.client.Seal(cell)
			if !c.send(cell) || !bytes.Equal(cell[16:], want) {
				t.Fatalf("outward cell %d", i)
			}
			c.originate(cell)
			if !c.client.Open(cell) || !bytes.Equal(cell[16:], want) {
				t.Fatalf("inward cell %d", i)
			}
		}
		cell := c.cell(seed)
		c.client.Seal(cell)
		cell[int(at)%len(cell)] ^= flip
		if c.send(cell) != (flip == 0) {
			t.Fatal("a changed cell was recognised, or an unchanged one was not")
		}
	})
}

// FuzzNoise: no cell that the client did not seal is recognised, and none that the last hop did not make opened.
func FuzzNoise(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, wire.CellSize))
	f.Fuzz(func(t *testing.T, noise []byte) {
		c := newCircuit(2, wire.CellSize)
		cell := make([]byte, wire.CellSize)
		copy(cell, noise)
		if c.send(bytes.Clone(cell)) || c.client.Open(cell) {
			t.Fatal("noise was accepted")
		}
	})
}
