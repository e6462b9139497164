package dirauth

import (
	"errors"
	"testing"
	"time"

	"torproxy/wire"
)

// The first word for a round is the only one, and rounds only go forward.
func TestStoreSays(t *testing.T) {
	s := NewMemoryStore()
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
}

func TestStoreKeeps(t *testing.T) {
	s := NewMemoryStore()
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
	for i := range maxProofs + 5 {
		if err := s.SaveProof(Proof{Authority: wire.ID{byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if kept, _ := s.Proofs(); len(kept) != maxProofs || kept[0].Authority != (wire.ID{5}) {
		t.Errorf("%d proofs, want the newest %d", len(kept), maxProofs)
	}
}
