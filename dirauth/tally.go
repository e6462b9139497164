package dirauth

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// The tally (DIRECTORY.md), in the order in which it happens:
//
//  1. tally      the votes that count make one document
//  2. listings   per relay: who lists it, and who as running
//  3. relay      in or out; descriptor, flags, weight
//  4. families   those that both sides declare
//  5. params     the parameters

// errTooFewVotes says that fewer votes count than a consensus needs signatures: there would be no quorum
// for what they say.
var errTooFewVotes = errors.New("too few votes count")

// unmeasuredCap is the weight, in bytes per second, that a relay which nobody measured has at most.
const unmeasuredCap = 1 << 20

// listing is what the counted votes say of one relay.
type listing struct {
	id      wire.ID
	all     []netdoc.VoteEntry
	running []netdoc.VoteEntry // those of all that say so
}

// tally returns the consensus document that the counted votes make: the same bytes for everybody who
// counts the same votes and holds the descriptors that they name.
func (b *ballot) tally() (document []byte, err error) {
	counted, _ := b.count()
	if len(counted) < b.quorum() {
		return nil, fmt.Errorf("%w: %d of %d", errTooFewVotes, len(counted), b.quorum())
	}
	freshUntil, validUntil := b.network.Params.Times(b.validAfter)
	c := &netdoc.Consensus{
		Network:    b.network.Name,
		ValidAfter: b.validAfter.UnixMilli(),
		FreshUntil: freshUntil.UnixMilli(),
		ValidUntil: validUntil.UnixMilli(),
		Params:     params(counted),
		Voters:     make([]netdoc.VoteRef, len(counted)),
	}
	for i, v := range counted {
		c.Voters[i] = refOf(v)
	}
	for _, l := range b.elected(counted) {
		if r, ok := b.relay(l); ok {
			c.Relays = append(c.Relays, r)
		}
	}
	families(c.Relays)
	return c.Encode()
}

// missingDescriptors returns the descriptors that the counted votes choose, or that share the lead, and
// that are not held. Ascending.
func (b *ballot) missingDescriptors() []netdoc.Digest {
	counted, _ := b.count()
	var missing []netdoc.Digest
	for _, l := range b.elected(counted) {
		names := b.namings(l)
		for _, n := range names {
			if n.votes == names[0].votes && b.descriptor(n.digest) == nil {
				missing = append(missing, n.digest)
			}
		}
	}
	slices.SortFunc(missing, netdoc.Digest.Compare)
	return slices.Compact(missing)
}

// elected returns the relays that are in, ascending by ID: more than half of the counted votes, and at
// least f+1, list them as running. If they are more than a document may hold, those with fewer votes,
// then with greater IDs, are not.
func (b *ballot) elected(counted []*netdoc.Vote) []*listing {
	in := filter(listings(counted), func(l *listing) bool {
		return majority(len(l.running), len(counted)) && len(l.running) > b.faulty()
	})
	if len(in) > netdoc.MaxRelays {
		slices.SortStableFunc(in, func(l, m *listing) int { return cmp.Compare(len(m.running), len(l.running)) })
		in = in[:netdoc.MaxRelays]
		slices.SortFunc(in, func(l, m *listing) int { return netdoc.CompareIDs(l.id, m.id) })
	}
	return in
}

// listings groups the votes' entries by relay, ascending by ID.
func listings(counted []*netdoc.Vote) []*listing {
	byID := map[wire.ID]*listing{}
	var all []*listing
	for _, v := range counted {
		for _, e := range v.Relays {
			l := byID[e.ID]
			if l == nil {
				l = &listing{id: e.ID}
				byID[e.ID] = l
				all = append(all, l)
			}
			l.all = append(l.all, e)
			if e.Flags.Has(netdoc.Running) {
				l.running = append(l.running, e)
			}
		}
	}
	slices.SortFunc(all, func(l, m *listing) int { return netdoc.CompareIDs(l.id, m.id) })
	return all
}

// relay makes the entry of a relay that is in; false if none of its descriptors can be had.
func (b *ballot) relay(l *listing) (netdoc.Relay, bool) {
	d := b.choose(l)
	if d == nil {
		return netdoc.Relay{}, false
	}
	return netdoc.Relay{
		ID:         d.ID,
		Descriptor: d.Digest(),
		Nickname:   d.Nickname,
		Addresses:  d.Addresses,
		Key:        d.OnionKeys[0].Ref(),
		Policy:     d.Policy,
		Family:     d.Family,
		Weight:     b.weight(l, d),
		Flags:      b.flags(l, d),
	}, true
}

// naming is a descriptor and how many votes name it.
type naming struct {
	digest netdoc.Digest
	votes  int
}

// namings returns the descriptors that at least f+1 of the votes which list a relay as running name, most
// votes first, then ascending. One that fewer name may be a liar's, who shows it to some and not to others.
func (b *ballot) namings(l *listing) []naming {
	votes := map[netdoc.Digest]int{}
	for _, e := range l.running {
		votes[e.Descriptor]++
	}
	names := make([]naming, 0, len(votes))
	for d, n := range votes {
		if n > b.faulty() {
			names = append(names, naming{d, n})
		}
	}
	slices.SortFunc(names, func(a, b naming) int {
		return cmp.Or(cmp.Compare(b.votes, a.votes), a.digest.Compare(b.digest))
	})
	return names
}

// choose returns the relay's descriptor: named by most votes, then published later, then of the smaller
// digest; nil if there is none, or it is not held. When it was published is read in the descriptor itself: a
// vote may say anything.
func (b *ballot) choose(l *listing) *netdoc.Descriptor {
	var best *netdoc.Descriptor
	votes := 0
	for _, n := range b.namings(l) {
		d := b.descriptor(n.digest)
		switch {
		case d == nil || d.ID != l.id:
		case best == nil, n.votes == votes && d.Published > best.Published:
			best, votes = d, n.votes
		}
	}
	return best
}

// flags returns the relay's flags: each by more than half of the votes that list it as running, BadExit
// by f+1 of all that list it.
func (b *ballot) flags(l *listing, d *netdoc.Descriptor) netdoc.Flags {
	flags := netdoc.Running
	for _, f := range []netdoc.Flags{netdoc.Exit, netdoc.Fast, netdoc.Stable, netdoc.Guard} {
		if majority(having(l.running, f), len(l.running)) {
			flags |= f
		}
	}
	if having(l.all, netdoc.BadExit) > b.faulty() {
		flags |= netdoc.BadExit
	}
	if !d.Policy.IsExit() {
		flags &^= netdoc.Exit
	}
	return flags
}

func having(entries []netdoc.VoteEntry, f netdoc.Flags) int {
	return len(filter(entries, func(e netdoc.VoteEntry) bool { return e.Flags.Has(f) }))
}

// weight returns the lower median of the measurements if at least f+1 votes have one, else what the relay
// offers, capped.
func (b *ballot) weight(l *listing, d *netdoc.Descriptor) uint64 {
	var measured []uint64
	for _, e := range l.running {
		if e.Measured > 0 {
			measured = append(measured, e.Measured)
		}
	}
	if len(measured) <= b.faulty() {
		return min(d.Bandwidth, unmeasuredCap)
	}
	return lowerMedian(measured)
}

// families leaves in each relay's family those that are in and name it, too. A relay that names others who
// do not name it could keep them out of its routes, and share these with its accomplices only.
func families(relays []netdoc.Relay) {
	declared := make(map[wire.ID][]wire.ID, len(relays))
	for i := range relays {
		declared[relays[i].ID] = relays[i].Family
	}
	for i := range relays {
		r := &relays[i]
		r.Family = filter(r.Family, func(id wire.ID) bool { return slices.Contains(declared[id], r.ID) })
	}
}

// params returns the lower median of each parameter voted for, switches by majority.
func params(counted []*netdoc.Vote) netdoc.ConsensusParams {
	var relays, perAddress []int
	var lifetimes []time.Duration
	subnet := 0
	for _, v := range counted {
		relays = append(relays, v.Params.MinRelays)
		perAddress = append(perAddress, v.Params.PerAddress)
		lifetimes = append(lifetimes, time.Duration(v.Params.OnionKeyLifetime))
		if v.Params.SubnetRule {
			subnet++
		}
	}
	return netdoc.ConsensusParams{
		MinRelays:        lowerMedian(relays),
		PerAddress:       lowerMedian(perAddress),
		SubnetRule:       majority(subnet, len(counted)),
		OnionKeyLifetime: netdoc.Duration(lowerMedian(lifetimes)),
	}
}

// lowerMedian sorts list, which is not empty, and returns its middle, of two middles the lower.
func lowerMedian[E cmp.Ordered](list []E) E {
	slices.Sort(list)
	return list[(len(list)-1)/2]
}

// majority reports whether part is more than half of whole.
func majority(part, whole int) bool { return 2*part > whole }
