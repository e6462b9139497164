package dirauth

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// A round (DIRECTORY.md, "One round"), in the order in which it happens:
//
//  1. waiting    addVote, addEcho, addEndorsement hold what faster authorities send
//  2. voting     step asks for the own vote; addVote takes in the others'
//  3. echoing    step gives the own echo; addEcho takes in the others'
//  4. gathering  step names the votes and descriptors that are missing
//  5. signing    step gives the document to sign; addEndorsement takes in the others' signatures
//  6. done       step gives the consensus

type phase uint8

const (
	waiting phase = iota
	voting
	echoing
	gathering
	signing
	done
	failed
)

func (p phase) String() string {
	return [...]string{"waiting", "voting", "echoing", "gathering", "signing", "done", "failed"}[p]
}

// Why a round does not take a word.
var (
	errLate    = errors.New("too late for this round")
	errTwice   = errors.New("another one of this authority is here for this round")
	errForeign = errors.New("not of this round")
)

// errNoQuorum says that the document made here did not find enough signatures.
var errNoQuorum = errors.New("no quorum of signatures came together")

// round is one authority's part in one round: a state machine without clock, network or locks. What
// arrived and the time go in, what is to be done comes out of step. Not for concurrent use.
type round struct {
	ballot
	self  wire.ID
	times schedule
	phase phase

	held         map[wire.ID][]*netdoc.Vote // at most two of an authority
	echoed       map[wire.ID]*netdoc.Echo
	endorsements map[wire.ID]*netdoc.Endorsement
	proofs       []Proof              // found since the last step
	proven       map[culprit]struct{} // of whom a proof was found

	fetching       bool // what is missing was asked for, and gathered was not called yet
	notVotes       map[netdoc.VoteRef]bool
	notDescriptors map[netdoc.Digest]bool // both: not to be had

	document   []byte        // from signing on
	digest     netdoc.Digest // of document
	signatures []netdoc.Signature
}

// culprit is who said two words of a kind.
type culprit struct {
	authority wire.ID
	word      Word
}

// demand is what a step wants done. What is to be said is saved before it is sent, and then given to the
// round like the words of others.
type demand struct {
	vote      bool         // make and say a vote
	echo      *netdoc.Echo // sign and say this
	missing   missing      // fetch these, then call gathered
	document  []byte       // sign this consensus document and say so
	consensus []byte       // serve this, from now on
	proofs    []Proof      // keep and report these
	failed    error        // there will be no document of this round here
}

// missing is what others name and this authority does not hold, with who should have it.
type missing struct {
	votes       map[netdoc.VoteRef][]wire.ID
	descriptors map[netdoc.Digest][]wire.ID
}

func (m missing) size() int { return len(m.votes) + len(m.descriptors) }

// empty reports whether a demand asks for nothing.
func (d *demand) empty() bool {
	return !d.vote && d.echo == nil && d.missing.size() == 0 && d.document == nil && d.consensus == nil &&
		len(d.proofs) == 0 && d.failed == nil
}

// newRound returns the round of a valid-after. descriptor returns a descriptor that is held, or nil.
func newRound(n *netdoc.Network, self wire.ID, validAfter time.Time, descriptor func(netdoc.Digest) *netdoc.Descriptor) *round {
	return &round{
		ballot:       ballot{network: n, validAfter: validAfter, descriptor: descriptor},
		self:         self,
		times:        newSchedule(n.Params, validAfter),
		held:         map[wire.ID][]*netdoc.Vote{},
		echoed:       map[wire.ID]*netdoc.Echo{},
		endorsements: map[wire.ID]*netdoc.Endorsement{},
		proven:       map[culprit]struct{}{},

		notVotes:       map[netdoc.VoteRef]bool{},
		notDescriptors: map[netdoc.Digest]bool{},
	}
}

// addVote takes in a vote, the own one or another's. A second, different one of an authority is taken in
// as proof. A vote that comes after the echo is held, but not echoed.
func (r *round) addVote(now time.Time, v *netdoc.Vote) error {
	if !r.concerns(v.Network, v.Authority, v.ValidAfter) {
		return errForeign
	}
	if r.phase > gathering || !now.Before(r.times.gatherBy) {
		return errLate
	}
	held := r.held[v.Authority]
	for _, w := range held {
		if w.Digest() == v.Digest() {
			return nil
		}
	}
	if len(held) > 0 {
		r.prove(WordVote, v.Authority, held[0].Raw(), v.Raw())
	}
	if len(held) >= 2 {
		return errTwice
	}
	r.held[v.Authority] = append(held, v)
	r.votes = append(r.votes, v)
	return nil
}

// addEcho takes in an echo. The first of an authority counts.
func (r *round) addEcho(now time.Time, e *netdoc.Echo) error {
	if !r.concerns(e.Network, e.Authority, e.ValidAfter) {
		return errForeign
	}
	if first := r.echoed[e.Authority]; first != nil {
		if first.Digest() == e.Digest() {
			return nil
		}
		r.prove(WordEcho, e.Authority, first.Raw(), e.Raw())
		return errTwice
	}
	if r.phase > echoing || !now.Before(r.times.echoesBy) {
		return errLate
	}
	r.echoed[e.Authority] = e
	r.echoes = append(r.echoes, e)
	return nil
}

// addEndorsement takes in an authority's signature. Whether it is of the document that is made here shows
// when there is one.
func (r *round) addEndorsement(now time.Time, e *netdoc.Endorsement) error {
	if !r.concerns(e.Network, e.Authority, e.ValidAfter) {
		return errForeign
	}
	if first := r.endorsements[e.Authority]; first != nil {
		if first.Digest() == e.Digest() {
			return nil
		}
		r.prove(WordSignature, e.Authority, first.Raw(), e.Raw())
		return errTwice
	}
	if r.phase > signing || !now.Before(r.times.close) {
		return errLate
	}
	r.endorsements[e.Authority] = e
	if r.phase == signing {
		r.countSignature(e)
	}
	return nil
}

// prove notes that an authority said two words of a kind, once.
func (r *round) prove(w Word, id wire.ID, first, second []byte) {
	if _, known := r.proven[culprit{id, w}]; known {
		return
	}
	r.proven[culprit{id, w}] = struct{}{}
	r.proofs = append(r.proofs, Proof{Authority: id, Word: w, ValidAfter: r.validAfter.UnixMilli(), First: first, Second: second})
}

// step advances the round as far as it goes. It is called when something was added, when something that
// was missing was fetched or turned out not to be had, and at wake.
func (r *round) step(now time.Time) demand {
	var d demand
	for r.advance(now, &d) {
	}
	d.proofs, r.proofs = r.proofs, nil
	return d
}

// wake returns when step must be called again at the latest; the zero time: never.
func (r *round) wake() time.Time {
	switch r.phase {
	case waiting:
		return r.times.open
	case voting:
		return r.times.votesBy
	case echoing:
		return r.times.echoesBy
	case gathering:
		return r.times.gatherBy
	case signing:
		if r.signed() {
			return r.times.validAfter
		}
		return r.times.close
	default:
		return time.Time{}
	}
}

// advance leaves the present phase if it is over, and notes in d what the next one wants done. False: the
// round has to wait.
func (r *round) advance(now time.Time, d *demand) bool {
	all := len(r.network.Authorities)
	over := func(have int, by time.Time) bool { return have == all || !now.Before(by) }
	switch {
	case r.phase == waiting && !now.Before(r.times.open):
		r.phase, d.vote = voting, true
		return false // even when the votes' time is over: the own one comes first
	case r.phase == voting && over(len(r.held), r.times.votesBy):
		r.phase, d.echo = echoing, r.ownEcho()
		return false
	case r.phase == echoing && over(len(r.echoed), r.times.echoesBy):
		r.phase = gathering
		return true
	case r.phase == gathering:
		return r.gather(now, d)
	case r.phase == signing && r.signed() && !now.Before(r.times.validAfter):
		r.phase, d.consensus = done, netdoc.SealConsensus(r.document, r.signatures)
		return false
	case r.phase == signing && !now.Before(r.times.close):
		r.phase, d.failed = failed, errNoQuorum
		return false
	}
	return false
}

// ownEcho names all votes that are held, of authorities that voted twice both.
func (r *round) ownEcho() *netdoc.Echo {
	e := &netdoc.Echo{Network: r.network.Name, Authority: r.self, ValidAfter: r.validAfter.UnixMilli()}
	for _, v := range r.votes {
		e.Votes = append(e.Votes, refOf(v))
	}
	slices.SortFunc(e.Votes, netdoc.CompareVoteRefs)
	return e
}

// gather asks for what is missing, and tallies when nothing is or when the time is over. A vote that was
// fetched may name descriptors that are missing then.
func (r *round) gather(now time.Time, d *demand) bool {
	if now.Before(r.times.gatherBy) {
		if !r.fetching {
			d.missing = r.missing()
			r.fetching = d.missing.size() > 0
		}
		if r.fetching {
			return false
		}
	}
	_, leftOut := r.count()
	for _, e := range leftOut {
		r.prove(WordVote, e.first.Authority, e.first.Raw(), e.second.Raw())
	}
	document, err := r.tally()
	if err != nil {
		r.phase, d.failed = failed, err
		return false
	}
	r.phase = signing
	r.document, r.digest = document, netdoc.DigestOf(document)
	for _, e := range r.endorsements {
		r.countSignature(e)
	}
	d.document = document
	return false
}

// gathered says that a demand for what is missing was met as far as possible: votes were given to addVote,
// descriptors are held. What is named here is not to be had and is not asked for again.
func (r *round) gathered(without missing) {
	r.fetching = false
	for ref := range without.votes {
		r.notVotes[ref] = true
	}
	for digest := range without.descriptors {
		r.notDescriptors[digest] = true
	}
}

// missing returns what to fetch: a vote from those whose echo names it and from its author, a descriptor
// from those whose vote names it.
func (r *round) missing() missing {
	m := missing{votes: map[netdoc.VoteRef][]wire.ID{}, descriptors: map[netdoc.Digest][]wire.ID{}}
	for _, ref := range r.missingVotes() {
		if !r.notVotes[ref] {
			m.votes[ref] = r.whoVote(ref)
		}
	}
	for _, digest := range r.missingDescriptors() {
		if !r.notDescriptors[digest] {
			m.descriptors[digest] = nil
		}
	}
	for _, v := range r.votes {
		for _, e := range v.Relays {
			if who, wanted := m.descriptors[e.Descriptor]; wanted && v.Authority != r.self {
				m.descriptors[e.Descriptor] = append(who, v.Authority)
			}
		}
	}
	return m
}

func (r *round) whoVote(ref netdoc.VoteRef) []wire.ID {
	var who []wire.ID
	for _, e := range r.echoes {
		if slices.Contains(e.Votes, ref) && e.Authority != r.self && e.Authority != ref.Authority {
			who = append(who, e.Authority)
		}
	}
	if ref.Authority != r.self {
		who = append(who, ref.Authority)
	}
	return who
}

// countSignature counts an endorsement if it is of the very document that was made here.
func (r *round) countSignature(e *netdoc.Endorsement) {
	if e.Consensus == r.digest && netdoc.VerifyConsensus(r.document, e.Signature()) {
		r.signatures = append(r.signatures, e.Signature())
	}
}

// signed reports whether a quorum has signed the document.
func (r *round) signed() bool { return len(r.signatures) >= r.quorum() }

// summary says in one line how far the round came, for the log.
func (r *round) summary() string {
	return fmt.Sprintf("%v: %d votes, %d echoes, %d endorsements, %d signatures of %d",
		r.phase, len(r.held), len(r.echoed), len(r.endorsements), len(r.signatures), r.quorum())
}
