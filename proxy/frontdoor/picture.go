package frontdoor

import (
	"maps"
	"slices"

	"torproxy/wire"
)

// picture is what one reader of events has been told.
type picture struct {
	bootstrap Bootstrap
	network   Network
	traffic   Traffic
	relays    map[wire.ID]Relay
	circuits  map[string]Circuit
	links     map[string]Link
	told      bool // anything at all
}

func newPicture() *picture {
	return &picture{relays: map[wire.ID]Relay{}, circuits: map[string]Circuit{}, links: map[string]Link{}}
}

// streamEvent is the data of a stream event.
type streamEvent struct {
	Stream
	Circuit string `json:"circuit"`
	State   string `json:"state"` // "open" or "closed"
}

// goneRelay is the data of a relay event when the relay is no longer listed.
type goneRelay struct {
	ID   wire.ID `json:"id"`
	Gone bool    `json:"gone"`
}

// update looks at d's client again and returns the events that lead from the picture to what is there now.
// Byte counts, relays and the consensus are compared only if whole is true.
func (p *picture) update(d *door, whole bool) (list []event) {
	status := d.Backend.Status()
	if status.Bootstrap != p.bootstrap || !p.told {
		p.bootstrap = status.Bootstrap
		list = append(list, event{"bootstrap", status.Bootstrap})
	}
	if whole {
		if status.Network != p.network || !p.told {
			p.network = status.Network
			list = append(list, event{"consensus", status.Network})
		}
		list = append(list, p.updateRelays(d.Backend.Relays())...)
	}
	list = append(list, p.updateCircuits(d.Backend.Circuits(), whole)...)
	list = append(list, p.updateLinks(d.links.all())...)
	if whole {
		if t := d.Backend.Traffic(); t != p.traffic || !p.told {
			p.traffic = t
			list = append(list, event{"traffic", t})
		}
	}
	p.told = true
	return list
}

func (p *picture) updateRelays(relays []Relay) (list []event) {
	gone := maps.Clone(p.relays)
	for _, r := range relays {
		delete(gone, r.ID)
		if known, ok := p.relays[r.ID]; !ok || !sameRelay(known, r) {
			p.relays[r.ID] = r
			list = append(list, event{"relay", r})
		}
	}
	for id := range gone {
		delete(p.relays, id)
		list = append(list, event{"relay", goneRelay{id, true}})
	}
	return list
}

func sameRelay(a, b Relay) bool {
	return a.Nickname == b.Nickname && a.Address == b.Address && a.Weight == b.Weight && a.Running == b.Running && slices.Equal(a.Flags, b.Flags)
}

func (p *picture) updateCircuits(circuits []Circuit, bytes bool) (list []event) {
	gone := maps.Clone(p.circuits)
	for _, c := range circuits {
		delete(gone, c.ID)
		known := p.circuits[c.ID]
		if sameCircuit(known, c, bytes) {
			continue
		}
		p.circuits[c.ID] = c
		list = append(list, event{"circuit", c})
		list = append(list, streamEvents(known, c)...)
	}
	for _, c := range gone {
		delete(p.circuits, c.ID)
		ended := c
		ended.State, ended.Streams = Closed, nil
		list = append(list, event{"circuit", ended})
		list = append(list, streamEvents(c, ended)...)
	}
	return list
}

// sameCircuit reports whether nothing of a circuit has changed but its age and, unless bytes is true, what
// it has carried.
func sameCircuit(a, b Circuit, bytes bool) bool {
	return a.ID == b.ID && a.State == b.State && a.BuiltMS == b.BuiltMS && slices.Equal(a.Hops, b.Hops) && slices.Equal(a.Streams, b.Streams) &&
		(!bytes || a.BytesIn == b.BytesIn && a.BytesOut == b.BytesOut)
}

// streamEvents tells which streams of a circuit have come, changed and gone.
func streamEvents(before, after Circuit) (list []event) {
	for _, s := range after.Streams {
		if !slices.Contains(before.Streams, s) {
			list = append(list, event{"stream", streamEvent{s, after.ID, "open"}})
		}
	}
	for _, s := range before.Streams {
		if !slices.ContainsFunc(after.Streams, func(o Stream) bool { return o.ID == s.ID }) {
			list = append(list, event{"stream", streamEvent{s, after.ID, "closed"}})
		}
	}
	return list
}

func (p *picture) updateLinks(links []Link) (list []event) {
	gone := maps.Clone(p.links)
	for _, l := range links {
		delete(gone, l.ID)
		if p.links[l.ID] != l {
			p.links[l.ID] = l
			list = append(list, event{"link", l})
		}
	}
	for _, l := range gone {
		delete(p.links, l.ID)
		l.State = LinkGone
		list = append(list, event{"link", l})
	}
	return list
}
