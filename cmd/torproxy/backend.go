package main

import (
	"os"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/frontdoor"
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
			Target: s.Target, Isolation: shortLabel(info.Isolation), OpenedMS: s.Took.Milliseconds(),
		})
	}
	return c
}

// CloseCircuit implements frontdoor.Backend.
func (b *backend) CloseCircuit(id string) bool { return b.client.proxy.CloseCircuit(id) }

// Relays implements frontdoor.Backend.
func (b *backend) Relays() []frontdoor.Relay {
	doc := b.client.proxy.Consensus()
	if doc == nil {
		return nil
	}
	relays := make([]frontdoor.Relay, len(doc.Relays))
	for i := range doc.Relays {
		r := &doc.Relays[i]
		relays[i] = frontdoor.Relay{
			ID: r.ID, Nickname: r.Nickname, Address: firstAddress(r), Flags: r.Flags.Names(), Weight: r.Weight,
		}
	}
	return relays
}

func firstAddress(r *netdoc.Relay) string { return r.Addresses[0].String() }

// NewIdentity implements frontdoor.Backend.
func (b *backend) NewIdentity() { b.client.proxy.NewIdentity() }
