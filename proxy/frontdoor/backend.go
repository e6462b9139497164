package frontdoor

import (
	"encoding/json"
	"time"

	"torproxy/wire"
)

// Backend is what the front door shows and steers: the running client. All methods may be called
// concurrently, answer at once, and return snapshots that nobody changes any more.
type Backend interface {
	// Status is the state of the client.
	Status() Status
	// Circuits lists the circuits there are, oldest first.
	Circuits() []Circuit
	// CloseCircuit closes one circuit with its streams; false: there is none with this ID.
	CloseCircuit(id string) bool
	// Relays lists the relays of the consensus in use; empty before there is one.
	Relays() []Relay
	// NewIdentity sees to it that no later stream shares a circuit with an earlier one.
	NewIdentity()
}

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
)

// Hop is one relay of a circuit.
type Hop struct {
	ID       wire.ID `json:"id"`
	Nickname string  `json:"nickname"`
	Address  string  `json:"address"` // HOST:PORT
}

// Stream is one connection through a circuit.
type Stream struct {
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
