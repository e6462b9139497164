package guard

import "slices"

// rank computes the primaries anew: the first of the confirmed, then those that were primary before, then the
// others in the order sampled, all as far as they are listed and pass the filter.
func (s *State) rank() {
	var first []*guard
	add := func(from []*guard) {
		for _, g := range from {
			if len(first) < primaries && g.listed() && !slices.Contains(first, g) {
				first = append(first, g)
			}
		}
	}
	add(s.chosen)
	add(s.primary)
	add(s.sample)
	s.primary = first
	for _, g := range first {
		g.retry = earlier(g.retry, s.now.Add(primaryRetryMax)) // others wait for longer
	}
}

// ranked returns the guards that may be used, the best first: primaries, then confirmed ones, then the others
// in the order sampled.
func (s *State) ranked() []*guard {
	all := make([]*guard, 0, len(s.sample))
	for _, from := range [][]*guard{s.primary, s.chosen, s.sample} {
		for _, g := range from {
			if g.listed() && !slices.Contains(all, g) {
				all = append(all, g)
			}
		}
	}
	return all
}

// confirm notes that a circuit through a guard may carry streams: from now on it is preferred to all that are
// confirmed later or never.
func (s *State) confirm(g *guard) {
	if !g.confirmed.IsZero() {
		return
	}
	g.confirmed = s.date(blurAdded)
	s.chosen = append(s.chosen, g)
	s.changes++
	s.rank()
}
