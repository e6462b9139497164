package netdoc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"torproxy/wire"
)

// Network is the network file: what every client, relay and authority is given before it knows anything
// else. It is not changed after it was made or parsed.
type Network struct {
	Version     int    // Version
	Name        string // 1 to MaxNetworkName letters, digits, hyphens; stands in every document
	Authorities []Authority
	Params      Params
}

// Authority is one directory authority.
type Authority struct {
	Nickname  string
	ID        wire.ID
	Addresses []netip.AddrPort // 1 to MaxAddresses
}

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

// Faulty returns how many of n authorities may be faulty.
func Faulty(n int) int { return max(0, (n-1)/3) }

// Quorum returns how many of n authorities must sign a consensus. Two quorums share more authorities than
// may be faulty.
func Quorum(n int) int { return n - Faulty(n) }

// Consensus returns the parameters that an authority with this network file votes for.
func (p Params) Consensus() ConsensusParams {
	return ConsensusParams{
		MinRelays:        p.MinRelays,
		PerAddress:       p.PerAddress,
		SubnetRule:       p.SubnetRule,
		OnionKeyLifetime: p.OnionKeyLifetime,
	}
}

// Authority returns the authority of that ID. The result is part of the network: the caller must not
// change it.
func (n *Network) Authority(id wire.ID) (*Authority, bool) {
	for i := range n.Authorities {
		if n.Authorities[i].ID == id {
			return &n.Authorities[i], true
		}
	}
	return nil, false
}

func (n *Network) hasAuthority(id wire.ID) bool {
	_, ok := n.Authority(id)
	return ok
}

// checkAuthored checks what every document of an authority starts with.
func (n *Network) checkAuthored(version uint64, network string, authority, signer wire.ID) error {
	switch {
	case version != Version:
		return ErrVersion
	case network != n.Name:
		return ErrNetwork
	case authority != signer:
		return fmt.Errorf("%w: not by the authority that it names", ErrSignature)
	}
	return nil
}

// checkVoters wants votes by authorities of this network only.
func (n *Network) checkVoters(votes []VoteRef) error {
	for _, v := range votes {
		if !n.hasAuthority(v.Authority) {
			return fmt.Errorf("%s is no authority of this network", v.Authority.Short())
		}
	}
	return nil
}

// Check returns what is wrong with a network, named as in the network file. Marshal writes only networks
// that pass, ParseNetwork returns only such.
func (n *Network) Check() error {
	if n.Version != Version {
		return fmt.Errorf("netdoc: network file: version: %d is not known, only %d", n.Version, Version)
	}
	err := first(
		field("name", checkName(n.Name, MaxNetworkName)),
		n.checkAuthorities(),
		n.Params.check(),
	)
	if err != nil {
		return fmt.Errorf("netdoc: network file: %w", err)
	}
	return nil
}

func (n *Network) checkAuthorities() error {
	if len(n.Authorities) < 1 || len(n.Authorities) > MaxAuthorities {
		return fmt.Errorf("authorities: %d in place of 1 to %d", len(n.Authorities), MaxAuthorities)
	}
	nicknames := make(map[string]bool)
	ids := make(map[wire.ID]bool)
	addresses := make(map[netip.AddrPort]bool)
	for i, a := range n.Authorities {
		at := fmt.Sprintf("authorities[%d].", i)
		err := first(
			field(at+"nickname", checkNickname(a.Nickname)),
			field(at+"id", checkID(a.ID)),
			field(at+"addresses", checkAddresses(a.Addresses)),
		)
		switch {
		case err != nil:
			return err
		case nicknames[a.Nickname]:
			return fmt.Errorf("%snickname: %q is taken by another authority", at, a.Nickname)
		case ids[a.ID]:
			return fmt.Errorf("%sid: %s is another authority too", at, a.ID)
		}
		nicknames[a.Nickname], ids[a.ID] = true, true
		for _, addr := range a.Addresses {
			if addresses[addr] {
				return fmt.Errorf("%saddresses: %v is another authority's too", at, addr)
			}
			addresses[addr] = true
		}
	}
	return nil
}

func (p Params) check() error {
	initial := errors.New("initial_rounds, initial_round and start go together: all three, or none but start")
	if p.InitialRounds != 0 && (p.Start == 0 || p.InitialRound == 0) || p.InitialRounds == 0 && p.InitialRound != 0 {
		return field("parameters", initial)
	}
	var start, initialRound, valid error
	if p.Start != 0 {
		start = checkTime(p.Start)
	}
	if p.InitialRound != 0 {
		initialRound = checkDuration(p.InitialRound, minInitialRound, time.Duration(p.Round))
	}
	if p.Valid != 0 {
		valid = checkDuration(p.Valid, time.Duration(p.Round), maxValid)
	}
	return first(
		field("parameters.round", checkDuration(p.Round, minRound, maxRound)),
		field("parameters.start", start),
		field("parameters.initial_round", initialRound),
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

// The file's form, in the order in which Marshal writes it.
type (
	networkFile struct {
		Version     int             `json:"version"`
		Name        string          `json:"name"`
		Authorities []authorityFile `json:"authorities"`
		Parameters  paramsFile      `json:"parameters"`
	}
	authorityFile struct {
		Nickname  string           `json:"nickname"`
		ID        wire.ID          `json:"id"`
		Addresses []netip.AddrPort `json:"addresses"`
	}
	paramsFile struct {
		Round            Duration `json:"round"`
		Start            string   `json:"start,omitempty"`
		InitialRound     Duration `json:"initial_round,omitempty"`
		InitialRounds    int      `json:"initial_rounds,omitempty"`
		Valid            Duration `json:"valid,omitempty"`
		MinRelays        int      `json:"min_relays"`
		PerAddress       int      `json:"per_address"`
		SubnetRule       bool     `json:"subnet_rule"`
		OnionKeyLifetime Duration `json:"onion_key_lifetime"`
	}
)

// Marshal returns the network file: indented JSON with a newline at its end. It writes n as it is; Check
// says whether ParseNetwork would take it.
func (n *Network) Marshal() []byte {
	f := networkFile{Version: n.Version, Name: n.Name, Parameters: paramsFile{
		Round:            n.Params.Round,
		InitialRound:     n.Params.InitialRound,
		InitialRounds:    n.Params.InitialRounds,
		Valid:            n.Params.Valid,
		MinRelays:        n.Params.MinRelays,
		PerAddress:       n.Params.PerAddress,
		SubnetRule:       n.Params.SubnetRule,
		OnionKeyLifetime: n.Params.OnionKeyLifetime,
	}}
	if n.Params.Start != 0 {
		f.Parameters.Start = time.UnixMilli(n.Params.Start).UTC().Format(time.RFC3339Nano)
	}
	for _, a := range n.Authorities {
		f.Authorities = append(f.Authorities, authorityFile(a))
	}
	b, err := json.MarshalIndent(&f, "", "  ")
	if err != nil {
		panic("netdoc: " + err.Error()) // every field has a text form that cannot fail
	}
	return append(b, '\n')
}

// ParseNetwork reads a network file. Errors name the field that is wrong, as parameters.round.
func ParseNetwork(data []byte) (*Network, error) {
	if len(data) > MaxNetworkFile {
		return nil, fmt.Errorf("netdoc: network file: %w", ErrTooLarge)
	}
	n, err := parseNetwork(data)
	if err != nil {
		return nil, fmt.Errorf("netdoc: network file: %w", err)
	}
	return n, n.Check()
}

func parseNetwork(data []byte) (*Network, error) {
	top, err := parseObject("", data)
	if err != nil {
		return nil, err
	}
	n := new(Network)
	var authorities []json.RawMessage
	var params json.RawMessage
	// The version comes first: a file of another version has other keys.
	if top.take("version", &n.Version, required); top.err == nil && n.Version != Version {
		return nil, fmt.Errorf("version: %d is not known, only %d", n.Version, Version)
	}
	top.take("name", &n.Name, required)
	top.take("authorities", &authorities, required)
	top.take("parameters", &params, required)
	if err := top.end(); err != nil {
		return nil, err
	}
	for i, raw := range authorities {
		a, err := parseAuthority(fmt.Sprintf("authorities[%d]", i), raw)
		if err != nil {
			return nil, err
		}
		n.Authorities = append(n.Authorities, a)
	}
	n.Params, err = parseParams("parameters", params)
	return n, err
}

func parseAuthority(path string, raw json.RawMessage) (a Authority, err error) {
	o, err := parseObject(path, raw)
	if err != nil {
		return Authority{}, err
	}
	o.take("nickname", &a.Nickname, required)
	o.take("id", &a.ID, required)
	o.take("addresses", &a.Addresses, required)
	return a, o.end()
}

func parseParams(path string, raw json.RawMessage) (p Params, err error) {
	o, err := parseObject(path, raw)
	if err != nil {
		return Params{}, err
	}
	var start string
	o.take("round", &p.Round, required)
	o.take("start", &start, optional)
	o.take("initial_round", &p.InitialRound, optional)
	o.take("initial_rounds", &p.InitialRounds, optional)
	o.take("valid", &p.Valid, optional)
	o.take("min_relays", &p.MinRelays, required)
	o.take("per_address", &p.PerAddress, required)
	o.take("subnet_rule", &p.SubnetRule, required)
	o.take("onion_key_lifetime", &p.OnionKeyLifetime, required)
	if err := o.end(); err != nil {
		return Params{}, err
	}
	if start != "" {
		p.Start, err = parseStart(start)
	}
	return p, field(path+".start", err)
}

func parseStart(s string) (int64, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Nanosecond()%int(time.Millisecond) != 0 {
		return 0, fmt.Errorf("%.80q is not a time such as 2026-01-31T12:00:00Z, to the millisecond", s)
	}
	if t.UnixMilli() == 0 {
		return 0, errors.New("the year 1970 means nothing here; leave it out")
	}
	return t.UnixMilli(), nil
}
