package dirauth

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// authority is Authority's view of a voter that has none around it.
func authority(v *voter) *Authority {
	return &Authority{voter: v, prober: &prober{}, meter: &meter{}}
}

// Each round counts once, and with four authorities each hears three words of each kind in it. One that is
// cut off makes no consensus, and the others hear one word less.
func TestStatsOfRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rounds, lonely = 4, 3
		p := newParliament(t, 4, nil)
		p.relays(upTo(4), 0, 5)
		p.start(0, 1, 2, 3)
		defer p.stop(0, 1, 2, 3)
		at := p.Params.NextRound(p.Params.NextRound(time.Now()))
		pass := func(n int) (first, last Stats) { // n rounds of all, from the close of one to that of another
			for range n {
				at = p.Params.NextRound(at)
			}
			await(newSchedule(p.Params, at).close)
			return authority(p.voters[0]).Stats(), authority(p.voters[lonely]).Stats()
		}
		before, _ := pass(0)
		after, _ := pass(rounds)
		if n := after.Consensuses - before.Consensuses; n != rounds || after.Failed != 0 || after.Now.Known != 5 || after.Now.Running != 5 {
			t.Errorf("%d consensuses in %d rounds: %+v", n, rounds, after)
		}
		for w := range words {
			said, heard := after.Said[w]-before.Said[w], after.Heard[w]-before.Heard[w]
			if said != rounds || heard != 3*rounds || after.Refused[w] != 0 {
				t.Errorf("%v: said %d, heard %d, refused %d", w, said, heard, after.Refused[w])
			}
		}
		p.setCut(func(from, to int) bool { return from == lonely || to == lonely })
		before, alone := pass(1)
		after, cut := pass(rounds)
		if n := after.Heard[WordVote] - before.Heard[WordVote]; n != 2*rounds {
			t.Errorf("heard %d votes in %d rounds with one authority cut off", n, rounds)
		}
		if made, failed := cut.Consensuses-alone.Consensuses, cut.Failed-alone.Failed; made != 0 || failed != rounds {
			t.Errorf("cut off: %d consensuses, %d failed", made, failed)
		}
	})
}

// Proofs of lies are counted, and words that are refused.
func TestStatsOfLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParliament(t, 4, nil)
		p.tamper = p.revote(liar, func(to int, v *netdoc.Vote) {
			if to == 2 {
				v.Relays = nil
			}
		})
		p.relays(upTo(4), 0, 5)
		p.start(0, 1, 2, 3)
		defer p.stop(0, 1, 2, 3)
		await(p.Params.NextRound(p.Params.NextRound(time.Now())))
		if s := authority(p.voters[0]).Stats(); s.Proofs == 0 {
			t.Errorf("no proof: %+v", s)
		}
		v := p.voters[0]
		if err := v.take(WordVote, []byte("nonsense"), wire.ID{}); err == nil {
			t.Error("nonsense was taken")
		} else {
			v.counts.took(WordVote, err)
		}
		if s := authority(v).Stats(); s.Refused[WordVote] != 1 {
			t.Errorf("refused %v", s.Refused)
		}
	})
}

func TestStatsOfRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := runField(t, nil)
		defer stop()
		dead := describeNow(t, 1)
		f.dead[dead.ID] = true
		for _, d := range []*netdoc.Descriptor{describeNow(t, 0), dead} {
			f.roster.admit(d, time.Now())
		}
		await(time.Now().Add(time.Minute + time.Second))
		if a, s := f.counts.answered.Load(), f.counts.silent.Load(); int(a) != 13 || int(s) != len(f.tries[dead.ID])/attempts || s == 0 {
			t.Errorf("%d answered, %d silent of %d", a, s, len(f.tries[dead.ID]))
		}
		var c voterCounts
		for _, r := range []directory.Result{directory.Added, directory.Known, directory.Known, directory.Refused} {
			c.registration(r)
		}
		v := &voter{roster: f.roster}
		v.counts.registration(directory.Refused)
		got := authority(v).Stats().Registrations
		if !maps.Equal(got, map[directory.Result]uint64{directory.Added: 0, directory.Known: 0, directory.Refused: 1}) || c.registered[1].Load() != 2 {
			t.Errorf("registrations %v", got)
		}
	})
}
