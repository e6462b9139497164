package frontdoor

import "sync/atomic"

// Stats counts what the front door has done since New. Nothing in it says for whom, or where to.
type Stats struct {
	Tunnels   int64 // CONNECT requests, those among them that were refused
	Forwarded int64 // absolute-form requests: sent on, answered by what was pushed, or refused
	Failed    int64 // of both, those that got an answer of the proxy's own in place of the destination's

	// What has become of each stream that exits have pushed.
	PushesUsed    int64 // it answered a request
	PushesMissed  int64 // a request asked for it and could not be given it, or not in time
	PushesRefused int64 // nobody could have used it: not to be kept, malformed, broken off, too many
	PushesUnused  int64 // nobody has asked for it in time
	PushesKnown   int64 // the browser had it already
	PushesHeld    int64 // it waits at this moment
	PushBytesHeld int64 // of those that wait or are being read

	PushBytesUsed   int64 // read of pushes that answered a request
	PushBytesWasted int64 // read of all others; what was still on its way when one was dropped comes on top
}

// counts are the sums of Stats.
type counts struct {
	tunnels, forwarded, failed                                         atomic.Int64
	pushesUsed, pushesMissed, pushesRefused, pushesUnused, pushesKnown atomic.Int64
	pushBytesUsed, pushBytesWasted                                     atomic.Int64
}

// Stats returns the numbers of this moment.
func (s *Server) Stats() Stats {
	c := &s.counts
	held, bytes := s.pushes.count()
	return Stats{
		PushesHeld: int64(held), PushBytesHeld: bytes,
		Tunnels: c.tunnels.Load(), Forwarded: c.forwarded.Load(), Failed: c.failed.Load(),
		PushesUsed: c.pushesUsed.Load(), PushesMissed: c.pushesMissed.Load(),
		PushesRefused: c.pushesRefused.Load(), PushesUnused: c.pushesUnused.Load(), PushesKnown: c.pushesKnown.Load(),
		PushBytesUsed: c.pushBytesUsed.Load(), PushBytesWasted: c.pushBytesWasted.Load(),
	}
}
