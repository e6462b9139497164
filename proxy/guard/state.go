package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"torproxy/wire"
)

// stateVersion is of the form that Encode writes.
const stateVersion = 1

// MaxState bounds what Encode writes and Parse reads.
const MaxState = 32 << 10

// The state as it is kept: JSON, in one form only, so that any damage shows.
type stateDoc struct {
	Version int        `json:"version"`
	Network string     `json:"network"`
	Guards  []guardDoc `json:"guards"` // in the order sampled
}

type guardDoc struct {
	ID        wire.ID    `json:"id"`
	Added     time.Time  `json:"added"`
	Confirmed *time.Time `json:"confirmed,omitempty"`
	Rank      int        `json:"rank,omitempty"` // among those confirmed, from 1
	Unlisted  *time.Time `json:"unlisted,omitempty"`
}

// ErrVersion says that a state was written by a later version of this program.
var ErrVersion = errors.New("guard: the state is of a version that is not known here")

// ErrNetwork says that a state is of another network.
var ErrNetwork = errors.New("guard: the state is of another network")

// Encode returns what is kept over a restart, as JSON; nothing else of the state is. It tells which relays
// this client enters the network by: keep it from others.
func (s *State) Encode() []byte {
	doc := stateDoc{Version: stateVersion, Network: s.network, Guards: []guardDoc{}}
	for _, g := range s.sample {
		d := guardDoc{ID: g.id, Added: g.added, Rank: slices.Index(s.chosen, g) + 1}
		if !g.confirmed.IsZero() {
			d.Confirmed = &g.confirmed
		}
		if !g.unlisted.IsZero() {
			d.Unlisted = &g.unlisted
		}
		doc.Guards = append(doc.Guards, d)
	}
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		panic("guard: " + err.Error()) // no such value exists: dates are of consensuses, and bounded there
	}
	return append(data, '\n')
}

// Parse reads what Encode wrote for the network of that name, and nothing else: an unknown field, another
// form of the same content or a value out of bounds is an error. After an error a client starts afresh, and
// keeps the damaged file for its user to look at.
func Parse(data []byte, network string, rnd *rand.Rand) (*State, error) {
	s, err := parse(data, network, rnd)
	if err != nil && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrNetwork) {
		return nil, fmt.Errorf("guard: the state is damaged: %w", err)
	}
	return s, err
}

func parse(data []byte, network string, rnd *rand.Rand) (*State, error) {
	if len(data) > MaxState {
		return nil, fmt.Errorf("%d bytes are more than %d", len(data), MaxState)
	}
	var version struct{ Version int }
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, err
	}
	if version.Version != stateVersion {
		return nil, ErrVersion
	}
	var doc stateDoc
	in := json.NewDecoder(bytes.NewReader(data))
	in.DisallowUnknownFields()
	if err := in.Decode(&doc); err != nil {
		return nil, err
	}
	if doc.Network != network {
		return nil, ErrNetwork
	}
	s := New(network, rnd)
	if err := s.restore(doc.Guards); err != nil {
		return nil, err
	}
	if !bytes.Equal(s.Encode(), data) {
		return nil, errors.New("not in the form in which it was written")
	}
	return s, nil
}

// restore makes the sample out of its document.
func (s *State) restore(docs []guardDoc) error {
	if len(docs) > maxSample {
		return fmt.Errorf("%d guards are more than %d", len(docs), maxSample)
	}
	ranks := map[int]*guard{}
	for _, d := range docs {
		g := &guard{id: d.ID, added: d.Added}
		if d.Confirmed != nil {
			g.confirmed = *d.Confirmed
		}
		if d.Unlisted != nil {
			g.unlisted = *d.Unlisted
		}
		switch {
		case g.id.IsZero() || s.find(g.id) != nil:
			return errors.New("a guard without an ID, or one twice")
		case !isDate(g.added) || d.Confirmed != nil && !isDate(g.confirmed) || d.Unlisted != nil && !isDate(g.unlisted):
			return errors.New("a date that is no whole hour, or long ago, or far ahead")
		case (d.Rank != 0) != (d.Confirmed != nil) || d.Rank < 0 || ranks[d.Rank] != nil:
			return errors.New("confirmed guards out of order")
		}
		if s.sample = append(s.sample, g); d.Rank > 0 {
			ranks[d.Rank] = g
		}
	}
	for rank := 1; rank <= len(ranks); rank++ {
		if ranks[rank] == nil {
			return errors.New("confirmed guards out of order")
		}
		s.chosen = append(s.chosen, ranks[rank])
	}
	return nil
}

func isDate(t time.Time) bool {
	return t.Location() == time.UTC && t.Year() >= 1990 && t.Year() < 2200 && t.Equal(t.Truncate(time.Hour))
}
