package guard

import (
	"slices"
	"time"
)

// net is what is known of this machine's own connection. Only guards tell, and directory servers that answer.
//
//	the network is known to be there (up), and it is not long ago that something answered: failures are the
//	guards' own
//
//	else, once every primary has failed, it is the network that is taken to be down. Primaries are tried
//	again, all of them once a round. Other guards are tried far more rarely: most probably they would not
//	answer either, and when the network comes back, it shall find us at a primary.
//
// What failed before the network came back says nothing of the guard: only attempts that began in the turn up
// or later count against a better guard when a lesser one is to be used.
type net struct {
	up     uint64    // since when it has been known to be there without a doubt; 0: it is not
	seen   uint64    // the turn of the last sign of life
	left   int       // guards that may still fail before it is in doubt
	online time.Time // when a directory server answered last

	rounds     int // of attempts at all primaries since it has been taken to be down; 0: it is not
	round      time.Time
	roundDelay time.Duration
	walk       time.Time // when another guard is next tried
	walkDelay  time.Duration
}

// Online says that a directory server, and so the network, has answered at this moment. Update does so by
// itself when it is given a newer consensus; only that of the start may come from a file.
func (s *State) Online(now time.Time) {
	s.advance(now)
	s.answered(nil)
	s.net.online = now
}

// Down reports whether the network seems to be down: no guard answers.
func (s *State) Down() bool { return s.net.rounds > 0 }

// answered takes note of a sign of life from g, or from a directory server (nil). After a doubt, all failures
// since the last one are forgotten, and those of better guards, whenever they were: they are tried once more,
// now that the network is there.
func (s *State) answered(g *guard) {
	doubted, seen := s.net.up == 0, s.net.seen
	s.turn++
	s.net = net{up: s.net.up, seen: s.turn, left: patience, online: s.net.online}
	if !doubted {
		return
	}
	s.net.up = s.turn
	ranked := s.ranked()
	better := slices.Index(ranked, g)
	if better < 0 {
		better = len(s.primary)
	}
	for i, b := range ranked {
		if b.reach == no && (i < better || b.failed > seen) {
			b.reach, b.retry, b.delay = maybe, time.Time{}, 0
		}
	}
}

// certain reports whether failures are the guards' own.
func (s *State) certain() bool {
	return s.net.up != 0 && (s.net.left > 0 || s.now.Before(s.net.online.Add(onlineLasts)))
}

// endRound begins the next round when nothing is left to try in this one: all primaries have failed since it
// began, and if another guard is due, that has been tried too, or none would do (walked).
func (s *State) endRound(walked bool) {
	n := &s.net
	if n.rounds > 0 && s.now.Before(n.round) || s.mayWalk() && !walked {
		return
	}
	for _, g := range s.primary {
		if g.reach != no || !s.now.Before(g.retry) {
			return
		}
	}
	n.up, n.left = 0, 0
	n.rounds++
	n.roundDelay = min(max(2*n.roundDelay, roundMin), roundMax)
	n.round = s.now.Add(n.roundDelay/2 + time.Duration(s.rnd.Int64N(int64(n.roundDelay/2))))
	for _, g := range s.primary {
		g.retry = n.round
	}
}

// mayWalk reports whether a guard that is no primary and has not answered may be tried. In doubt that is when
// the primaries have just failed again, so that a network that came back a moment before is not missed.
func (s *State) mayWalk() bool {
	n := &s.net
	return s.certain() || n.rounds >= walkRounds && !s.now.Before(n.walk) && !s.now.Before(n.round)
}

// walked takes note of such an attempt.
func (s *State) walked() {
	if n := &s.net; n.rounds > 0 {
		n.walkDelay = min(max(2*n.walkDelay, walkMin), walkMax)
		n.walk = s.now.Add(n.walkDelay)
		s.endRound(true)
	}
}
