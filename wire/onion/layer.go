package onion

import (
	"crypto/subtle"
)

// Who does what to a cell (SPEC.md section 4); relays encrypt and clients decrypt, in both directions:
//
//	outward   Client.Seal -> Layer.Pass -> ... -> Layer.Recognise at the last relay
//	inward    Client.Open <- Layer.Pass <- ... <- Layer.Originate at the last relay

// Layer is one relay's layer on the cells of one circuit in one direction. A relay has two per circuit, one from
// each half of its HopKeys. Each call takes the next cell of the stream, of exactly the cell size, and works in
// place; a cell of another size panics. Not for concurrent use.
type Layer struct {
	redacted
	s state
}

// NewLayer returns the layer under keys (KB | KU | K | B | N) for cells of cellSize bytes, wire.CellSize on the
// network. It does not keep keys.
func NewLayer(keys *[KeySize]byte, cellSize int) *Layer {
	return &Layer{s: newState(keys, cellSize, cellCommand)}
}

// Pass puts the layer on a cell that goes on, outward or inward, at every relay but the last.
func (l *Layer) Pass(cell []byte) {
	l.s.encipher(cell)
}

// Recognise takes an outward cell at the last relay. True: the cell is as the client sealed it and the next in
// order, its payload is in clear, and the keys are replaced. False: the cell was changed, repeated, left out or
// reordered somewhere; it is noise, and so is every later one: destroy the circuit.
func (l *Layer) Recognise(cell []byte) bool {
	l.s.encipher(cell)
	if subtle.ConstantTimeCompare(cell[:16], l.s.n[:]) != 1 {
		return false
	}
	l.s.update()
	return true
}

// Originate seals an inward cell at the last relay: cell[16:] is the payload, cell[:16] is overwritten. The keys
// are replaced.
func (l *Layer) Originate(cell []byte) {
	copy(cell, l.s.n[:])
	l.s.encipher(cell)
	l.s.update()
}

// Client is the client's side of all layers of a circuit. Seal and Open may run at the same time as each other,
// but each only in one goroutine. Cells are of exactly the cell size; another size panics.
type Client struct {
	redacted
	forward  []state // touched by Seal only
	backward []state // touched by Open only
}

// NewClient returns the layers of a circuit of one or more hops, first hop first, for cells of cellSize bytes,
// wire.CellSize on the network. It does not keep hops.
func NewClient(hops []HopKeys, cellSize int) *Client {
	if len(hops) == 0 {
		panic("onion: a client without hops")
	}
	c := new(Client)
	for i := range hops {
		c.forward = append(c.forward, newState(&hops[i].Forward, cellSize, cellCommand))
		c.backward = append(c.backward, newState(&hops[i].Backward, cellSize, cellCommand))
	}
	return c
}

// Seal makes an outward cell for the last hop, in place: cell[16:] is the payload, cell[:16] is overwritten. The
// keys of the last hop are replaced. Cells must be sent in the order in which they were sealed.
func (c *Client) Seal(cell []byte) {
	last := len(c.forward) - 1
	copy(cell, c.forward[last].n[:])
	c.forward[last].decipher(cell)
	c.forward[last].update()
	for i := last - 1; i >= 0; i-- {
		c.forward[i].decipher(cell)
	}
}

// Open takes all layers off an inward cell, in place. True: the cell is as the last hop made it and the next in
// order, and its payload is in clear. False: destroy the circuit, as with Layer.Recognise.
func (c *Client) Open(cell []byte) bool {
	last := len(c.backward) - 1
	for i := range last {
		c.backward[i].decipher(cell)
	}
	s := &c.backward[last]
	s.decipher(cell)
	if subtle.ConstantTimeCompare(cell[:16], s.n[:]) != 1 {
		return false
	}
	s.update()
	return true
}
