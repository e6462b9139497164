package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"strings"

	"torproxy/cmd/torproxy/internal/state"
	"torproxy/wire/netdoc"
)

const maxPolicyFile = 64 << 10 // bytes

// makeIdentity makes an identity that ends with the process.
func (m *member) makeIdentity() error {
	_, key, err := ed25519.GenerateKey(nil)
	m.key = key
	return err
}

// watch tells how the network sees the relay, whenever that changes.
func (m *member) watch(ctx context.Context) error {
	var last string
	for {
		changed := m.relay.Changed()
		if now := m.standing(); now != last {
			last = now
			m.log.Info(now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (m *member) standing() string {
	c := m.relay.Consensus()
	if c == nil {
		return "no consensus yet"
	}
	listed, ok := c.Relay(m.relay.ID())
	if !ok {
		return "not in the consensus: clients do not use this relay"
	}
	return fmt.Sprintf("in the consensus: %v", listed.Flags)
}

// reload is what SIGHUP asks for.
func (r *relays) reload() {
	if r.options.policyFile == "" {
		r.log.Info("SIGHUP: there is no --exit-policy-file to read again")
		return
	}
	policy, err := readPolicy(r.options.policyFile)
	if err != nil {
		r.log.Error("SIGHUP: the exit policy stays as it was", "err", err)
		return
	}
	for _, m := range r.members {
		m.relay.SetPolicy(policy)
	}
	r.log.Info("SIGHUP: the exit policy was read again", "policy", policy.String())
}

// readPolicy reads an exit policy's file: rules separated by commas or line ends; # begins a comment.
func readPolicy(name string) (netdoc.Policy, error) {
	explain := func(err error) error {
		return &failure{
			code: codeState, err: err, what: fmt.Sprintf("cannot use the exit policy (--exit-policy-file): %v", err),
			advice: "a policy is rules such as accept *:443, separated by commas or line ends",
		}
	}
	data, err := state.ReadBounded(name, maxPolicyFile)
	if err != nil {
		return netdoc.Policy{}, explain(err)
	}
	var rules []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.Trim(line, ", \t\r\n"); line != "" {
			rules = append(rules, line)
		}
	}
	if len(rules) == 0 {
		return netdoc.Policy{}, nil
	}
	policy, err := netdoc.ParsePolicy(strings.Join(rules, ","))
	if err != nil {
		return netdoc.Policy{}, explain(fmt.Errorf("%s: %w", name, err))
	}
	return policy, nil
}
