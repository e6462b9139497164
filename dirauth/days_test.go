package dirauth

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// trouble is what befalls one authority in one round.
type trouble int

const (
	nothing trouble = iota
	isDown
	isLate      // what it sends and is sent takes half an hour
	isRestarted // after its vote has gone out, with its store
	restartsTwice
	clockFast // by a minute
	clockSlow
	votesTwice      // another vote for each of the others
	votesForNobody  // the same vote for all, of relays that do not exist
	votesOfLastHour // what it said the last time
	saysGarbage
	troubles
)

func (k trouble) String() string {
	return [...]string{"nothing", "down", "late", "restarted", "restarted twice", "a minute fast", "a minute slow", "votes twice",
		"votes for relays that do not exist", "an old vote", "garbage"}[k]
}

// history is days of rounds in which one authority after another has every trouble.
type history struct {
	*parliament
	mu     sync.Mutex
	victim int
	kind   trouble

	relay []*netdoc.Descriptor
}

func (h *history) now() (victim int, kind trouble) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.victim, h.kind
}

// tamperNow is what the present trouble makes of what is posted.
func (h *history) tamperNow(from, to int, path string, body []byte) []byte {
	victim, kind := h.now()
	if from != victim {
		return body
	}
	switch kind {
	case votesTwice:
		return h.revote(victim, func(to int, v *netdoc.Vote) { v.Published -= int64(to) })(from, to, path, body)
	case votesForNobody:
		return h.revote(victim, func(_ int, v *netdoc.Vote) {
			for i := range v.Relays {
				v.Relays[i].ID[31] ^= 1
				v.Relays[i].Descriptor[0] ^= 1
			}
			slices.SortFunc(v.Relays, func(a, b netdoc.VoteEntry) int { return netdoc.CompareIDs(a.ID, b.ID) })
		})(from, to, path, body)
	case votesOfLastHour:
		if path == directory.VotePath {
			return h.vote(h.t, victim).Raw() // for a round long ago, signed
		}
	case saysGarbage:
		return []byte("garbage")
	}
	return body
}

// round lets a round pass in which a trouble befalls an authority, and checks what the others make of it.
func (h *history) round(victim int, kind trouble, validAfter time.Time) {
	h.t.Helper()
	h.mu.Lock()
	h.victim, h.kind = victim, kind
	h.mu.Unlock()
	switch kind {
	case clockFast:
		h.restart(victim, time.Minute)
	case clockSlow:
		h.restart(victim, -time.Minute)
	}
	h.tested()
	times := newSchedule(h.Params, validAfter)
	if kind == isRestarted || kind == restartsTwice {
		await(times.open.Add(7 * time.Millisecond)) // votes have arrived, echoes are under way
		h.restart(victim, 0)
	}
	if kind == restartsTwice {
		await(times.votesBy.Add(time.Millisecond))
		h.restart(victim, 0)
	}
	await(validAfter)
	honest := slices.DeleteFunc(upTo(4), func(i int) bool { return i == victim && kind != nothing })
	c := h.agreed(validAfter, honest...)
	if len(c.Relays) != len(h.relay) {
		h.t.Errorf("%v, %v: %d relays are in, want %d", validAfter, kind, len(c.Relays), len(h.relay))
	}
	want := 3
	if kind == nothing || kind == clockFast || kind == clockSlow || kind == isRestarted {
		want = 4 // in rounds of an hour a minute does not matter, and a restart costs nothing
	}
	if len(c.Voters) < want {
		h.t.Errorf("%v, %v: %d votes count, want %d", validAfter, kind, len(c.Voters), want)
	}
	await(validAfter.Add(20 * time.Minute)) // the victim asks the others
	if got := h.voters[victim].follower.Current(); kind != isDown && kind != isLate && (got == nil || got.Digest() != c.Digest()) {
		h.t.Errorf("%v, %v: the authority does not serve what the others do", validAfter, kind)
	}
	h.mu.Lock()
	h.kind = nothing
	h.mu.Unlock()
	if kind == clockFast || kind == clockSlow {
		h.restart(victim, 0)
	}
}

// restart ends an authority in the middle of whatever it does, and starts it again from its store.
func (h *history) restart(i int, skew time.Duration) {
	h.stop(i)
	h.skew[i] = skew
	h.make(i)
	h.start(i)
	h.tested()
}

// tested is what relays and tests do once per round: those that an authority lacks register, and all answer.
func (h *history) tested() {
	for i, d := range h.relay {
		if time.Since(time.UnixMilli(d.Published)) > 8*time.Hour {
			h.relay[i] = describeNow(h.t, i)
		}
	}
	for _, v := range h.voters {
		for _, d := range h.relay {
			if got := v.roster.admit(d, time.Now()); got.Result == directory.Refused {
				h.t.Errorf("a relay is refused: %v", got)
			}
			v.roster.tested(d, true, time.Now())
		}
	}
}

// TestDays votes hourly for six days. In each round something is wrong with one authority, in turn with
// each; the other three publish the same consensus with every relay, at its time, round after round, and
// at the end there is proof against those that voted twice, and against nobody else.
func TestDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		days := 6
		if testing.Short() {
			days = 2
		}
		h := &history{parliament: newParliament(t, 4, func(p *netdoc.Params) { p.Round = netdoc.Duration(time.Hour) })}
		h.parliament.cut = func(from, to int) bool {
			victim, kind := h.now()
			return kind == isDown && (from == victim || to == victim)
		}
		h.parliament.delay = func(from, to int) time.Duration {
			if victim, kind := h.now(); kind == isLate && (from == victim || to == victim) {
				return 30 * time.Minute
			}
			return 50 * time.Millisecond
		}
		h.parliament.tamper = h.tamperNow
		for i := range 7 {
			h.relay = append(h.relay, describeNow(t, i))
		}
		h.start(0, 1, 2, 3)
		defer h.stop(0, 1, 2, 3)
		liars := map[int]bool{}
		validAfter := h.Params.NextRound(h.Params.NextRound(time.Now()))
		for k := range days * 24 {
			victim, kind := (k/int(troubles))%4, trouble(k%int(troubles))
			h.round(victim, kind, validAfter)
			if kind == votesTwice {
				liars[victim] = true
			}
			validAfter = h.Params.NextRound(validAfter)
		}
		for i := range 4 {
			for c := range h.proofs(i) {
				if !liars[h.index(c.authority)] {
					t.Errorf("authority %d has proof against authority %d", i, h.index(c.authority))
				}
			}
			for liar := range liars {
				if liar != i && !h.proofs(i)[culprit{h.Authorities[liar].ID, WordVote}] {
					t.Errorf("authority %d keeps no proof against authority %d", i, liar)
				}
			}
		}
	})
}

// What proves a lie is in the log, in the store after a restart, and what an Authority shows.
func TestProofIsShown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	synctest.Test(t, func(t *testing.T) {
		p := newParliament(t, 4, nil)
		var log strings.Builder
		var err error
		if p.stores[0], err = OpenStore(path); err != nil {
			t.Fatal(err)
		}
		p.logs[0] = slog.New(slog.NewTextHandler(&log, nil))
		p.make(0)
		p.tamper = p.revote(liar, func(to int, v *netdoc.Vote) { v.Published += int64(to) })
		p.start(0, 1, 2, 3)
		await(p.Params.NextRound(p.Params.NextRound(time.Now())))
		p.stop(0, 1, 2, 3)
		p.stores[0].(*FileStore).Close()
		if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "authority=authority4 word=vote") {
			t.Errorf("the log says %s", text)
		}
		if p.stores[0], err = OpenStore(path); err != nil {
			t.Fatal(err)
		}
		defer p.stores[0].(*FileStore).Close()
		if !p.proofs(0)[culprit{p.Authorities[liar].ID, WordVote}] {
			t.Error("the proof is not there after a restart")
		}
		p.make(0)
		shown, err := (&Authority{voter: p.voters[0]}).Proofs()
		if err != nil || len(shown) == 0 || shown[0].Authority != p.Authorities[liar].ID {
			t.Errorf("shown: %d proofs, %v", len(shown), err)
		}
	})
}
