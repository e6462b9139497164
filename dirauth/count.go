package dirauth

import (
	"slices"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// ballot is what a round's document is made from. Its methods are pure, and blind to the order in which
// votes and echoes stand.
type ballot struct {
	network    *netdoc.Network
	validAfter time.Time
	votes      []*netdoc.Vote // those held, two of one authority among them
	echoes     []*netdoc.Echo // those held, one of an authority

	// descriptor returns the descriptor of that digest, nil if it is not held.
	descriptor func(netdoc.Digest) *netdoc.Descriptor
}

// equivocation is an authority's two votes for one round: the proof that it is faulty.
type equivocation struct {
	first, second *netdoc.Vote // the smaller digest first
}

// faulty and quorum are f and q.
func (b *ballot) faulty() int { return netdoc.Faulty(len(b.network.Authorities)) }
func (b *ballot) quorum() int { return netdoc.Quorum(len(b.network.Authorities)) }

// count returns the votes that count, ascending by authority, and the authorities that are left out
// because they voted twice (DIRECTORY.md, "What counts").
func (b *ballot) count() (counted []*netdoc.Vote, leftOut []equivocation) {
	backers := b.backers()
	named := b.named()
	for _, held := range b.heldByAuthority() {
		backed := filter(held, func(v *netdoc.Vote) bool { return len(backers[refOf(v)]) >= b.quorum() })
		proven := filter(held, func(v *netdoc.Vote) bool { return named[refOf(v)] })
		if len(proven) < 2 {
			proven = backed // where one authority alone is a quorum, nobody names its votes
		}
		switch {
		case len(proven) >= 2:
			leftOut = append(leftOut, equivocation{proven[0], proven[1]})
		case len(backed) == 1:
			counted = append(counted, backed[0])
		}
	}
	return counted, leftOut
}

// missingVotes returns the votes that echoes name, that are not held, and that could change the count:
// those that a quorum is behind, and those of authorities of which two are named. Ascending.
func (b *ballot) missingVotes() []netdoc.VoteRef {
	held := map[netdoc.VoteRef]bool{}
	for _, v := range b.votes {
		held[refOf(v)] = true
	}
	backers, named := b.backers(), b.named()
	each := map[wire.ID]int{}
	for ref := range named {
		each[ref.Authority]++
	}
	var missing []netdoc.VoteRef
	for ref := range named {
		if !held[ref] && (len(backers[ref]) >= b.quorum() || each[ref.Authority] >= 2) {
			missing = append(missing, ref)
		}
	}
	slices.SortFunc(missing, netdoc.CompareVoteRefs)
	return missing
}

// backers returns who stands behind each vote: its author, and the authorities whose echoes name it.
func (b *ballot) backers() map[netdoc.VoteRef]map[wire.ID]bool {
	backers := map[netdoc.VoteRef]map[wire.ID]bool{}
	back := func(ref netdoc.VoteRef, id wire.ID) {
		if backers[ref] == nil {
			backers[ref] = map[wire.ID]bool{ref.Authority: true}
		}
		backers[ref][id] = true
	}
	for _, v := range b.votes {
		back(refOf(v), v.Authority)
	}
	for _, e := range b.echoes {
		for _, ref := range b.namedBy(e) {
			back(ref, e.Authority)
		}
	}
	return backers
}

// named returns the votes that echoes of other authorities than their author name.
func (b *ballot) named() map[netdoc.VoteRef]bool {
	named := map[netdoc.VoteRef]bool{}
	for _, e := range b.echoes {
		for _, ref := range b.namedBy(e) {
			if ref.Authority != e.Authority {
				named[ref] = true
			}
		}
	}
	return named
}

// namedBy returns what an echo names, nothing if it is not of this round or not by an authority.
func (b *ballot) namedBy(e *netdoc.Echo) []netdoc.VoteRef {
	if !b.concerns(e.Network, e.Authority, e.ValidAfter) {
		return nil
	}
	return e.Votes
}

// heldByAuthority returns the votes of this round, grouped: authorities ascending, each with its
// different votes ascending by digest.
func (b *ballot) heldByAuthority() [][]*netdoc.Vote {
	votes := filter(b.votes, func(v *netdoc.Vote) bool { return b.concerns(v.Network, v.Authority, v.ValidAfter) })
	slices.SortFunc(votes, func(v, w *netdoc.Vote) int { return netdoc.CompareVoteRefs(refOf(v), refOf(w)) })
	votes = slices.CompactFunc(votes, func(v, w *netdoc.Vote) bool { return refOf(v) == refOf(w) })
	var groups [][]*netdoc.Vote
	for len(votes) > 0 {
		n := 1
		for n < len(votes) && votes[n].Authority == votes[0].Authority {
			n++
		}
		groups, votes = append(groups, votes[:n]), votes[n:]
	}
	return groups
}

// concerns reports whether a document is of this network and round, by one of its authorities.
func (b *ballot) concerns(network string, authority wire.ID, validAfter int64) bool {
	return listed(b.network, authority) && network == b.network.Name && validAfter == b.validAfter.UnixMilli()
}

func refOf(v *netdoc.Vote) netdoc.VoteRef {
	return netdoc.VoteRef{Authority: v.Authority, Digest: v.Digest()}
}

// filter returns a new slice of the elements that keep is true of.
func filter[E any](list []E, keep func(E) bool) []E {
	var kept []E
	for _, e := range list {
		if keep(e) {
			kept = append(kept, e)
		}
	}
	return kept
}
