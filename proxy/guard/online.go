package guard

import (
	"slices"
	"time"
)

// net is what is known of this machine's own connection. It is told by guards alone, and by directory servers
// that answer.
//
//	left > 0              failures are the guards' own
//	left = 0, no primary  the network is taken to be down: every primary is tried again, once a round. Other
//	                      guards are tried far more rarely: most probably they would not answer either, and if
//	                      the network comes back, it shall find us at a primary.
//
// What failed before the network came back says nothing of the guard: up is the turn since which it is known
// to be there without a break, and only attempts that began after it count against a better guard when a
// lesser one is to be used.
type net struct {
	left int
	up   uint64 // 0: not known to be there
	down bool   // rounds are on

	round      time.Time // when primaries are next tried
	roundDelay time.Duration
	walk       time.Time // when another guard is next tried
	walkDelay  time.Duration
}

// Online says that a directory server, and so the network, has answered at this moment. Update does so by
// itself when it is given a newer consensus; only that of the start may come from a file.
func (s *State) Online(now time.Time) {
	s.advance(now)
	s.answered(nil)
	s.net.left = onlinePatience
}

// answered takes note of a sign of life from g, or from a directory server (nil).
func (s *State) answered(g *guard) {
	doubted := s.net.up == 0
	up := s.net.up
	if doubted {
		s.turn++
		up = s.turn
	}
	s.net = net{left: max(s.net.left, patience), up: up}
	if !doubted {
		return
	}
	ranked := s.ranked()
	better := slices.Index(ranked, g)
	if better < 0 {
		better = len(s.primary)
	}
	for _, b := range ranked[:better] {
		if b.reach == no {
			b.reach, b.retry = maybe, time.Time{}
		}
	}
}

// endRound begins the next round when nothing is left to try in this one: all primaries have failed since it
// began.
func (s *State) endRound() {
	n := &s.net
	if n.down && s.now.Before(n.round) {
		return
	}
	for _, g := range s.primary {
		if g.reach != no || !s.now.Before(g.retry) {
			return
		}
	}
	if !n.down {
		n.roundDelay, n.walkDelay, n.walk = 0, walkMin, s.now.Add(walkMin)
	}
	n.left, n.up, n.down = 0, 0, true
	n.roundDelay = min(max(2*n.roundDelay, roundMin), roundMax)
	n.round = s.now.Add(n.roundDelay/2 + time.Duration(s.rnd.Int64N(int64(n.roundDelay/2))))
	for _, g := range s.primary {
		g.retry = n.round
	}
}

// mayWalk reports whether a guard that is no primary and has not answered may be tried.
func (s *State) mayWalk() bool {
	return s.net.left > 0 || s.net.down && !s.now.Before(s.net.walk)
}

// walked takes note of such an attempt.
func (s *State) walked() {
	if n := &s.net; n.left == 0 {
		n.walkDelay = min(2*n.walkDelay, walkMax)
		n.walk = s.now.Add(n.walkDelay)
	}
}

// Down reports whether the network seems to be down: no guard of many has answered.
func (s *State) Down() bool { return s.net.down }
