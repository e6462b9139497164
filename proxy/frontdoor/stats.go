package frontdoor

import "sync/atomic"

// Stats counts what the front door has done since New. Nothing in it says for whom, or where to.
type Stats struct {
	Tunnels   int64 // CONNECT requests that were dialled
	Forwarded int64 // absolute-form requests that were sent on, or answered by what was pushed
	Failed    int64 // requests that got an answer of the proxy's own in place of the destination's

	Pushed        int64 // streams that exits have pushed
	PushesUsed    int64 // of them, those that answered a request
	PushesRefused int64 // of them, those that nobody could have used: not to be kept, malformed, too many
	PushesMissed  int64 // of them, those that a request asked for and could not be given, or not in time

	PushesHeld    int64 // at this moment, for requests to come
	PushBytesHeld int64 // of all that are held or being read

	PushBytesUsed   int64 // read of pushes that answered a request
	PushBytesWasted int64 // read of all others
}

// counts are the sums of Stats.
type counts struct {
	tunnels, forwarded, failed                      atomic.Int64
	pushed, pushesUsed, pushesRefused, pushesMissed atomic.Int64
	pushBytesUsed, pushBytesWasted                  atomic.Int64
}

// Stats returns the numbers of this moment.
func (s *Server) Stats() Stats {
	c := &s.counts
	held, bytes := s.pushes.count()
	return Stats{
		PushesHeld: int64(held), PushBytesHeld: bytes,
		Tunnels: c.tunnels.Load(), Forwarded: c.forwarded.Load(), Failed: c.failed.Load(),
		Pushed: c.pushed.Load(), PushesUsed: c.pushesUsed.Load(),
		PushesRefused: c.pushesRefused.Load(), PushesMissed: c.pushesMissed.Load(),
		PushBytesUsed: c.pushBytesUsed.Load(), PushBytesWasted: c.pushBytesWasted.Load(),
	}
}
