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

// Faulty returns how many of n authorities may be faulty.
func Faulty(n int) int { return max(0, (n-1)/3) }

// Quorum returns how many of n authorities must sign a consensus. Two quorums share more authorities than
// may be faulty.
func Quorum(n int) int { return n - Faulty(n) }

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

// IsPrivate reports whether every authority's every address is private or loopback: a network of somebody's own.
func (n *Network) IsPrivate() bool {
	for _, a := range n.Authorities {
		for _, at := range a.Addresses {
			if !at.Addr().IsLoopback() && !at.Addr().IsPrivate() {
				return false
			}
		}
	}
	return true
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

// Check returns what is wrong with a network, in the names of the network file. ParseNetwork returns only
// networks that pass.
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
		Start            start    `json:"start,omitempty"`
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
		Start:            start(n.Params.Start),
		InitialRound:     n.Params.InitialRound,
		InitialRounds:    n.Params.InitialRounds,
		Valid:            n.Params.Valid,
		MinRelays:        n.Params.MinRelays,
		PerAddress:       n.Params.PerAddress,
		SubnetRule:       n.Params.SubnetRule,
		OnionKeyLifetime: n.Params.OnionKeyLifetime,
	}}
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
	if err := n.Check(); err != nil {
		return nil, err
	}
	return n, nil
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
	o.take("round", &p.Round, required)
	o.take("start", (*start)(&p.Start), optional)
	o.take("initial_round", &p.InitialRound, optional)
	o.take("initial_rounds", &p.InitialRounds, optional)
	o.take("valid", &p.Valid, optional)
	o.take("min_relays", &p.MinRelays, required)
	o.take("per_address", &p.PerAddress, required)
	o.take("subnet_rule", &p.SubnetRule, required)
	o.take("onion_key_lifetime", &p.OnionKeyLifetime, required)
	return p, o.end()
}

// start is the time of the first round, in Unix milliseconds, written as people write times.
type start int64

func (s start) MarshalText() ([]byte, error) {
	return []byte(time.UnixMilli(int64(s)).UTC().Format(time.RFC3339Nano)), nil
}

func (s *start) UnmarshalText(text []byte) error {
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil || t.Nanosecond()%int(time.Millisecond) != 0 {
		return fmt.Errorf("%.80q is not a time such as 2026-01-31T12:00:00Z, to the millisecond", text)
	}
	if *s = start(t.UnixMilli()); *s == 0 {
		return errors.New("the start of 1970 means no start; leave it out")
	}
	return nil
}
