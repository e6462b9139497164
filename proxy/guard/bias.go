package guard

import "torproxy/wire"

// A guard that ends all circuits whose second hop is not its accomplice's keeps a client on routes that the
// two see both ends of. It cannot be told from a network that fails, but it shows in numbers (path-spec section
// 7, "path bias"): of the circuits whose first link stood, how many were built. As in Tor nobody is left for
// that, for a network that is attacked fails as well: it is said to the user.
const (
	biasEnough = 150 // attempts, before anything is said
	biasScale  = 300 // attempts, at which both counts are halved: what is long ago counts less
	biasLeast  = 0.3 // of circuits built, below which it is said
)

// tally counts the circuits through a guard. It is not kept over a restart.
type tally struct{ begun, built float64 }

func (t *tally) count(built bool) {
	if t.begun >= biasScale {
		t.begun, t.built = t.begun/2, t.built/2
	}
	t.begun++
	if built {
		t.built++
	}
}

func (t tally) biased() bool { return t.begun >= biasEnough && t.built < biasLeast*t.begun }

// Info is a guard as the user may see it.
type Info struct {
	ID        wire.ID
	Nickname  string // empty while it is not listed
	Primary   bool
	Confirmed bool
	Listed    bool // and let through by the filter
	Reachable bool // the last attempt was answered
	Failed    bool // the last attempt failed; neither: there was none, or it is to be tried again
	Biased    bool // it ends so many circuits that it may do so on purpose
}

// Guards lists the sample: the primaries first, then the confirmed ones, then the others in the order sampled,
// and at last those that are not listed.
func (s *State) Guards() []Info {
	all := s.ranked()
	for _, g := range s.sample {
		if !g.listed() {
			all = append(all, g)
		}
	}
	infos := make([]Info, len(all))
	for i, g := range all {
		infos[i] = Info{
			ID: g.id, Primary: s.isPrimary(g), Confirmed: !g.confirmed.IsZero(), Listed: g.listed(),
			Reachable: g.reach == yes, Failed: g.reach == no, Biased: g.tally.biased(),
		}
		if g.relay != nil {
			infos[i].Nickname = g.relay.Nickname
		}
	}
	return infos
}
