package main

import (
	"errors"
	"os"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/frontdoor"
	"torproxy/proxy/localnet"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// backend is what the front door shows and steers of a client.
type backend struct {
	client *client
}

// Status implements frontdoor.Backend.
func (b *backend) Status() frontdoor.Status {
	c := b.client
	progress := c.proxy.Progress()
	return frontdoor.Status{
		Version:   version(),
		PID:       os.Getpid(),
		Hops:      c.proxy.Hops(),
		Bootstrap: frontdoor.Bootstrap{Percent: progress.Percent, Summary: progress.Summary},
		SOCKS:     c.socks.shown,
		HTTP:      c.http.shown,
		Network:   b.network(),
	}
}

func (b *backend) network() frontdoor.Network {
	n := frontdoor.Network{
		Name:        b.client.network.Name,
		Embedded:    b.client.embedded != nil,
		Authorities: len(b.client.network.Authorities),
	}
	doc := b.client.proxy.Consensus()
	if doc == nil {
		return n
	}
	n.Relays = len(doc.Relays)
	for _, r := range doc.Relays {
		if r.Flags.Has(netdoc.Exit) {
			n.Exits++
		}
	}
	n.ValidAfter, n.FreshUntil, n.ValidUntil = at(doc.ValidAfter), at(doc.FreshUntil), at(doc.ValidUntil)
	return n
}

func at(unixMilli int64) frontdoor.Time { return frontdoor.Time{Time: time.UnixMilli(unixMilli)} }

// Circuits implements frontdoor.Backend.
func (b *backend) Circuits() []frontdoor.Circuit {
	infos := b.client.proxy.Circuits()
	circuits := make([]frontdoor.Circuit, len(infos))
	for i, info := range infos {
		circuits[i] = circuitOf(info)
	}
	return circuits
}

func circuitOf(info proxy.CircuitInfo) frontdoor.Circuit {
	c := frontdoor.Circuit{
		ID:       info.ID,
		State:    frontdoor.CircuitState(info.State),
		BuiltMS:  info.Took.Milliseconds(),
		AgeS:     int64(info.Age.Seconds()),
		BytesIn:  uint64(info.In),
		BytesOut: uint64(info.Out),
	}
	for _, r := range info.Route {
		c.Hops = append(c.Hops, frontdoor.Hop{ID: r.ID, Nickname: r.Nickname, Address: firstAddress(r)})
	}
	for _, s := range info.Streams {
		c.Streams = append(c.Streams, frontdoor.Stream{
			ID: s.ID, Target: s.Target, Isolation: shortLabel(info.Isolation), OpenedMS: s.Took.Milliseconds(),
		})
	}
	return c
}

// CloseCircuit implements frontdoor.Backend.
func (b *backend) CloseCircuit(id string) bool { return b.client.proxy.CloseCircuit(id) }

// Relays implements frontdoor.Backend.
func (b *backend) Relays() []frontdoor.Relay {
	var embedded []localnet.RelayInfo
	if b.client.embedded != nil {
		embedded = b.client.embedded.Relays()
	}
	var listed []netdoc.Relay
	if doc := b.client.proxy.Consensus(); doc != nil {
		listed = doc.Relays
	}
	return mergeRelays(listed, embedded)
}

// mergeRelays lists the relays of a consensus, and those of the embedded network that it lacks. Whether one of
// the embedded network runs, nobody knows better than that.
func mergeRelays(listed []netdoc.Relay, embedded []localnet.RelayInfo) []frontdoor.Relay {
	ours := map[wire.ID]localnet.RelayInfo{}
	for _, info := range embedded {
		ours[info.ID] = info
	}
	var relays []frontdoor.Relay
	for i := range listed {
		r := &listed[i]
		info, embedded := ours[r.ID]
		relays = append(relays, frontdoor.Relay{
			ID: r.ID, Nickname: r.Nickname, Address: firstAddress(r), Flags: r.Flags.Names(), Weight: r.Weight,
			Running: !embedded || info.Running,
		})
		delete(ours, r.ID)
	}
	for _, info := range embedded {
		if _, missing := ours[info.ID]; missing {
			relays = append(relays, frontdoor.Relay{
				ID: info.ID, Nickname: info.Nickname, Address: info.Address.String(), Running: info.Running,
			})
		}
	}
	return relays
}

func firstAddress(r *netdoc.Relay) string { return r.Addresses[0].String() }

// NewIdentity implements frontdoor.Backend.
func (b *backend) NewIdentity() { b.client.proxy.NewIdentity() }

// Changed implements frontdoor.Backend.
func (b *backend) Changed() <-chan struct{} { return b.client.proxy.Watch() }

// Traffic implements frontdoor.Backend.
func (b *backend) Traffic() frontdoor.Traffic {
	s := b.client.proxy.Stats()
	return frontdoor.Traffic{BytesIn: uint64(s.In), BytesOut: uint64(s.Out)}
}

// Why implements frontdoor.Backend.
func (b *backend) Why(host string) []frontdoor.Why {
	records := b.client.proxy.Why(host)
	all := make([]frontdoor.Why, len(records))
	for i, r := range records {
		all[i] = frontdoor.Why{
			Target: r.Target, Isolation: shortLabel(r.Isolation), Began: frontdoor.Time{Time: r.Began}, TookMS: r.Took.Milliseconds(),
			Outcome: string(r.Outcome), Error: r.Err, Path: r.Path,
		}
		for _, s := range r.Steps {
			all[i].Steps = append(all[i].Steps, frontdoor.Step{
				What: s.What, Circuit: s.Circuit, Hop: s.Hop, Relay: s.Relay, TookMS: s.Took.Milliseconds(), Result: s.Result,
			})
		}
	}
	return all
}

// maxEmbedded is how many relays the embedded network may have: each costs memory, and a port.
const maxEmbedded = 64

// AddRelay implements frontdoor.Backend.
func (b *backend) AddRelay() (wire.ID, error) {
	n := b.client.embedded
	switch {
	case n == nil:
		return wire.ID{}, frontdoor.ErrNotEmbedded
	case len(n.Relays()) >= maxEmbedded:
		return wire.ID{}, frontdoor.ErrTooMany
	}
	return n.AddRelay()
}

// StopRelay implements frontdoor.Backend.
func (b *backend) StopRelay(id wire.ID) error {
	return b.steer(func(n *localnet.Network) error { return n.StopRelay(id) })
}

// StartRelay implements frontdoor.Backend.
func (b *backend) StartRelay(id wire.ID) error {
	return b.steer(func(n *localnet.Network) error { return n.StartRelay(id) })
}

// steer does something to the embedded network, if there is one.
func (b *backend) steer(do func(*localnet.Network) error) error {
	if b.client.embedded == nil {
		return frontdoor.ErrNotEmbedded
	}
	err := do(b.client.embedded)
	if errors.Is(err, localnet.ErrNoRelay) {
		return frontdoor.ErrNoRelay
	}
	return err
}
