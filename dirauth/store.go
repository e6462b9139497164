package dirauth

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// Word is a kind of statement that an authority makes once per round.
type Word uint8

// The words.
const (
	WordVote Word = iota
	WordEcho
	WordSignature
	words
)

func (w Word) String() string {
	if w >= words {
		return fmt.Sprintf("word %d", uint8(w))
	}
	return [...]string{"vote", "echo", "signature"}[w]
}

// ErrOldRound is returned by Store.Say for a round before one that was spoken in already.
var ErrOldRound = errors.New("dirauth: a later round was spoken in already")

// Store keeps what an authority must not forget. Its methods are safe for concurrent use, and what they
// were given is on stable storage when they return nil.
type Store interface {
	// Say records a word for a round and returns what is to be sent: raw if it is the first of its kind
	// for that round, else the one recorded then. Rounds only go forward: a word for an earlier round
	// than the last of its kind is ErrOldRound. After any error the authority stays silent in the round.
	Say(w Word, validAfter time.Time, raw []byte) ([]byte, error)

	// SaveDescriptor keeps a relay's newest descriptor, and Descriptors returns all that are kept.
	SaveDescriptor(id wire.ID, raw []byte) error
	Descriptors() ([][]byte, error)

	// SaveRecords keeps what is known of relays, all of them or none, each in place of the record that
	// was kept of its relay; Records returns all that are kept.
	SaveRecords(records []Record) error
	Records() ([]Record, error)

	// Forget drops the descriptors and records of relays.
	Forget(ids ...wire.ID) error

	// SaveConsensus keeps the newest signed consensus, and Consensus returns it, nil if there is none.
	SaveConsensus(raw []byte) error
	Consensus() ([]byte, error)

	// SaveProof keeps a proof of misconduct: of each authority the newest maxProofs. Proofs returns them,
	// in the order in which they were saved.
	SaveProof(Proof) error
	Proofs() ([]Proof, error)
}

// maxProofs bounds the proofs of misconduct that are kept of one authority. One is enough to strike it off,
// and it cannot push out those of another.
const maxProofs = 8

// Record is what an authority has learnt of a relay by testing it. Times are Unix milliseconds.
type Record struct {
	ID         wire.ID  `cbor:"1,keyasint"`
	Added      int64    `cbor:"2,keyasint"` // when it came first
	Running    bool     `cbor:"3,keyasint"` // what the latest test said
	Since      int64    `cbor:"4,keyasint"` // when the tests began to say so
	Seen       int64    `cbor:"5,keyasint"` // when the latest test ended
	Answered   int64    `cbor:"6,keyasint"` // when the latest test that succeeded ended; 0: none did
	Measured   []uint64 `cbor:"7,keyasint"` // the latest measurements in bytes per second, the newest last
	MeasuredAt int64    `cbor:"8,keyasint"` // when the newest was made; 0: none was
}

// Proof shows that an authority signed two different words of one kind for one round. Whoever has the
// network file can verify it.
type Proof struct {
	Authority  wire.ID `cbor:"1,keyasint"`
	Word       Word    `cbor:"2,keyasint"`
	ValidAfter int64   `cbor:"3,keyasint"` // Unix milliseconds
	First      []byte  `cbor:"4,keyasint"` // the signed documents
	Second     []byte  `cbor:"5,keyasint"`
}

// Verify checks that both documents are words of the kind, of one round, signed by the authority, and that
// they are different.
func (p Proof) Verify(n *netdoc.Network) error {
	for _, raw := range [][]byte{p.First, p.Second} {
		said, err := parseWord(p.Word, raw, n)
		if err != nil {
			return err
		}
		if said.authority != p.Authority || said.validAfter != p.ValidAfter {
			return fmt.Errorf("dirauth: a %v of another authority or round", p.Word)
		}
	}
	if bytes.Equal(p.First, p.Second) {
		return fmt.Errorf("dirauth: one %v twice proves nothing", p.Word)
	}
	return nil
}

// String says in one line what is proven.
func (p Proof) String() string {
	return fmt.Sprintf("authority %s signed two different words (%v) for the round of %s",
		p.Authority.Short(), p.Word, time.UnixMilli(p.ValidAfter).UTC().Format(time.RFC3339))
}

// said is the last word of a kind.
type said struct {
	validAfter time.Time
	raw        []byte
}

// memory is a Store that lives as long as its process.
type memory struct {
	mu          sync.Mutex
	last        [words]said
	descriptors map[wire.ID][]byte
	records     map[wire.ID]Record
	consensus   []byte
	proofs      []Proof
}

// NewMemoryStore returns a Store that forgets everything with its process. It suits authorities that do
// not come back with the same identity, as those of an embedded network: one that restarts within a round
// and has forgotten its vote would sign a second one.
func NewMemoryStore() Store {
	return &memory{descriptors: map[wire.ID][]byte{}, records: map[wire.ID]Record{}}
}

func (m *memory) Say(w Word, validAfter time.Time, raw []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w >= words {
		return nil, fmt.Errorf("dirauth: %v is not a word", w)
	}
	last := &m.last[w]
	switch {
	case last.raw == nil || validAfter.After(last.validAfter):
		*last = said{validAfter, slices.Clone(raw)}
		return raw, nil
	case validAfter.Equal(last.validAfter):
		return slices.Clone(last.raw), nil
	default:
		return nil, ErrOldRound
	}
}

func (m *memory) SaveDescriptor(id wire.ID, raw []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.descriptors[id] = slices.Clone(raw)
	return nil
}

func (m *memory) Descriptors() ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.descriptors)), nil
}

func (m *memory) SaveRecords(records []Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		r.Measured = slices.Clone(r.Measured)
		m.records[r.ID] = r
	}
	return nil
}

func (m *memory) Records() ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.records)), nil
}

func (m *memory) Forget(ids ...wire.ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.descriptors, id)
		delete(m.records, id)
	}
	return nil
}

func (m *memory) SaveConsensus(raw []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.consensus = slices.Clone(raw)
	return nil
}

func (m *memory) Consensus() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.consensus), nil
}

func (m *memory) SaveProof(p Proof) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proofs = append(m.proofs, p)
	if against := filter(m.proofs, func(q Proof) bool { return q.Authority == p.Authority }); len(against) > maxProofs {
		oldest := slices.IndexFunc(m.proofs, func(q Proof) bool { return q.Authority == p.Authority })
		m.proofs = slices.Delete(m.proofs, oldest, oldest+1)
	}
	return nil
}

func (m *memory) Proofs() ([]Proof, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.proofs), nil
}
