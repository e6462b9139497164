package dirauth

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// A relay is in if more than half of the counted votes, and at least f+1, list it as running.
func TestRelayIsInByMajority(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7} {
		w := newTown(n)
		f := netdoc.Faulty(n)
		d := describe(t, 1)
		for listing := range n + 1 {
			t.Run(fmt.Sprintf("n=%d listed by %d", n, listing), func(t *testing.T) {
				var votes []*netdoc.Vote
				for i := range n {
					if i < listing {
						votes = append(votes, w.vote(t, i, runs(d)))
					} else {
						votes = append(votes, w.vote(t, i))
					}
				}
				_, in := w.read(t, w.ballot(votes, w.echoAll(t, votes...), d)).Relay(d.ID)
				if want := 2*listing > n && listing >= f+1; in != want {
					t.Errorf("in is %v, want %v", in, want)
				}
			})
		}
	}
}

// With fewer than a quorum of votes there is no document, with a quorum there is.
func TestQuorumOfVotes(t *testing.T) {
	for n, q := range map[int]int{1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 6: 5, 7: 5} {
		for have := 0; have <= n; have++ {
			w := newTown(n)
			var votes []*netdoc.Vote
			for i := range have {
				votes = append(votes, w.vote(t, i))
			}
			_, err := w.ballot(votes, w.echoAll(t, votes...)).tally()
			if have >= q && err != nil {
				t.Errorf("%d votes of %d: %v", have, n, err)
			}
			if have < q && !errors.Is(err, errTooFewVotes) {
				t.Errorf("%d votes of %d: error %v, want %v", have, n, err, errTooFewVotes)
			}
		}
	}
}

func TestDocument(t *testing.T) {
	w := newTown(4)
	d := describe(t, 1)
	e := runs(d, netdoc.Exit, netdoc.Fast)
	votes := []*netdoc.Vote{w.vote(t, 0, e), w.vote(t, 1, e), w.vote(t, 2, e), w.vote(t, 3, e)}
	c := w.read(t, w.ballot(votes, w.echoAll(t, votes...), d))
	if c.Network != "test" || c.ValidAfter != validAfter.UnixMilli() ||
		c.FreshUntil != validAfter.Add(5*time.Second).UnixMilli() || c.ValidUntil != validAfter.Add(time.Minute).UnixMilli() {
		t.Errorf("network or times are wrong: %+v", c)
	}
	if c.Params != w.Params.Consensus() {
		t.Errorf("parameters %+v", c.Params)
	}
	if len(c.Voters) != 4 {
		t.Errorf("%d voters", len(c.Voters))
	}
	r, ok := c.Relay(d.ID)
	if !ok {
		t.Fatal("the relay is not in")
	}
	if r.Descriptor != d.Digest() || r.Nickname != d.Nickname || !slices.Equal(r.Addresses, d.Addresses) ||
		r.Key != d.OnionKeys[0].Ref() || !r.Policy.Equal(d.Policy) || r.Weight != 1000 ||
		r.Flags != netdoc.Running|netdoc.Exit|netdoc.Fast {
		t.Errorf("entry %+v", r)
	}
}

// count tests: which votes count, given who holds which.
func TestCount(t *testing.T) {
	w := newTown(4)
	d := describe(t, 1)
	v := []*netdoc.Vote{w.vote(t, 0, runs(d)), w.vote(t, 1, runs(d)), w.vote(t, 2, runs(d)), w.vote(t, 3, runs(d))}
	second := w.vote(t, 3)
	third := w.vote(t, 3, runs(describe(t, 2)))
	old := w.voteWith(t, 3, func(v *netdoc.Vote) { v.ValidAfter -= 5000 }, runs(d))
	oldEcho := func(i int) *netdoc.Echo {
		return w.signEcho(t, i, &netdoc.Echo{Network: w.Name, Authority: w.Authorities[i].ID, ValidAfter: old.ValidAfter,
			Votes: []netdoc.VoteRef{refOf(v[0]), refOf(v[1]), refOf(v[2]), refOf(v[3])}})
	}
	fake := func(i int, of ...int) *netdoc.Echo {
		e := &netdoc.Echo{Network: w.Name, Authority: w.Authorities[i].ID, ValidAfter: validAfter.UnixMilli()}
		for _, a := range of {
			e.Votes = append(e.Votes, netdoc.VoteRef{Authority: w.Authorities[a].ID, Digest: netdoc.DigestOf([]byte{byte(a)})})
		}
		return w.signEcho(t, i, e)
	}
	for _, tt := range []struct {
		name    string
		votes   []*netdoc.Vote
		echoes  []*netdoc.Echo
		counted []*netdoc.Vote
		leftOut []*netdoc.Vote // pairs
	}{
		{"all", v, w.echoAll(t, v...), v, nil},
		{"one down", v[:3], w.echoAll(t, v[:3]...), v[:3], nil},
		{"no echoes", v, nil, nil, nil},
		{"named by one other only", v, []*netdoc.Echo{w.echo(t, 0, v[0], v[1]), w.echo(t, 1, v[0], v[1]), w.echo(t, 2, v[0], v[1], v[2])}, v[:2], nil},
		{"an author need not echo its own", v, []*netdoc.Echo{w.echo(t, 0, v...), w.echo(t, 1, v...), w.echo(t, 2, v[:3]...)}, v, nil},
		{"its own echo twice is not two", v, []*netdoc.Echo{w.echo(t, 3, v[3]), w.echo(t, 0, v[3])}, nil, nil},
		{"voted twice", append(slices.Clone(v), second),
			[]*netdoc.Echo{w.echo(t, 0, v...), w.echo(t, 1, v...), w.echo(t, 2, v[0], v[1], v[2], second)}, v[:3], []*netdoc.Vote{v[3], second}},
		{"voted twice, one echo names both", append(slices.Clone(v), second),
			[]*netdoc.Echo{w.echo(t, 0, v...), w.echo(t, 1, v...), w.echo(t, 2, v[0], v[1], v[2], v[3], second)}, v[:3], []*netdoc.Vote{v[3], second}},
		{"second vote that only its author names", append(slices.Clone(v), second),
			[]*netdoc.Echo{w.echo(t, 0, v...), w.echo(t, 1, v...), w.echo(t, 2, v...), w.echo(t, 3, v[0], v[1], v[2], second)}, v, nil},
		{"second vote that nobody names", append(slices.Clone(v), second, third), w.echoAll(t, v...), v, nil},
		{"invented digests prove nothing", v, []*netdoc.Echo{w.echo(t, 0, v...), w.echo(t, 1, v...), w.echo(t, 2, v...), fake(3, 0, 1, 2)}, v, nil},
		{"old vote", append(slices.Clone(v[:3]), old), []*netdoc.Echo{w.echo(t, 0, v[0], v[1], v[2], old), w.echo(t, 1, v[0], v[1], v[2], old), w.echo(t, 2, v[0], v[1], v[2], old)}, v[:3], nil},
		{"old echoes", v, []*netdoc.Echo{oldEcho(0), oldEcho(1), oldEcho(2), oldEcho(3)}, nil, nil},
		{"the same echo twice", v[:1], []*netdoc.Echo{w.echo(t, 1, v[0]), w.echo(t, 1, v[0])}, nil, nil},
		{"the same vote twice", append(slices.Clone(v), v...), w.echoAll(t, v...), v, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			counted, leftOut := w.ballot(tt.votes, tt.echoes, d).count()
			if got, want := refs(counted), refs(tt.counted); !slices.Equal(got, want) {
				t.Errorf("counted %d votes, want %d", len(got), len(want))
			}
			var proof []*netdoc.Vote
			for _, e := range leftOut {
				proof = append(proof, e.first, e.second)
			}
			if !slices.Equal(refs(proof), refs(tt.leftOut)) {
				t.Errorf("left out %d, want %d", len(proof)/2, len(tt.leftOut)/2)
			}
		})
	}
}

func refs(votes []*netdoc.Vote) []netdoc.VoteRef {
	list := make([]netdoc.VoteRef, len(votes))
	for i, v := range votes {
		list[i] = refOf(v)
	}
	slices.SortFunc(list, netdoc.CompareVoteRefs)
	return list
}

// An authority whose second vote nobody holds stands: a digest is no proof. What could change the count is
// missing, and nothing else.
func TestMissingVotes(t *testing.T) {
	w := newTown(4)
	v := []*netdoc.Vote{w.vote(t, 0), w.vote(t, 1), w.vote(t, 2), w.vote(t, 3)}
	second := w.vote(t, 3, runs(describe(t, 1)))
	echoes := []*netdoc.Echo{w.echo(t, 0, v...), w.echo(t, 1, v...), w.echo(t, 2, v[0], v[1], v[2], second)}
	if got := w.ballot(v, echoes).missingVotes(); !slices.Equal(got, refs([]*netdoc.Vote{second})) {
		t.Errorf("a possible second vote: missing %v", got)
	}
	if got := w.ballot(append(v, second), echoes).missingVotes(); got != nil {
		t.Errorf("everything held: missing %v", got)
	}
	few := []*netdoc.Echo{w.echo(t, 0, v[0], v[3]), w.echo(t, 1, v[0]), w.echo(t, 2, v[0])}
	if got := w.ballot(nil, few).missingVotes(); !slices.Equal(got, refs(v[:1])) {
		t.Errorf("only one has a quorum behind it: missing %v", got)
	}
}

func TestDescriptorChosen(t *testing.T) {
	w := newTown(4)
	at := func(minutes int, name string) *netdoc.Descriptor {
		return describe(t, 1, func(d *netdoc.Descriptor) {
			d.Nickname, d.Published = name, d.Published+int64(minutes)*60000
		})
	}
	early, late, late2 := at(0, "early"), at(1, "late"), at(1, "late2")
	smaller, greater := late, late2
	if smaller.Digest().Compare(greater.Digest()) > 0 {
		smaller, greater = greater, smaller
	}
	stranger := describe(t, 2)
	ofStranger := runs(early)
	ofStranger.Descriptor = stranger.Digest()
	lost := runs(early)
	lost.Descriptor = netdoc.DigestOf([]byte("nobody has it"))
	liar := runs(early)
	liar.Published += 3600_000
	for _, tt := range []struct {
		name    string
		entries []netdoc.VoteEntry
		want    *netdoc.Descriptor
		missing int
	}{
		{"most votes", []netdoc.VoteEntry{runs(early), runs(early), runs(early), runs(late)}, early, 0},
		{"then published later", []netdoc.VoteEntry{runs(early), runs(early), runs(late), runs(late)}, late, 0},
		{"then the smaller digest", []netdoc.VoteEntry{runs(greater), runs(smaller), runs(greater), runs(smaller)}, smaller, 0},
		{"what a vote says of the time is ignored", []netdoc.VoteEntry{liar, liar, runs(late), runs(late)}, late, 0},
		{"of another relay", []netdoc.VoteEntry{ofStranger, ofStranger, runs(late), runs(late)}, late, 0},
		{"not to be had, and not wanted", []netdoc.VoteEntry{lost, runs(early), runs(early), runs(early)}, early, 0},
		{"in the lead, not to be had", []netdoc.VoteEntry{lost, lost, runs(early), runs(early)}, early, 1},
		{"none to be had", []netdoc.VoteEntry{lost, lost, lost, lost}, nil, 1},
		{"each named by one: none is safe to choose", []netdoc.VoteEntry{lost, runs(early), runs(late)}, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var votes []*netdoc.Vote
			for i, e := range tt.entries {
				votes = append(votes, w.vote(t, i, e))
			}
			b := w.ballot(votes, w.echoAll(t, votes...), early, late, late2, stranger)
			if got := b.missingDescriptors(); len(got) != tt.missing {
				t.Errorf("%d missing, want %d", len(got), tt.missing)
			}
			r, in := w.read(t, b).Relay(early.ID)
			switch {
			case tt.want == nil && in:
				t.Error("the relay is in without a descriptor")
			case tt.want != nil && !in:
				t.Error("the relay is not in")
			case tt.want != nil && r.Descriptor != tt.want.Digest():
				t.Errorf("chosen %s, want %s", r.Nickname, tt.want.Nickname)
			}
		})
	}
}

func TestFlags(t *testing.T) {
	w := newTown(4) // f = 1
	exit := describe(t, 1)
	noExit := describe(t, 2, func(d *netdoc.Descriptor) { d.Policy = netdoc.Policy{} })
	notRunning := func(d *netdoc.Descriptor, f netdoc.Flags) netdoc.VoteEntry {
		return netdoc.VoteEntry{ID: d.ID, Descriptor: d.Digest(), Published: d.Published, Flags: f}
	}
	const R = netdoc.Running
	for _, tt := range []struct {
		name    string
		entries []netdoc.VoteEntry
		want    netdoc.Flags
	}{
		{"two of four are no majority", []netdoc.VoteEntry{runs(exit, netdoc.Fast), runs(exit, netdoc.Fast), runs(exit), runs(exit)}, R},
		{"three of four are", []netdoc.VoteEntry{runs(exit, netdoc.Fast), runs(exit, netdoc.Fast), runs(exit, netdoc.Fast), runs(exit)}, R | netdoc.Fast},
		{"two of three that say running", []netdoc.VoteEntry{runs(exit, netdoc.Guard), runs(exit, netdoc.Guard), runs(exit), notRunning(exit, 0)}, R | netdoc.Guard},
		{"who does not say running has no voice", []netdoc.VoteEntry{runs(exit, netdoc.Stable), runs(exit), runs(exit), notRunning(exit, netdoc.Stable)}, R},
		{"one bad exit is a liar's", []netdoc.VoteEntry{runs(exit, netdoc.Exit, netdoc.BadExit), runs(exit, netdoc.Exit), runs(exit, netdoc.Exit), runs(exit)}, R | netdoc.Exit},
		{"f+1 bad exits are not", []netdoc.VoteEntry{runs(exit, netdoc.BadExit), runs(exit, netdoc.BadExit), runs(exit), runs(exit)}, R | netdoc.BadExit},
		{"bad exit by one that does not say running", []netdoc.VoteEntry{runs(exit, netdoc.BadExit), notRunning(exit, netdoc.BadExit), runs(exit), runs(exit)}, R | netdoc.BadExit},
		{"no exit against its policy", []netdoc.VoteEntry{runs(noExit, netdoc.Exit), runs(noExit, netdoc.Exit), runs(noExit, netdoc.Exit), runs(noExit, netdoc.Exit)}, R},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var votes []*netdoc.Vote
			for i, e := range tt.entries {
				votes = append(votes, w.vote(t, i, e))
			}
			r, in := w.read(t, w.ballot(votes, w.echoAll(t, votes...), exit, noExit)).Relay(tt.entries[0].ID)
			if !in {
				t.Fatal("the relay is not in")
			}
			if r.Flags != tt.want {
				t.Errorf("flags %v, want %v", r.Flags, tt.want)
			}
		})
	}
}

func TestWeight(t *testing.T) {
	for _, tt := range []struct {
		name     string
		n        int
		offered  uint64
		measured []uint64 // 0: not measured
		want     uint64
	}{
		{"unmeasured", 4, 1000, []uint64{0, 0, 0, 0}, 1000},
		{"unmeasured, capped", 4, 1 << 40, []uint64{0, 0, 0, 0}, unmeasuredCap},
		{"one measurement is not enough", 4, 1000, []uint64{1 << 40, 0, 0, 0}, 1000},
		{"of two the lower", 4, 1000, []uint64{1 << 40, 7000, 0, 0}, 7000},
		{"of three the middle", 4, 1000, []uint64{9000, 1, 8000, 0}, 8000},
		{"of four the lower middle", 4, 1000, []uint64{9000, 1, 8000, 7000}, 7000},
		{"not capped when measured", 4, 1000, []uint64{1 << 30, 1 << 30, 1 << 30, 1 << 30}, 1 << 30},
		{"one of one", 1, 1000, []uint64{5000}, 5000},
		{"two of seven are not enough", 7, 1000, []uint64{5000, 5000, 0, 0, 0, 0, 0}, 1000},
		{"three of seven", 7, 1000, []uint64{5000, 6000, 7000, 0, 0, 0, 0}, 6000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newTown(tt.n)
			d := describe(t, 1, func(d *netdoc.Descriptor) { d.Bandwidth = tt.offered })
			var votes []*netdoc.Vote
			for i, m := range tt.measured {
				votes = append(votes, w.vote(t, i, measured(runs(d), m)))
			}
			r, in := w.read(t, w.ballot(votes, w.echoAll(t, votes...), d)).Relay(d.ID)
			if !in || r.Weight != tt.want {
				t.Errorf("weight %d (in: %v), want %d", r.Weight, in, tt.want)
			}
		})
	}
}

// Of the families that relays declare, those count that both sides declare, and only relays that are in.
func TestFamilies(t *testing.T) {
	w := newTown(4)
	of := func(members ...int) func(*netdoc.Descriptor) {
		return func(d *netdoc.Descriptor) {
			for _, i := range members {
				d.Family = append(d.Family, relayID(i))
			}
			slices.SortFunc(d.Family, netdoc.CompareIDs)
		}
	}
	// 1 and 2 name one another, 1 names 3, all name 4, which is not in, and 5 names all.
	held := []*netdoc.Descriptor{
		describe(t, 1, of(2, 3, 4)), describe(t, 2, of(1, 4)), describe(t, 3, of(4)), describe(t, 5, of(1, 2, 3, 4)),
	}
	var votes []*netdoc.Vote
	for i := range 4 {
		var entries []netdoc.VoteEntry
		for _, d := range held {
			entries = append(entries, runs(d))
		}
		votes = append(votes, w.vote(t, i, entries...))
	}
	c := w.read(t, w.ballot(votes, w.echoAll(t, votes...), held...))
	for i, want := range map[int][]wire.ID{1: {relayID(2)}, 2: {relayID(1)}, 3: nil, 5: nil} {
		if r, ok := c.Relay(relayID(i)); !ok || !slices.Equal(r.Family, want) {
			t.Errorf("relay %d is in: %v, with a family of %d, want %d", i, ok, len(r.Family), len(want))
		}
	}
	if len(held[0].Family) != 3 {
		t.Error("the descriptor was changed")
	}
}

func TestParameters(t *testing.T) {
	w := newTown(4)
	var votes []*netdoc.Vote
	for i := range 4 {
		votes = append(votes, w.voteWith(t, i, func(v *netdoc.Vote) {
			v.Params = netdoc.ConsensusParams{
				MinRelays: []int{1, 5, 9, 20000}[i], PerAddress: []int{0, 0, 2, 2}[i], SubnetRule: i < 2,
				OnionKeyLifetime: netdoc.Duration(time.Duration(i+1) * time.Hour),
			}
		}))
	}
	for k, want := range map[int]netdoc.ConsensusParams{
		4: {MinRelays: 5, PerAddress: 0, SubnetRule: false, OnionKeyLifetime: netdoc.Duration(2 * time.Hour)},
		3: {MinRelays: 5, PerAddress: 0, SubnetRule: true, OnionKeyLifetime: netdoc.Duration(2 * time.Hour)},
	} {
		if c := w.read(t, w.ballot(votes[:k], w.echoAll(t, votes[:k]...))); c.Params != want {
			t.Errorf("%d votes: %+v, want %+v", k, c.Params, want)
		}
	}
}

// One liar among four who votes for relays that do not exist gets none of them in, and keeps none out.
func TestLiarAlone(t *testing.T) {
	w := newTown(4)
	var held []*netdoc.Descriptor
	var honest, invented []netdoc.VoteEntry
	for i := range 6 {
		held = append(held, describe(t, i))
		honest = append(honest, runs(held[i]))
		d := describe(t, 100+i)
		invented = append(invented, runs(d))
	}
	votes := []*netdoc.Vote{w.vote(t, 0, honest...), w.vote(t, 1, honest...), w.vote(t, 2, honest...), w.vote(t, 3, invented...)}
	b := w.ballot(votes, w.echoAll(t, votes...), held...)
	if got := b.missingDescriptors(); got != nil {
		t.Errorf("%d descriptors of invented relays are asked for", len(got))
	}
	c := w.read(t, b)
	var ids []wire.ID
	for _, e := range honest {
		ids = append(ids, e.ID)
	}
	slices.SortFunc(ids, netdoc.CompareIDs)
	var got []wire.ID
	for _, r := range c.Relays {
		got = append(got, r.ID)
	}
	if !slices.Equal(got, ids) {
		t.Errorf("%d relays are in, want the %d that exist", len(got), len(ids))
	}
}

// Whatever the votes say, the order in which they and the echoes arrived never shows.
func FuzzOrder(f *testing.F) {
	f.Add(uint64(1), uint64(2), 4)
	f.Add(uint64(3), uint64(4), 7)
	f.Add(uint64(5), uint64(6), 1)
	f.Fuzz(func(t *testing.T, content, order uint64, n int) {
		if n < 1 || n > 9 {
			return
		}
		w := newTown(n)
		votes, echoes, held := chance(t, w, rand.New(rand.NewPCG(content, 0)))
		want, wantErr := w.ballot(votes, echoes, held...).tally()
		shuffle := rand.New(rand.NewPCG(order, 0))
		for range 3 {
			shuffle.Shuffle(len(votes), func(i, j int) { votes[i], votes[j] = votes[j], votes[i] })
			shuffle.Shuffle(len(echoes), func(i, j int) { echoes[i], echoes[j] = echoes[j], echoes[i] })
			got, err := w.ballot(votes, echoes, held...).tally()
			if !bytes.Equal(got, want) || (err == nil) != (wantErr == nil) {
				t.Fatalf("another order gives another document: %v, %v", err, wantErr)
			}
		}
	})
}

// chance makes votes and echoes in which much is in dispute.
func chance(t *testing.T, w *town, r *rand.Rand) (votes []*netdoc.Vote, echoes []*netdoc.Echo, held []*netdoc.Descriptor) {
	flags := []netdoc.Flags{0, netdoc.Exit, netdoc.Fast, netdoc.Stable, netdoc.Guard, netdoc.BadExit}
	var editions [][]*netdoc.Descriptor // of three relays
	for i := range 3 {
		var e []*netdoc.Descriptor
		for j := range 3 {
			d := describe(t, i, func(d *netdoc.Descriptor) {
				d.Nickname = fmt.Sprintf("r%d-%d", i, j)
				d.Published += int64(r.IntN(2))
			})
			e = append(e, d)
			if r.IntN(5) > 0 {
				held = append(held, d)
			}
		}
		editions = append(editions, e)
	}
	vote := func(i int) *netdoc.Vote {
		var entries []netdoc.VoteEntry
		for _, e := range editions {
			if r.IntN(4) > 0 {
				entry := measured(runs(e[r.IntN(3)], flags[r.IntN(6)], flags[r.IntN(6)]), uint64(r.IntN(3))*1000)
				if r.IntN(5) == 0 {
					entry.Flags &^= netdoc.Running
				}
				entries = append(entries, entry)
			}
		}
		return w.vote(t, i, entries...)
	}
	for i := range w.Authorities {
		votes = append(votes, vote(i))
		if v := vote(i); r.IntN(4) == 0 && refOf(v) != refOf(votes[len(votes)-1]) {
			votes = append(votes, v)
		}
	}
	for i := range w.Authorities {
		var named []*netdoc.Vote
		for _, v := range votes {
			if r.IntN(10) > 0 {
				named = append(named, v)
			}
		}
		echoes = append(echoes, w.echo(t, i, named...))
	}
	return votes, echoes, held
}
