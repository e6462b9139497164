package relay

import (
	"context"

	"torproxy/wire"
	"torproxy/wire/link"
	"torproxy/wire/onion"
)

// forward passes cells both ways, each with this hop's layer, until a side ends or ctx does. A side that
// does not take its cells makes this relay stop reading the other: QUIC's window then stops the hop
// before. Both streams are reset when it returns, with a code that says nothing.
func (r *Relay) forward(ctx context.Context, prev, next *link.Stream, keys *onion.HopKeys) {
	outward := onion.NewLayer(&keys.Forward, wire.CellSize)
	inward := onion.NewLayer(&keys.Backward, wire.CellSize)
	end := func() {
		prev.Reset(wire.ResetDestroyed)
		next.Reset(wire.ResetDestroyed)
	}
	stop := context.AfterFunc(ctx, end)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer end()
		r.pass(true, prev, next, outward, end)
	}()
	r.pass(false, next, prev, inward, end)
	end()
	<-done
}

// pass moves one direction's cells: whatever whole cells came in one read go on in one write. end ends the
// circuit from outside.
func (r *Relay) pass(outward bool, from, to *link.Stream, layer *onion.Layer, end func()) error {
	return from.ReadCells(func(cells []byte) error {
		r.counters.passed(outward, cells)
		if trace := r.cfg.Trace.Cells; trace != nil {
			trace(outward, cells)
		}
		for rest := cells; len(rest) > 0; rest = rest[wire.CellSize:] {
			layer.Pass(rest[:wire.CellSize])
		}
		return r.stalls.write(to, cells, end)
	})
}
