package netdoc

import (
	"errors"
	"fmt"
	"time"
)

// Params are the network's parameters. All durations are whole milliseconds.
type Params struct {
	Round            Duration // from one consensus to the next
	Start            int64    // Unix milliseconds of the first round; 0: rounds have always run
	InitialRound     Duration // length of the first InitialRounds rounds after Start
	InitialRounds    int      // 0: none; else Start is set
	Valid            Duration // how long a consensus is valid; 0: three rounds, at least a minute
	MinRelays        int      // relays that must run before a client builds circuits
	PerAddress       int      // relays on one IP address; 0: no limit
	SubnetRule       bool     // no two hops of a circuit in one subnet
	OnionKeyLifetime Duration // how long a relay announces an onion key as its current one
}

// Bounds of parameters.
const (
	minRound         = 100 * time.Millisecond
	maxRound         = 7 * 24 * time.Hour
	minInitialRound  = 10 * time.Millisecond
	maxInitialRounds = 1000
	maxValid         = 10 * maxRound
	maxLifetime      = 365 * 24 * time.Hour
)

// Consensus returns the parameters that an authority with this network file votes for.
func (p Params) Consensus() ConsensusParams {
	return ConsensusParams{
		MinRelays:        p.MinRelays,
		PerAddress:       p.PerAddress,
		SubnetRule:       p.SubnetRule,
		OnionKeyLifetime: p.OnionKeyLifetime,
	}
}

func (p Params) check() error {
	var start, initial, valid error
	if p.Start != 0 {
		start = checkTime(p.Start)
	}
	if p.InitialRounds != 0 || p.InitialRound != 0 {
		initial = checkDuration(p.InitialRound, minInitialRound, time.Duration(p.Round))
		if p.Start == 0 {
			start = errors.New("is missing; initial rounds are counted from it")
		} else if p.InitialRounds == 0 {
			initial = errors.New("means nothing without initial_rounds")
		}
	}
	if p.Valid != 0 {
		valid = checkDuration(p.Valid, time.Duration(p.Round), maxValid)
	}
	return first(
		field("parameters.round", checkDuration(p.Round, minRound, maxRound)),
		field("parameters.start", start),
		field("parameters.initial_round", initial),
		field("parameters.initial_rounds", checkCount(p.InitialRounds, maxInitialRounds)),
		field("parameters.valid", valid),
		field("parameters.min_relays", checkCount(p.MinRelays, MaxRelays)),
		field("parameters.per_address", checkCount(p.PerAddress, MaxRelays)),
		field("parameters.onion_key_lifetime", checkDuration(p.OnionKeyLifetime, time.Millisecond, maxLifetime)),
	)
}

func checkCount(n, max int) error {
	if n < 0 || n > max {
		return fmt.Errorf("%d outside 0 to %d", n, max)
	}
	return nil
}

func checkDuration(d Duration, low, high time.Duration) error {
	if t := time.Duration(d); t < low || t > high || t%time.Millisecond != 0 {
		return fmt.Errorf("%v is not a whole number of milliseconds from %v to %v", t, low, high)
	}
	return nil
}

// Duration is a time.Duration that is written as text, "5s", as people write it.
type Duration time.Duration

// String returns the text form of time.Duration.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler with String's form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%.80q is not a duration such as 5s or 1h30m", text)
	}
	*d = Duration(parsed)
	return nil
}

// ConsensusParams are the parameters that authorities vote on.
type ConsensusParams struct {
	MinRelays        int      // relays that must run before a client builds circuits
	PerAddress       int      // relays on one IP address; 0: no limit
	SubnetRule       bool     // no two hops of a circuit in one subnet
	OnionKeyLifetime Duration // whole milliseconds
}

type paramsDoc struct {
	MinRelays        uint32 `cbor:"1,keyasint"`
	PerAddress       uint32 `cbor:"2,keyasint"`
	SubnetRule       bool   `cbor:"3,keyasint"`
	OnionKeyLifetime int64  `cbor:"4,keyasint"` // milliseconds
}

func (p ConsensusParams) doc() paramsDoc {
	return paramsDoc{
		MinRelays:        uint32(p.MinRelays),
		PerAddress:       uint32(p.PerAddress),
		SubnetRule:       p.SubnetRule,
		OnionKeyLifetime: time.Duration(p.OnionKeyLifetime).Milliseconds(),
	}
}

func (r *reader) params() (w paramsDoc) {
	r.object(4)
	r.key(1)
	w.MinRelays = r.uint32()
	r.key(2)
	w.PerAddress = r.uint32()
	r.key(3)
	w.SubnetRule = r.bool()
	r.key(4)
	w.OnionKeyLifetime = r.time()
	return w
}

func (w paramsDoc) parse() (ConsensusParams, error) {
	if w.OnionKeyLifetime > maxLifetime.Milliseconds() { // before the product below can overflow
		return ConsensusParams{}, field("onion key lifetime", errors.New("more than a year"))
	}
	p := ConsensusParams{
		MinRelays:        int(w.MinRelays),
		PerAddress:       int(w.PerAddress),
		SubnetRule:       w.SubnetRule,
		OnionKeyLifetime: Duration(time.Duration(w.OnionKeyLifetime) * time.Millisecond),
	}
	return p, p.check()
}

func (p ConsensusParams) check() error {
	return first(
		field("minimum of relays", checkCount(p.MinRelays, MaxRelays)),
		field("relays per address", checkCount(p.PerAddress, MaxRelays)),
		field("onion key lifetime", checkDuration(p.OnionKeyLifetime, time.Millisecond, maxLifetime)),
	)
}
