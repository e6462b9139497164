package frontdoor

import (
	"encoding/json"
	"errors"
	"time"

	"torproxy/wire"
)

// Backend is what the front door shows and steers: the running client. All methods may be called
// concurrently, answer at once unless they say otherwise, and return snapshots that nobody changes any more.
type Backend interface {
	// Status is the state of the client.
	Status() Status
	// Circuits lists the circuits there are, oldest first.
	Circuits() []Circuit
	// CloseCircuit closes one circuit with its streams; false: there is none with this ID.
	CloseCircuit(id string) bool
	// Relays lists the relays of the consensus in use; empty before there is one. With an embedded network
	// those of it are listed that the consensus lacks, too.
	Relays() []Relay
	// NewIdentity sees to it that no later stream shares a circuit with an earlier one.
	NewIdentity()
	// Changed returns a channel that is closed when circuits and streams next change. Whoever shows them
	// live looks once a second besides: for byte counts, relays and the rest.
	Changed() <-chan struct{}
	// Traffic is how much application data all circuits so far have carried, from and to their exits.
	Traffic() Traffic
	// Why tells of the last connections to a host, newest first; "" is all that are remembered.
	Why(host string) []Why
	// AddRelay adds a relay to the embedded network, StopRelay and StartRelay stop and start one; they may take
	// a second. The errors wrap ErrNotEmbedded, ErrNoRelay or ErrTooMany, or are the network's own.
	AddRelay() (wire.ID, error)
	StopRelay(id wire.ID) error
	StartRelay(id wire.ID) error
}

// Errors of steering relays.
var (
	ErrNotEmbedded = errors.New("only a network that runs inside this process can be changed from here")
	ErrNoRelay     = errors.New("there is no such relay")
	ErrTooMany     = errors.New("this process runs as many relays as it may")
)

// The JSON of /api/. The names are a contract; fields may be added. Every field is always there: lists may
// be empty but are never null, and of the others only times may be null.

// Status is the answer to GET /api/status.
type Status struct {
	Version   string    `json:"version"`   // of the program
	PID       int       `json:"pid"`       // of the process
	Hops      int       `json:"hops"`      // relays per circuit, 1 to 8
	Bootstrap Bootstrap `json:"bootstrap"` // how far the start is
	SOCKS     string    `json:"socks"`     // address really bound: HOST:PORT, or unix:/path
	HTTP      string    `json:"http"`      // address really bound: HOST:PORT
	Network   Network   `json:"network"`
}

// Ready reports whether the client can be used.
func (s Status) Ready() bool { return s.Bootstrap.Percent >= 100 }

// Bootstrap says how far the start is. At 100 percent the client is ready.
type Bootstrap struct {
	Percent int    `json:"percent"`
	Summary string `json:"summary"` // for a person: what is being waited for
}

// Network describes the network by the consensus in use; before the first one the counts of relays are 0
// and the times null.
type Network struct {
	Name        string `json:"name"`
	Embedded    bool   `json:"embedded"` // it runs inside this process: for trying out, no anonymity
	Relays      int    `json:"relays"`   // in the consensus
	Exits       int    `json:"exits"`    // of them
	Authorities int    `json:"authorities"`
	ValidAfter  Time   `json:"valid_after"`
	FreshUntil  Time   `json:"fresh_until"`
	ValidUntil  Time   `json:"valid_until"`
}

// Circuit is one element of the answer to GET /api/circuits.
type Circuit struct {
	ID       string       `json:"id"`
	State    CircuitState `json:"state"`
	Hops     List[Hop]    `json:"hops"` // in order, the guard first, the exit last
	Streams  List[Stream] `json:"streams"`
	BuiltMS  int64        `json:"built_ms"`  // how long building took, in ms; 0 while it is being built
	AgeS     int64        `json:"age_s"`     // seconds since building began
	BytesIn  uint64       `json:"bytes_in"`  // of application data, from the exit
	BytesOut uint64       `json:"bytes_out"` // of application data, to the exit
}

// CircuitState is what a circuit can be used for.
type CircuitState string

// The states of a circuit.
const (
	Building CircuitState = "building"
	Ready    CircuitState = "ready"
	Closing  CircuitState = "closing" // carries its streams to their end, gets no new ones
	Closed   CircuitState = "closed"  // only in events: it is no longer listed
)

// Hop is one relay of a circuit.
type Hop struct {
	ID       wire.ID `json:"id"`
	Nickname string  `json:"nickname"`
	Address  string  `json:"address"` // HOST:PORT
}

// Stream is one connection through a circuit.
type Stream struct {
	ID        string `json:"id"`        // of no other stream of this process
	Target    string `json:"target"`    // HOST:PORT as dialled
	Isolation string `json:"isolation"` // opaque label; never a user name or password
	OpenedMS  int64  `json:"opened_ms"` // how long opening took, in ms; 0 while it is being opened
}

// Relay is one element of the answer to GET /api/relays.
type Relay struct {
	ID       wire.ID      `json:"id"`
	Nickname string       `json:"nickname"`
	Address  string       `json:"address"` // HOST:PORT, the first one of the descriptor
	Flags    List[string] `json:"flags"`   // as in the consensus: "Exit", "Fast", ...
	Weight   uint64       `json:"weight"`  // bytes per second
	Running  bool         `json:"running"` // it can be used: so the consensus says, or it is embedded and we know
}

// Traffic counts bytes of application data; neither figure ever falls.
type Traffic struct {
	BytesIn  uint64 `json:"bytes_in"`  // from the exits
	BytesOut uint64 `json:"bytes_out"` // to them
}

// Why is one element of the answer to GET /api/why: what became of one connection, or of one attempt at it.
// It is kept in memory only.
type Why struct {
	Target    string       `json:"target"`    // HOST:PORT
	Isolation string       `json:"isolation"` // opaque label, as of a Stream
	Began     Time         `json:"began"`
	TookMS    int64        `json:"took_ms"`
	Outcome   string       `json:"outcome"` // a word for programs
	Error     string       `json:"error"`   // a sentence for a person; "" if it went well
	Path      List[string] `json:"path"`    // nicknames of the circuit's relays, the guard first; empty before there is one
	Steps     List[Step]   `json:"steps"`   // in order
}

// Step is one step of a connection.
type Step struct {
	What    string `json:"what"`    // "circuit", "build", "open", "first byte", ...
	Circuit string `json:"circuit"` // its ID, "" before there is one
	Hop     int    `json:"hop"`     // who said it: 0 this machine, 1 to 8 a relay
	Relay   string `json:"relay"`   // that relay's nickname, or ""
	TookMS  int64  `json:"took_ms"`
	Result  string `json:"result"`
}

// List is a slice that JSON shows as [] when it is nil.
type List[T any] []T

// MarshalJSON implements json.Marshaler.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if l == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]T(l))
}

// Time is a time that JSON shows in UTC by RFC 3339, to the millisecond where it has any, and as null when
// it is zero. Reading is time.Time's.
type Time struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(t.UTC().Truncate(time.Millisecond))
}
