package directory

import (
	"math/rand/v2"

	"torproxy/wire/netdoc"
)

const (
	// mirrorsAsked bounds the mirrors that are tried before the authorities. They are drawn anew each time: one
	// that is old or keeps something back does not stay with a client.
	mirrorsAsked = 3
	// fewKeys is how many onion keys a client asks of an authority that it has the consensus from; for more a
	// mirror is worth a dial.
	fewKeys = 64
)

// source is a server to ask.
type source struct {
	Peer
	mirror bool
}

// sources returns whom to ask for the newest consensus, in order.
func (f *Follower) sources() []source {
	var list []source
	if newest, _, _ := f.latest(); f.keyed && newest != nil {
		list = mirrors(newest)
	}
	return append(list, f.authorities()...)
}

// keySources returns whom to ask for so many onion keys, in order: first the server that the consensus came
// from, whose connection stands, but a client spares an authority what a mirror has.
func (f *Follower) keySources(newest *netdoc.Consensus, missing int) []source {
	f.statusMu.Lock()
	giver := f.giver
	f.statusMu.Unlock()
	var list []source
	spare := f.keyed && missing > fewKeys
	if !giver.ID.IsZero() && (giver.mirror || !spare) {
		list = append(list, giver)
	}
	if spare {
		list = append(list, mirrors(newest)...)
	}
	return append(list, f.authorities()...)
}

// gave notes whom the newest consensus came from.
func (f *Follower) gave(from source) {
	f.statusMu.Lock()
	defer f.statusMu.Unlock()
	f.giver = from
}

// mirrors draws relays of a consensus, each as likely as the others: documents are small beside what a relay
// of any weight carries.
func mirrors(c *netdoc.Consensus) []source {
	n := min(mirrorsAsked, len(c.Relays))
	list := make([]source, 0, n)
	drawn := map[int]bool{}
	for len(list) < n {
		i := rand.IntN(len(c.Relays))
		if !drawn[i] {
			drawn[i] = true
			r := &c.Relays[i]
			list = append(list, source{Peer: Peer{ID: r.ID, Addresses: r.Addresses}, mirror: true})
		}
	}
	return list
}

// authorities returns all of them in random order.
func (f *Follower) authorities() []source {
	list := make([]source, 0, len(f.network.Authorities))
	for _, i := range rand.Perm(len(f.network.Authorities)) {
		list = append(list, source{Peer: PeerOf(f.network.Authorities[i])})
	}
	return list
}
