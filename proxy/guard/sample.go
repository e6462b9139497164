package guard

import (
	"math"
	"slices"
	"time"

	"torproxy/wire/netdoc"
)

// Network is what guards are chosen from.
type Network struct {
	Consensus *netdoc.Consensus

	// Weight is a relay's weight as a first hop; the sum over all relays fits 64 bits. Nil: the consensus'.
	Weight func(*netdoc.Relay) uint64

	// Filter reports whether the user lets a relay be a guard. It does not change what is sampled, so that a
	// sample tells nothing of filters of the past; where it leaves too few, more are sampled. Nil: all.
	Filter func(*netdoc.Relay) bool
}

// Update makes the state follow a consensus, or another filter. A consensus that does not suit the clock is
// passed over, for nobody grows old by a clock that is wrong; so is one that is older than the last, unless that
// lies in the future now. Update reports whether the state follows it.
func (s *State) Update(n Network, now time.Time) bool {
	c := n.Consensus
	if c == nil || c.Check(now) != nil {
		return false
	}
	from := time.UnixMilli(c.ValidAfter)
	if from.Before(s.from) && !s.from.After(now) {
		return false
	}
	news := !s.from.IsZero() && from.After(s.from)
	s.from, s.to, s.filter = from, time.UnixMilli(c.ValidUntil), n.Filter
	s.silences = silences(c)
	s.advance(now)
	if news {
		s.Online(now)
	}
	listed := candidates(c)
	s.follow(listed)
	s.expire()
	want := min(minListed, len(listed))
	if news && s.blockade {
		want = max(want, s.listed()+1)
	}
	s.fill(want, listed, n.weight())
	s.rank()
	return true
}

// silences is how many silences make a guard's failure: fewer where there are too few exits for so many routes
// without a relay in common.
func silences(c *netdoc.Consensus) int {
	exits := 0
	for i := range c.Relays {
		if c.Relays[i].Flags.Has(netdoc.Running | netdoc.Exit) {
			exits++
		}
	}
	return min(max(exits/2, silentLeast), silentLimit)
}

func (n Network) weight() func(*netdoc.Relay) uint64 {
	if n.Weight != nil {
		return n.Weight
	}
	limit := math.MaxUint64 / uint64(max(len(n.Consensus.Relays), 1))
	return func(r *netdoc.Relay) uint64 { return min(r.Weight, limit) }
}

// candidates returns the relays that may be guards: those with the flag, or all where none has it.
func candidates(c *netdoc.Consensus) []*netdoc.Relay {
	var running, guards []*netdoc.Relay
	for i := range c.Relays {
		r := &c.Relays[i]
		if !r.Flags.Has(netdoc.Running) {
			continue
		}
		running = append(running, r)
		if r.Flags.Has(netdoc.Guard) {
			guards = append(guards, r)
		}
	}
	if len(guards) == 0 {
		return running
	}
	return guards
}

// date returns the moment in whole hours of the consensus' time, put back by a random part of blur. The clock
// counts only inside the consensus' validity.
func (s *State) date(blur time.Duration) time.Time {
	now := s.now
	if now.Before(s.from) {
		now = s.from
	}
	if now.After(s.to) {
		now = s.to
	}
	if blur > 0 {
		now = now.Add(-time.Duration(s.rnd.Int64N(int64(blur))))
	}
	return now.Round(0).UTC().Truncate(time.Hour)
}

// follow notes which guards are listed. Dates in the future, of a clock that was wrong or a state from
// elsewhere, become the present: nobody stays for longer than from now on.
func (s *State) follow(listed []*netdoc.Relay) {
	present := s.date(0)
	for _, g := range s.sample {
		for _, date := range []*time.Time{&g.added, &g.confirmed, &g.unlisted} {
			if date.After(present) {
				*date = present
				s.changes++
			}
		}
		was := g.unlisted.IsZero()
		g.relay = relayOf(listed, g)
		g.allowed = g.relay != nil && (s.filter == nil || s.filter(g.relay))
		switch {
		case g.relay != nil && !was:
			g.unlisted = time.Time{}
			s.changes++
		case g.relay == nil && was:
			g.unlisted = s.date(blurUnlisted)
			s.changes++
		}
		switch {
		case g.relay == nil || g.relay.OnionKey() != nil:
			g.keyless = time.Time{}
		case g.keyless.IsZero():
			g.keyless = s.now
		}
	}
}

func relayOf(listed []*netdoc.Relay, g *guard) *netdoc.Relay {
	i, found := slices.BinarySearchFunc(listed, g, func(r *netdoc.Relay, g *guard) int {
		return netdoc.CompareIDs(r.ID, g.id)
	})
	if !found {
		return nil
	}
	return listed[i]
}

// expire takes out of the sample who has been unlisted for too long or in it for too long.
func (s *State) expire() {
	present := s.date(0)
	s.remove(func(g *guard) bool {
		if !g.unlisted.IsZero() && present.Sub(g.unlisted) > unlistedLifetime {
			return true
		}
		return present.Sub(g.added) > lifetime &&
			(g.confirmed.IsZero() || present.Sub(g.confirmed) > confirmedLifetime)
	})
}

func (s *State) remove(gone func(*guard) bool) {
	n := len(s.sample)
	s.sample = slices.DeleteFunc(s.sample, gone)
	in := func(g *guard) bool { return s.find(g.id) == g }
	s.chosen = slices.DeleteFunc(s.chosen, func(g *guard) bool { return !in(g) })
	s.primary = slices.DeleteFunc(slices.Clone(s.primary), func(g *guard) bool { return !in(g) })
	if len(s.sample) != n {
		s.changes++
	}
}

// listed counts the guards that may be used.
func (s *State) listed() int {
	n := 0
	for _, g := range s.sample {
		if g.listed() {
			n++
		}
	}
	return n
}

// allFail reports whether every guard that may be used has failed.
func (s *State) allFail() bool {
	return s.listed() > 0 && !slices.ContainsFunc(s.sample, func(g *guard) bool { return g.listed() && g.reach != no })
}

// fill adds relays to the sample until want of it are listed and pass the filter, or it has reached its bound.
func (s *State) fill(want int, listed []*netdoc.Relay, weight func(*netdoc.Relay) uint64) {
	bound := min(max(len(listed)*maxPercent/100, minListed), maxSample)
	var fresh []*netdoc.Relay
	for _, r := range listed {
		if s.find(r.ID) == nil {
			fresh = append(fresh, r)
		}
	}
	for s.listed() < want && len(fresh) > 0 {
		if len(s.sample) >= bound && !s.evict() {
			return
		}
		i := s.draw(fresh, weight)
		g := &guard{id: fresh[i].ID, added: s.date(blurAdded), relay: fresh[i]}
		g.allowed = s.filter == nil || s.filter(g.relay)
		if g.relay.OnionKey() == nil {
			g.keyless = s.now
		}
		s.sample = append(s.sample, g)
		s.changes++
		fresh = slices.Delete(fresh, i, i+1)
	}
}

// evict takes out the guard that has been unlisted for longest if none is listed any more: such a sample is of
// another network, or of another time of this one, and without room in it there would be no service.
func (s *State) evict() bool {
	if slices.ContainsFunc(s.sample, func(g *guard) bool { return g.relay != nil }) {
		return false
	}
	oldest := slices.MinFunc(s.sample, func(a, b *guard) int { return a.unlisted.Compare(b.unlisted) })
	s.remove(func(g *guard) bool { return g == oldest })
	return true
}

// draw returns a position in relays, in proportion to the weights; evenly where all are zero.
func (s *State) draw(relays []*netdoc.Relay, weight func(*netdoc.Relay) uint64) int {
	var total uint64
	for _, r := range relays {
		total += weight(r)
	}
	if total == 0 {
		return s.rnd.IntN(len(relays))
	}
	x := s.rnd.Uint64N(total)
	for i, r := range relays {
		if w := weight(r); x < w {
			return i
		} else {
			x -= w
		}
	}
	panic("guard: draw beyond the total weight")
}
