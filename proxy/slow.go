package proxy

import (
	"time"

	"torproxy/proxy/circuit"
)

// A circuit that has become slow is replaced. Slow is against its own history: the exit answers the END of a
// stream at once, without asking anybody else, so the time from END to END is one round trip of the path, as
// building was, and what was on its way before it. It costs no traffic of its own. BEGIN to CONNECTED would not
// serve: most of it is the destination's.
const (
	slowFactor = 3           // times as long as building took,
	slowLeast  = time.Second // and so much longer,
	slowRow    = 3           // so often in a row: then the circuit takes no new streams

	// So often at most. When every circuit is slow it is this machine's own line, or the first hop's, and
	// no other circuit makes that faster.
	slowPause = time.Minute

	// An answer that took less than this part of building was on its way before the END was sent: the exit
	// had ended the stream itself. It measures nothing.
	crossedPart = 4
)

// A circuit that has gone mute is left by the first END that says so. Some relay on it takes cells and passes
// none on, as no link on its way is dead; what waits for a page there would wait for as long as its user does,
// and the next request of the same label after it.
const (
	muteFactor = 10              // times as long as building took without a word, and at least
	muteLeast  = 5 * time.Second // so long: then it takes no new streams
)

// answeredLocked notes how long the exit took to answer the END of a stream. p.mu is held.
func (p *pool) answeredLocked(h *held, took time.Duration) {
	built := h.circuit.Took()
	switch {
	case took < built/crossedPart:
		return
	case took < slowFactor*built || took < built+slowLeast:
		h.slow = 0
		return
	}
	h.slow++
	now := time.Now()
	if h.slow < slowRow || h.retired || now.Sub(p.replaced) < slowPause {
		return
	}
	h.retired, p.replaced = true, now
	p.changedLocked()
}

// awaitEnd is called when the END of a stream is sent, and returns what to call when the exit has answered it.
func (p *pool) awaitEnd(h *held) (answered func()) {
	return p.awaitWord(h, h.circuit.Heard())
}

// awaitWord retires the circuit after a while if by then nothing has come from its exit since Heard was heard, unless
// answered is called before.
func (p *pool) awaitWord(h *held, heard int64) (answered func()) {
	waiting := time.AfterFunc(mute(h.circuit), func() {
		if h.circuit.Heard() == heard {
			p.retire(h)
		}
	})
	return func() { waiting.Stop() }
}

// mute is how long an END may be without an answer, and nothing else be heard, until a circuit counts as mute.
func mute(c *circuit.Circuit) time.Duration { return max(muteFactor*c.Took(), muteLeast) }
