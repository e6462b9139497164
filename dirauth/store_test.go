package dirauth

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// eachStore runs a test on every kind of store.
func eachStore(t *testing.T, f func(t *testing.T, s Store)) {
	t.Run("memory", func(t *testing.T) { f(t, NewMemoryStore()) })
	t.Run("file", func(t *testing.T) { f(t, openStore(t, filepath.Join(t.TempDir(), "store"))) })
}

func openStore(t *testing.T, path string) *FileStore {
	t.Helper()
	s, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// The first word for a round is the only one, and rounds only go forward.
func TestStoreSays(t *testing.T) {
	eachStore(t, func(t *testing.T, s Store) {
		for _, tt := range []struct {
			word Word
			at   time.Duration
			raw  string
			want string // "": refused
		}{
			{WordVote, 0, "vote", "vote"},
			{WordVote, 0, "other vote", "vote"},
			{WordEcho, 0, "echo", "echo"},
			{WordVote, time.Second, "next vote", "next vote"},
			{WordVote, 0, "vote", ""},
			{WordSignature, 0, "signature", "signature"},
			{WordSignature, 0, "signature2", "signature"},
			{WordVote, time.Second, "", "next vote"},
		} {
			got, err := s.Say(tt.word, validAfter.Add(tt.at), []byte(tt.raw))
			if tt.want == "" && !errors.Is(err, ErrOldRound) || tt.want != "" && err != nil || string(got) != tt.want {
				t.Errorf("say %v %q: %q, %v; want %q", tt.word, tt.raw, got, err, tt.want)
			}
		}
		if _, err := s.Say(words, validAfter, nil); err == nil {
			t.Error("what is no word was recorded")
		}
	})
}

func TestStoreKeeps(t *testing.T) {
	eachStore(t, func(t *testing.T, s Store) {
		if c, err := s.Consensus(); c != nil || err != nil {
			t.Errorf("a consensus in an empty store: %v", err)
		}
		raw := []byte("consensus")
		if err := s.SaveConsensus(raw); err != nil {
			t.Fatal(err)
		}
		raw[0] = 'X' // the store's copy is its own
		if c, _ := s.Consensus(); string(c) != "consensus" {
			t.Errorf("consensus %q", c)
		}
		id, other := wire.ID{1}, wire.ID{2}
		known := []Record{{ID: id, Added: 1, Running: true, Since: 2, Seen: 4, Answered: 3, Measured: []uint64{5, 6}, MeasuredAt: 7}, {ID: other, Added: 8}}
		if err := errors.Join(s.SaveDescriptor(id, []byte("one")), s.SaveDescriptor(other, []byte("two")), s.SaveRecords(known)); err != nil {
			t.Fatal(err)
		}
		if got := contentOf(t, s); len(got.descriptors) != 2 || !slices.EqualFunc(got.records, known, equalRecords) {
			t.Errorf("kept: %+v", got)
		}
		if err := s.Forget(id); err != nil {
			t.Fatal(err)
		}
		if got := contentOf(t, s); len(got.descriptors) != 1 || string(got.descriptors[0]) != "two" || len(got.records) != 1 {
			t.Errorf("kept after one was forgotten: %+v", got)
		}
	})
}

// An authority that gives proof after proof pushes out its own only.
func TestStoreKeepsProofs(t *testing.T) {
	eachStore(t, func(t *testing.T, s Store) {
		once := Proof{Authority: wire.ID{9}, Word: WordEcho, ValidAfter: 1, First: []byte("a"), Second: []byte("b")}
		if err := s.SaveProof(once); err != nil {
			t.Fatal(err)
		}
		for i := range maxProofs + 5 {
			if err := s.SaveProof(Proof{Authority: wire.ID{1}, ValidAfter: int64(i)}); err != nil {
				t.Fatal(err)
			}
		}
		kept, _ := s.Proofs()
		if len(kept) != 1+maxProofs || !equalProofs(kept[0], once) || kept[1].ValidAfter != 5 {
			t.Errorf("%d proofs, want one, and the newest %d of another authority", len(kept), maxProofs)
		}
	})
}

// A proof is one only if all of it is as it says.
func TestProofVerifies(t *testing.T) {
	w := newTown(4)
	vote := func(i int, change func(*netdoc.Vote)) []byte { return w.voteWith(t, i, change).Raw() }
	first := vote(1, nil)
	second := vote(1, func(v *netdoc.Vote) { v.Published++ })
	honest := Proof{Authority: w.Authorities[1].ID, Word: WordVote, ValidAfter: validAfter.UnixMilli(), First: first, Second: second}
	if err := honest.Verify(w.Network); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Proof){
		"one word twice":      func(p *Proof) { p.Second = first },
		"of another":          func(p *Proof) { p.Authority = w.Authorities[2].ID },
		"one of another":      func(p *Proof) { p.Second = vote(2, nil) },
		"of another round":    func(p *Proof) { p.ValidAfter++ },
		"one of another's":    func(p *Proof) { p.First = vote(1, func(v *netdoc.Vote) { v.ValidAfter += 5000 }) },
		"of another kind":     func(p *Proof) { p.Word = WordEcho },
		"of no kind":          func(p *Proof) { p.Word = words },
		"a broken signature":  func(p *Proof) { p.First = slices.Clone(first); p.First[len(first)-1] ^= 1 },
		"nothing in one half": func(p *Proof) { p.Second = nil },
	} {
		p := honest
		change(&p)
		if err := p.Verify(w.Network); err == nil {
			t.Errorf("%s: %v", name, p)
		}
	}
}

// content is what a store keeps, in an order of its own.
type content struct {
	descriptors [][]byte
	records     []Record
	consensus   []byte
	proofs      []Proof
}

func contentOf(t *testing.T, s Store) content {
	t.Helper()
	var c content
	var errs [4]error
	c.descriptors, errs[0] = s.Descriptors()
	c.records, errs[1] = s.Records()
	c.consensus, errs[2] = s.Consensus()
	c.proofs, errs[3] = s.Proofs()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(c.descriptors, bytes.Compare)
	slices.SortFunc(c.records, func(a, b Record) int { return netdoc.CompareIDs(a.ID, b.ID) })
	return c
}

func (c content) equal(d content) bool {
	return slices.EqualFunc(c.descriptors, d.descriptors, bytes.Equal) &&
		slices.EqualFunc(c.records, d.records, equalRecords) && bytes.Equal(c.consensus, d.consensus) &&
		slices.EqualFunc(c.proofs, d.proofs, equalProofs)
}

func equalRecords(a, b Record) bool {
	measured := slices.Equal(a.Measured, b.Measured)
	return measured && a.ID == b.ID && a.Added == b.Added && a.Running == b.Running && a.Since == b.Since &&
		a.Seen == b.Seen && a.Answered == b.Answered && a.MeasuredAt == b.MeasuredAt
}

func equalProofs(a, b Proof) bool {
	return a.Authority == b.Authority && a.Word == b.Word && a.ValidAfter == b.ValidAfter &&
		bytes.Equal(a.First, b.First) && bytes.Equal(a.Second, b.Second)
}
