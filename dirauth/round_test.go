package dirauth

import (
	"errors"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// bench is the round of authority 0, stepped by hand.
type bench struct {
	*town
	*round
	t *testing.T
}

func newBench(t *testing.T, n int, held ...*netdoc.Descriptor) *bench {
	w := newTown(n)
	return &bench{town: w, t: t, round: newRound(w.Network, w.Authorities[0].ID, validAfter, library(held...))}
}

// add gives the round what an authority said.
func (b *bench) add(now time.Time, said ...any) {
	b.t.Helper()
	for _, s := range said {
		var err error
		switch s := s.(type) {
		case *netdoc.Vote:
			err = b.addVote(now, s)
		case *netdoc.Echo:
			err = b.addEcho(now, s)
		case *netdoc.Endorsement:
			err = b.addEndorsement(now, s)
		}
		if err != nil {
			b.t.Fatalf("%T: %v", s, err)
		}
	}
}

// endorse returns authority i's signature of a document.
func (w *town) endorse(t *testing.T, i int, document []byte, at time.Time) *netdoc.Endorsement {
	t.Helper()
	e := &netdoc.Endorsement{Network: w.Name, Authority: w.Authorities[i].ID, ValidAfter: at.UnixMilli(),
		Consensus: netdoc.DigestOf(document), Value: netdoc.SignConsensus(document, w.keys[i]).Value}
	raw, err := e.Sign(w.keys[i])
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := netdoc.ParseEndorsement(raw, w.Network)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// With everything there, each step leads to the next at once; the consensus comes when its time does.
func TestRoundWithoutWaiting(t *testing.T) {
	d := describe(t, 1)
	b := newBench(t, 4, d)
	var votes []*netdoc.Vote
	for i := range 4 {
		votes = append(votes, b.vote(t, i, runs(d)))
	}
	early := b.times.open.Add(-time.Second)
	if got := b.step(early); !got.empty() || !b.wake().Equal(b.times.open) {
		t.Fatalf("before its time: %+v", got)
	}
	b.add(early, votes[1], votes[2], b.echo(t, 2, votes...)) // from faster clocks
	now := b.times.open
	if got := b.step(now); !got.vote {
		t.Fatal("no vote is asked for")
	}
	b.add(now, votes[0])
	if got := b.step(now); !got.empty() {
		t.Fatalf("with three of four votes: %+v", got)
	}
	b.add(now, votes[3])
	got := b.step(now)
	if got.echo == nil || len(got.echo.Votes) != 4 {
		t.Fatal("no echo of all four")
	}
	b.add(now, b.signEcho(t, 0, got.echo), b.echo(t, 1, votes...))
	if got := b.step(now); !got.empty() {
		t.Fatalf("with three of four echoes: %+v", got)
	}
	b.add(now, b.echo(t, 3, votes...))
	got = b.step(now)
	if got.document == nil {
		t.Fatal("nothing to sign")
	}
	for i := range 2 {
		b.add(now, b.endorse(t, i, got.document, validAfter))
	}
	if got := b.step(now); !got.empty() || !b.wake().Equal(b.times.close) {
		t.Fatal("not waiting for a third signature")
	}
	b.add(now, b.endorse(t, 2, got.document, validAfter))
	if got := b.step(now); !got.empty() || !b.wake().Equal(validAfter) {
		t.Fatal("not waiting for the consensus' time")
	}
	b.add(now, b.endorse(t, 3, got.document, validAfter))
	got = b.step(validAfter)
	if _, err := netdoc.ParseConsensus(got.consensus, b.Network); err != nil {
		t.Fatal(err)
	}
	if !b.wake().IsZero() || b.phase != done {
		t.Errorf("the round is not done: %s", b.summary())
	}
}

// With one authority silent, each phase ends at its deadline, and the quorum suffices.
func TestRoundAtItsDeadlines(t *testing.T) {
	b := newBench(t, 4)
	votes := []*netdoc.Vote{b.vote(t, 0), b.vote(t, 1), b.vote(t, 2)}
	b.step(b.times.open)
	b.add(b.times.open, votes[0], votes[1], votes[2])
	if got := b.step(b.times.votesBy.Add(-time.Millisecond)); !got.empty() || !b.wake().Equal(b.times.votesBy) {
		t.Fatal("voting ended too early")
	}
	if got := b.step(b.times.votesBy); got.echo == nil {
		t.Fatal("voting did not end")
	}
	b.add(b.times.votesBy, b.echo(t, 0, votes...), b.echo(t, 1, votes...), b.echo(t, 2, votes...))
	if got := b.step(b.times.echoesBy.Add(-time.Millisecond)); !got.empty() || !b.wake().Equal(b.times.echoesBy) {
		t.Fatal("echoing ended too early")
	}
	got := b.step(b.times.echoesBy)
	if got.document == nil {
		t.Fatal("echoing did not end")
	}
	// The third signature comes after the consensus' time: it is served then.
	late := validAfter.Add(time.Second)
	b.add(late, b.endorse(t, 0, got.document, validAfter), b.endorse(t, 1, got.document, validAfter))
	if got := b.step(late); !got.empty() {
		t.Fatal("two signatures suffice")
	}
	b.add(late, b.endorse(t, 2, got.document, validAfter))
	if got := b.step(late); got.consensus == nil {
		t.Fatal("three signatures do not suffice")
	}
}

// What is missing is asked for once, from those who have it, until it came, cannot be had, or time is over.
func TestRoundGathers(t *testing.T) {
	d, lost := describe(t, 1), describe(t, 2)
	start := func(t *testing.T) (b *bench, votes []*netdoc.Vote, asked missing) {
		b = newBench(t, 4, d)
		for i := range 4 {
			votes = append(votes, b.vote(t, i, runs(d), runs(lost)))
		}
		b.step(b.times.open)
		b.add(b.times.open, votes[0], votes[1], votes[2])
		b.step(b.times.votesBy)
		b.add(b.times.votesBy, b.echo(t, 0, votes[:3]...), b.echo(t, 1, votes...), b.echo(t, 2, votes...), b.echo(t, 3, votes...))
		asked = b.step(b.times.votesBy).missing
		return b, votes, asked
	}
	t.Run("asks", func(t *testing.T) {
		b, votes, asked := start(t)
		who := asked.votes[refOf(votes[3])]
		if len(asked.votes) != 1 || len(who) != 3 || who[2] != b.Authorities[3].ID {
			t.Errorf("the fourth vote is asked for from %d, its author last", len(who))
		}
		if from := asked.descriptors[lost.Digest()]; len(asked.descriptors) != 1 || len(from) != 2 {
			t.Errorf("the descriptor is asked for from %d, want the other two whose votes are here", len(from))
		}
		if got := b.step(b.times.votesBy); !got.empty() {
			t.Errorf("asked again: %+v", got)
		}
	})
	t.Run("all came", func(t *testing.T) {
		b, votes, _ := start(t)
		b.add(b.times.echoesBy, votes[3])
		b.descriptor = library(d, lost)
		b.gathered(missing{})
		if got := b.step(b.times.echoesBy); got.document == nil || len(b.read(t, &b.round.ballot).Relays) != 2 {
			t.Error("no document with both relays")
		}
	})
	t.Run("nothing to be had", func(t *testing.T) {
		b, _, asked := start(t)
		b.gathered(asked)
		if got := b.step(b.times.echoesBy); got.document == nil || len(b.read(t, &b.round.ballot).Relays) != 1 {
			t.Error("no document with the one relay")
		}
	})
	t.Run("no answer", func(t *testing.T) {
		b, _, _ := start(t)
		if got := b.step(b.times.gatherBy.Add(-time.Millisecond)); !got.empty() || !b.wake().Equal(b.times.gatherBy) {
			t.Error("gathering ended too early")
		}
		if got := b.step(b.times.gatherBy); got.document == nil {
			t.Error("gathering did not end")
		}
	})
}

// Too few votes, or too few signatures: the round fails, and says so once.
func TestRoundFails(t *testing.T) {
	b := newBench(t, 4)
	b.step(b.times.open)
	b.add(b.times.open, b.vote(t, 0), b.vote(t, 1))
	b.step(b.times.votesBy)
	if got := b.step(b.times.echoesBy); !errors.Is(got.failed, errTooFewVotes) {
		t.Errorf("two votes: %+v", got)
	}
	if got := b.step(validAfter); !got.empty() || !b.wake().IsZero() {
		t.Errorf("after the failure: %+v", got)
	}

	b = newBench(t, 1)
	b.step(b.times.open)
	b.add(b.times.open, b.vote(t, 0))
	b.step(b.times.open)
	b.add(b.times.open, b.echo(t, 0, b.votes...))
	got := b.step(b.times.open)
	other := append([]byte("other"), got.document...)
	b.add(b.times.open, b.endorse(t, 0, other, validAfter))
	if got := b.step(b.times.close); !errors.Is(got.failed, errNoQuorum) {
		t.Errorf("a signature of something else: %+v", got)
	}
}

// What comes too late, twice, or for another round is refused, each with its reason.
func TestRoundRefuses(t *testing.T) {
	b := newBench(t, 4)
	tick := time.Millisecond
	if err := b.addVote(b.times.gatherBy, b.vote(t, 1)); !errors.Is(err, errLate) {
		t.Errorf("vote after gathering: %v", err)
	}
	if err := b.addEcho(b.times.echoesBy, b.echo(t, 1)); !errors.Is(err, errLate) {
		t.Errorf("echo after echoing: %v", err)
	}
	if err := b.addEndorsement(b.times.close, b.endorse(t, 1, nil, validAfter)); !errors.Is(err, errLate) {
		t.Errorf("signature after the round: %v", err)
	}
	other := validAfter.Add(5 * time.Second)
	for name, err := range map[string]error{
		"vote":      b.addVote(b.times.open, b.voteWith(t, 1, func(v *netdoc.Vote) { v.ValidAfter = other.UnixMilli() })),
		"echo":      b.addEcho(b.times.open, b.signEcho(t, 1, &netdoc.Echo{Network: b.Name, Authority: b.Authorities[1].ID, ValidAfter: other.UnixMilli()})),
		"signature": b.addEndorsement(b.times.open, b.endorse(t, 1, nil, other)),
	} {
		if !errors.Is(err, errForeign) {
			t.Errorf("%s for another round: %v", name, err)
		}
	}
	vote := b.vote(t, 1)
	b.add(b.times.gatherBy.Add(-tick), vote, vote)
	b.add(b.times.echoesBy.Add(-tick), b.echo(t, 1), b.echo(t, 1))
	b.add(b.times.close.Add(-tick), b.endorse(t, 1, nil, validAfter), b.endorse(t, 1, nil, validAfter))
	b.add(b.times.open, b.vote(t, 1, runs(describe(t, 1)))) // proof
	for name, err := range map[string]error{
		"third vote":       b.addVote(b.times.open, b.vote(t, 1, runs(describe(t, 2)))),
		"second echo":      b.addEcho(b.times.open, b.echo(t, 1, vote)),
		"second signature": b.addEndorsement(b.times.open, b.endorse(t, 1, []byte("other"), validAfter)),
	} {
		if !errors.Is(err, errTwice) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got := b.step(b.times.open)
	found := map[Word]wire.ID{}
	for _, p := range got.proofs {
		found[p.Word] = p.Authority
	}
	if len(got.proofs) != 3 || len(found) != 3 {
		t.Errorf("%d proofs of %d kinds, want one of each kind", len(got.proofs), len(found))
	}
	if again := b.step(b.times.open); len(again.proofs) != 0 {
		t.Error("proofs are given twice")
	}
}

func TestSchedule(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_000)
	for _, tt := range []struct {
		name         string
		params       netdoc.Params
		validAfter   time.Time
		window, left time.Duration // before valid-after, and until the next
	}{
		{"five seconds", netdoc.Params{Round: netdoc.Duration(5 * time.Second)}, start, 3750 * time.Millisecond, 5 * time.Second},
		{"an hour", netdoc.Params{Round: netdoc.Duration(time.Hour)}, start.Truncate(time.Hour), 10 * time.Minute, time.Hour},
		{"initial", netdoc.Params{Round: netdoc.Duration(5 * time.Second), Start: start.UnixMilli(), InitialRound: netdoc.Duration(250 * time.Millisecond), InitialRounds: 2},
			start.Add(250 * time.Millisecond), 187500 * time.Microsecond, 250 * time.Millisecond},
		{"last initial", netdoc.Params{Round: netdoc.Duration(5 * time.Second), Start: start.UnixMilli(), InitialRound: netdoc.Duration(250 * time.Millisecond), InitialRounds: 2},
			start.Add(500 * time.Millisecond), 187500 * time.Microsecond, 5 * time.Second},
		{"first", netdoc.Params{Round: netdoc.Duration(5 * time.Second), Start: start.UnixMilli()}, start, 3750 * time.Millisecond, 5 * time.Second},
	} {
		s := newSchedule(tt.params, tt.validAfter)
		if got := s.validAfter.Sub(s.open); got != tt.window {
			t.Errorf("%s: the window is %v, want %v", tt.name, got, tt.window)
		}
		if got := s.close.Sub(s.validAfter); got != tt.left {
			t.Errorf("%s: open for %v after, want %v", tt.name, got, tt.left)
		}
		if !s.open.Before(s.votesBy) || !s.votesBy.Before(s.echoesBy) || !s.echoesBy.Before(s.gatherBy) || !s.gatherBy.Before(s.validAfter) {
			t.Errorf("%s: out of order: %+v", tt.name, s)
		}
	}
}
