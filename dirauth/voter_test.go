package dirauth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// Authorities of any number agree in every round, short ones and long ones, and serve the document when
// its time comes.
func TestEveryRound(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7} {
		t.Run(fmt.Sprintf("n=%d", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newParliament(t, n, initial)
				all := upTo(n)
				p.relays(all, 0, 6)
				p.start(all...)
				defer p.stop(all...)
				validAfter := p.Params.NextRound(time.Now())
				for k := range 8 {
					await(validAfter)
					c := p.agreed(validAfter, all...)
					if len(c.Relays) != 6 || len(c.Voters) != n {
						t.Fatalf("round %d: %d relays, %d voters", k, len(c.Relays), len(c.Voters))
					}
					validAfter = p.Params.NextRound(validAfter)
				}
			})
		})
	}
}

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// All four answer: the document is signed long before its time, a few messages after voting began.
func TestFourThatAnswerAreDoneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParliament(t, 4, nil)
		p.start(0, 1, 2, 3)
		defer p.stop(0, 1, 2, 3)
		times := newSchedule(p.Params, p.Params.NextRound(p.Params.NextRound(time.Now())))
		await(times.open.Add(15 * time.Millisecond)) // vote, echo, endorsement: 5 ms each
		for i, v := range p.voters {
			v.mu.Lock()
			r := v.rounds[times.validAfter.UnixMilli()]
			if r == nil || r.phase != signing || len(r.signatures) != 4 {
				t.Errorf("authority %d is not through", i)
			}
			v.mu.Unlock()
		}
	})
}

// liar is the authority with the faults.
const liar = 3

var faults = map[string]func(*parliament){
	"down": func(p *parliament) {
		p.cut = func(from, to int) bool { return from == liar || to == liar }
	},
	"late": func(p *parliament) {
		p.delay = func(from, to int) time.Duration {
			if from == liar || to == liar {
				return 4 * time.Second
			}
			return 5 * time.Millisecond
		}
	},
	"heard by one only": func(p *parliament) {
		p.cut = func(from, to int) bool { return from == liar && to != 0 }
	},
	"heard by two only": func(p *parliament) {
		p.cut = func(from, to int) bool { return from == liar && to == 0 }
	},
	"echoes to one only": func(p *parliament) {
		p.tamper = func(from, to int, path string, body []byte) []byte {
			if from == liar && path == directory.EchoPath && to != 1 {
				return nil
			}
			return body
		}
	},
	"garbage": func(p *parliament) {
		p.tamper = func(from, to int, path string, body []byte) []byte {
			if from == liar {
				return []byte("garbage")
			}
			return body
		}
	},
	"another vote for each": func(p *parliament) {
		p.tamper = p.revote(liar, func(to int, v *netdoc.Vote) { v.Published += int64(to) })
	},
	"another vote for one": func(p *parliament) {
		p.tamper = p.revote(liar, func(to int, v *netdoc.Vote) {
			if to == 2 {
				v.Relays = nil
			}
		})
	},
	"another vote for one, hidden": func(p *parliament) {
		p.tamper = p.revote(liar, func(to int, v *netdoc.Vote) {
			if to == 2 {
				v.Relays = nil
			}
		})
		p.forge = func(from, of int, path string) ([]byte, bool) {
			return []byte("no"), of == liar && strings.HasPrefix(path, directory.VotePath)
		}
	},
	"invented relays and descriptors": func(p *parliament) {
		p.tamper = p.revote(liar, func(_ int, v *netdoc.Vote) {
			for i := range v.Relays {
				v.Relays[i].Descriptor = netdoc.DigestOf([]byte{byte(i)})
				v.Relays[i].Published += 3600_000
			}
			d := describeNow(p.t, 99)
			v.Relays = append(v.Relays, runs(d))
			slices.SortFunc(v.Relays, func(a, b netdoc.VoteEntry) int { return netdoc.CompareIDs(a.ID, b.ID) })
		})
	},
	"invented digests in its echo": func(p *parliament) {
		p.tamper = func(from, to int, path string, body []byte) []byte {
			if from != liar || path != directory.EchoPath {
				return body
			}
			e, err := netdoc.ParseEcho(body, p.Network)
			if err != nil {
				p.t.Error(err)
				return nil
			}
			for i := range e.Votes {
				e.Votes[i].Digest = netdoc.DigestOf([]byte{byte(i), byte(to)})
			}
			return p.signEcho(p.t, liar, e).Raw()
		}
	},
	"signs other documents": func(p *parliament) {
		p.tamper = func(from, to int, path string, body []byte) []byte {
			if from != liar || path != directory.SignaturePath {
				return body
			}
			e, err := netdoc.ParseEndorsement(body, p.Network)
			if err != nil {
				p.t.Error(err)
				return nil
			}
			e.Value[to]++
			raw, err := e.Sign(p.keys[liar])
			if err != nil {
				p.t.Error(err)
			}
			return raw
		}
	},
	"brings the words of others": func(p *parliament) {
		stolen := p.vote(p.t, 0).Raw()
		p.tamper = func(from, to int, path string, body []byte) []byte {
			if from == liar && path == directory.VotePath {
				return stolen
			}
			return body
		}
	},
	"its clock a minute fast": func(p *parliament) {
		p.skew[liar] = time.Minute
		p.make(liar)
	},
	"its clock a minute slow": func(p *parliament) {
		p.skew[liar] = -time.Minute
		p.make(liar)
	},
	"an old vote": func(p *parliament) {
		var first []byte
		p.tamper = func(from, to int, path string, body []byte) []byte {
			if from != liar || path != directory.VotePath {
				return body
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if first == nil {
				first = body
			}
			return first
		}
	},
	"votes for another round": func(p *parliament) {
		p.tamper = p.revote(liar, func(_ int, v *netdoc.Vote) { v.ValidAfter -= 5000 })
	},
}

// Whatever one of four authorities does, the other three serve the same document at its time, with every
// relay that they know and no other.
func TestOneFaulty(t *testing.T) {
	for name, setUp := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newParliament(t, 4, nil)
				setUp(p)
				p.relays(upTo(4), 0, 5)
				p.start(0, 1, 2, 3)
				defer p.stop(0, 1, 2, 3)
				validAfter := p.Params.NextRound(p.Params.NextRound(time.Now()))
				for range 5 {
					await(validAfter)
					c := p.agreed(validAfter, 0, 1, 2)
					if len(c.Relays) != 5 {
						t.Errorf("%d relays are in, want 5", len(c.Relays))
					}
					validAfter = p.Params.NextRound(validAfter)
				}
				for i := range 3 {
					for c := range p.proofs(i) {
						if c.authority != p.Authorities[liar].ID {
							t.Errorf("authority %d has proof against an honest one", i)
						}
					}
				}
			})
		})
	}
}

// revote returns a tamper that has the liar sign changed votes, another one for each receiver.
func (p *parliament) revote(liar int, change func(to int, v *netdoc.Vote)) func(from, to int, path string, body []byte) []byte {
	return func(from, to int, path string, body []byte) []byte {
		if from != liar || path != directory.VotePath {
			return body
		}
		v, err := netdoc.ParseVote(body, p.Network)
		if err != nil {
			p.t.Error(err)
			return nil
		}
		changed := *v
		changed.Relays = slices.Clone(v.Relays)
		change(to, &changed)
		raw, err := changed.Sign(p.keys[liar])
		if err != nil {
			p.t.Error(err)
		}
		return raw
	}
}

// An authority that votes twice is left out by all, and all who met it keep the proof.
func TestEquivocatorIsLeftOut(t *testing.T) {
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
		validAfter := p.Params.NextRound(p.Params.NextRound(time.Now()))
		await(validAfter)
		c := p.agreed(validAfter, 0, 1, 2)
		for _, v := range c.Voters {
			if v.Authority == p.Authorities[liar].ID {
				t.Error("the vote of one that voted twice counts")
			}
		}
		for i := range 3 {
			if !p.proofs(i)[culprit{p.Authorities[liar].ID, WordVote}] {
				t.Errorf("authority %d keeps no proof", i)
			}
		}
	})
}

// With two of four down there is no new document, and the old one stays; when one is back there is.
func TestTwoDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParliament(t, 4, nil)
		p.relays(upTo(4), 0, 5)
		p.start(0, 1, 2, 3)
		defer p.stop(0, 1)
		last := p.Params.NextRound(p.Params.NextRound(time.Now()))
		await(last)
		before := p.agreed(last, 0, 1, 2, 3)
		p.stop(2, 3)
		p.setCut(func(from, to int) bool { return to >= 2 })
		await(last.Add(30 * time.Second))
		for i := range 2 {
			if c := p.voters[i].follower.Current(); c.Digest() != before.Digest() {
				t.Errorf("authority %d has a consensus of the round of %v", i, time.UnixMilli(c.ValidAfter))
			}
		}
		p.setCut(func(from, to int) bool { return to == 3 })
		p.start(2)
		defer p.stop(2)
		next := p.Params.NextRound(p.Params.NextRound(time.Now()))
		await(next)
		p.agreed(next, 0, 1, 2)
	})
}

// An authority that is too late for a round serves what the others made of it soon after.
func TestLateAuthorityFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParliament(t, 4, nil)
		p.relays(upTo(3), 0, 5)
		p.start(0, 1, 2)
		defer p.stop(0, 1, 2)
		first := p.Params.NextRound(p.Params.NextRound(time.Now()))
		await(first.Add(-time.Second)) // after the echoes
		p.start(3)
		defer p.stop(3)
		await(first.Add(time.Second))
		c := p.agreed(first, 0, 1, 2)
		if got := p.voters[3].follower.Current(); got == nil || got.Digest() != c.Digest() {
			t.Error("the late authority does not serve the others' consensus")
		}
		// It knows no relay, and learns the descriptors from the round.
		next := p.Params.NextRound(first)
		await(next)
		p.agreed(next, 0, 1, 2, 3)
		if _, known := p.voters[3].roster.running(); known != 5 {
			t.Errorf("the late authority knows %d relays, want 5", known)
		}
	})
}

// An authority that crashes after voting, and comes back with its store and other relays in mind, says the
// same again.
func TestRestartRepeatsTheVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParliament(t, 4, nil)
		p.relays(upTo(4), 0, 5)
		p.start(0, 1, 2, 3)
		defer p.stop(0, 1, 2, 3)
		times := newSchedule(p.Params, p.Params.NextRound(p.Params.NextRound(time.Now())))
		await(times.open.Add(7 * time.Millisecond)) // votes have arrived, echoes are under way
		p.stop(3)
		p.make(3)
		p.relays(upTo(4), 5, 3)
		p.start(3)
		await(times.validAfter)
		c := p.agreed(times.validAfter, 0, 1, 2, 3)
		if len(c.Voters) != 4 || len(c.Relays) != 5 {
			t.Errorf("%d voters, %d relays", len(c.Voters), len(c.Relays))
		}
		for i := range 4 {
			if len(p.proofs(i)) != 0 {
				t.Errorf("authority %d has proof against somebody", i)
			}
		}
	})
}

// A store that fails silences its authority, in words that it could not record.
func TestNoWordWithoutRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParliament(t, 4, nil)
		p.stores[3] = mute{p.stores[3]}
		p.make(3)
		p.tamper = func(from, _ int, path string, body []byte) []byte {
			if from == 3 {
				t.Errorf("a word was sent to %s that could not be recorded", path)
			}
			return body
		}
		p.start(0, 1, 2, 3)
		defer p.stop(0, 1, 2, 3)
		validAfter := p.Params.NextRound(p.Params.NextRound(time.Now()))
		await(validAfter)
		p.agreed(validAfter, 0, 1, 2)
	})
}

// mute is a store that records nothing.
type mute struct{ Store }

func (mute) Say(Word, time.Time, []byte) ([]byte, error) { return nil, errors.New("disk full") }

// Words are taken for the present and the next round only, from whom they are by.
func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParliament(t, 4, nil)
		v := p.voters[0]
		present := v.present(time.Now())
		round := time.Duration(p.Params.Round)
		for _, tt := range []struct {
			name string
			at   time.Time
			from int
			want error
		}{
			{"present", present, 1, nil},
			{"again", present, 1, nil},
			{"next", present.Add(round), 1, nil},
			{"after next", present.Add(2 * round), 1, errEarly},
			{"no round's time", present.Add(time.Millisecond), 1, errEarly},
			{"over", present.Add(-round), 1, errOver},
			{"another's", present, 2, errAuthor},
		} {
			vote := p.voteWith(t, 1, func(v *netdoc.Vote) { v.ValidAfter = tt.at.UnixMilli() })
			if err := v.take(WordVote, vote.Raw(), p.Authorities[tt.from].ID); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		}
		if len(v.rounds) != 2 {
			t.Errorf("%d rounds are open, want 2", len(v.rounds))
		}
	})
}
