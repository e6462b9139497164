package dirauth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

const (
	maxMembers      = netdoc.MaxRelays // relays that an authority knows, as many as a consensus may list: 100 MB
	perSubnet       = 8                // times PerAddress: relays in one /24 or IPv6 /48
	futureTolerance = 10 * time.Minute // by how much a relay's clock may be ahead
	maxAge          = 48 * time.Hour   // of a descriptor that is new here; relays renew theirs when it is 30 hours old
)

// roster is the relays that an authority knows: it admits descriptors, notes what tests said, and lists
// them for the vote. Safe for concurrent use. The store is written outside mu, for a flood of
// registrations must not make those wait who only look a relay up; and one change at a time, so that what is
// stored last is what was admitted last.
type roster struct {
	network *netdoc.Network
	store   Store
	log     *slog.Logger
	gate    *gate
	test    testPlan
	plan    measurePlan
	changed chan struct{} // holds a token when a test became due earlier than it was

	storing sync.Mutex // is taken before mu, and held while the store is written

	mu       sync.Mutex
	dropped  []wire.ID // removed, and not yet from the store
	members  map[wire.ID]*member
	past     map[wire.ID]Record                   // what the store knew of relays that have not come yet
	byDigest map[netdoc.Digest]*netdoc.Descriptor // current and previous ones
	places   map[netip.Prefix]map[wire.ID]bool    // by address, and by subnet
}

// member is one relay. Fields are under roster.mu.
type member struct {
	descriptor *netdoc.Descriptor
	unstored   bool               // the store has not got the descriptor yet
	previous   *netdoc.Descriptor // nil: none; a vote of this round may still name it
	added      time.Time          // when it came first
	came       time.Time          // when it came to this process
	past       Record             // from before this process began; zero: none
	membership
	bandwidth bandwidth
}

func newRoster(n *netdoc.Network, store Store, g *gate, log *slog.Logger) *roster {
	return &roster{
		gate:     g,
		network:  n,
		store:    store,
		log:      log,
		test:     newTestPlan(n.Params),
		changed:  make(chan struct{}, 1),
		plan:     newMeasurePlan(n.Params),
		members:  map[wire.ID]*member{},
		past:     map[wire.ID]Record{},
		byDigest: map[netdoc.Digest]*netdoc.Descriptor{},
		places:   map[netip.Prefix]map[wire.ID]bool{},
	}
}

// restore admits what the store kept; what does not pass any more is dropped.
func (r *roster) restore(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	records, err := r.store.Records()
	if err != nil {
		return fmt.Errorf("dirauth: stored records: %w", err)
	}
	for _, record := range records {
		r.past[record.ID] = record
	}
	kept, err := r.store.Descriptors()
	if err != nil {
		return fmt.Errorf("dirauth: stored descriptors: %w", err)
	}
	var gone []wire.ID
	for _, raw := range kept {
		d, err := netdoc.ParseDescriptor(raw)
		if err != nil {
			r.log.Warn("stored descriptor dropped", "err", err)
			continue
		}
		if a := r.take(d, now); a.Result == directory.Refused {
			r.log.Info("stored descriptor dropped", "relay", d.ID.Short(), "reason", a.Reason)
			gone = append(gone, d.ID)
			continue
		}
		r.members[d.ID].unstored = false
	}
	for id := range r.past { // held until it comes again, or this process ends
		gone = append(gone, id)
	}
	if err := r.store.Forget(gone...); err != nil {
		return fmt.Errorf("dirauth: %w", err)
	}
	return nil
}

// errNotStored is told to a relay whose descriptor could not be written down. It is held all the same, but
// what was acknowledged must still be there after a crash.
var errNotStored = errors.New("this authority cannot store descriptors at present")

// admit judges a descriptor, whose signature was verified, and takes it in or says why not.
func (r *roster) admit(d *netdoc.Descriptor, now time.Time) directory.Registration {
	r.storing.Lock()
	defer r.storing.Unlock()
	r.mu.Lock()
	a := r.take(d, now)
	m := r.members[d.ID]
	store := a.Result != directory.Refused && m.unstored
	r.mu.Unlock()
	r.forget()
	if a.Result == directory.Added {
		r.log.Info("relay joined", "relay", d.ID.Short(), "nickname", d.Nickname, "addresses", d.Addresses)
	}
	if !store {
		return a
	}
	if err := r.store.SaveDescriptor(d.ID, d.Raw()); err != nil {
		r.log.Error("descriptor not stored", "relay", d.ID.Short(), "err", err)
		return refused(errNotStored)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m.unstored = false
	return a
}

// take is admit, without the store.
func (r *roster) take(d *netdoc.Descriptor, now time.Time) directory.Registration {
	m := r.members[d.ID]
	if m != nil && m.descriptor.Digest() == d.Digest() && r.gate.judge(d.ID) == nil {
		r.revive(m, now)
		return directory.Registration{Result: directory.Known}
	}
	if err := r.judge(d, now); err != nil {
		return refused(err)
	}
	if m != nil && d.Published <= m.descriptor.Published {
		return refused(errors.New("a newer descriptor of this relay is held"))
	}
	if err := r.makeRoom(d, m == nil); err != nil {
		return refused(err)
	}
	if m == nil {
		m = r.join(d.ID, now)
	}
	known := m.descriptor != nil
	r.replace(m, d)
	r.schedule(m, now)
	if known {
		return directory.Registration{Result: directory.Known}
	}
	return directory.Registration{Result: directory.Added}
}

func refused(err error) directory.Registration {
	return directory.Registration{Result: directory.Refused, Reason: err.Error()}
}

// judge checks what does not depend on the other relays.
func (r *roster) judge(d *netdoc.Descriptor, now time.Time) error {
	if err := r.gate.judge(d.ID); err != nil {
		return err
	}
	if published := time.UnixMilli(d.Published); published.After(now.Add(futureTolerance)) {
		return fmt.Errorf("published %v in the future: the relay's clock is fast", published.Sub(now).Round(time.Second))
	}
	if published := time.UnixMilli(d.Published); now.Sub(published) > maxAge {
		return fmt.Errorf("published %v ago, which is too old: a replay, or the relay's clock is slow", now.Sub(published).Round(time.Second))
	}
	if ended := time.UnixMilli(d.OnionKeys[0].Until); !ended.After(now) {
		return fmt.Errorf("its onion key ended %v ago: the descriptor is old, or the relay's clock slow", now.Sub(ended).Round(time.Second))
	}
	if !slices.Contains(d.Protocols, wire.Version) {
		return fmt.Errorf("the relay does not speak protocol version %d", wire.Version)
	}
	if a, ok := r.network.Authority(d.ID); ok {
		return fmt.Errorf("the identity is that of authority %s", a.Nickname)
	}
	if r.network.Params.SubnetRule {
		for _, a := range d.Addresses {
			if !public.Allows(a) {
				return fmt.Errorf("%v is not a public address", a.Addr())
			}
		}
	}
	return nil
}

// public accepts the addresses that can be reached from everywhere.
var public = func() netdoc.Policy {
	p, err := netdoc.ParsePolicy("accept *:*")
	if err != nil {
		panic(err)
	}
	return p
}()

// makeRoom checks that the network's rules leave a place for the descriptor at each of its addresses, and
// one in the roster if the relay is new. Where they do not, relays that do not answer make room.
func (r *roster) makeRoom(d *netdoc.Descriptor, isNew bool) error {
	var leave []wire.ID
	for place, most := range r.limits(d) {
		out, ok := r.displace(r.places[place], d.ID, most)
		if !ok {
			return fmt.Errorf("%d relays at %v already, which is as many as this network allows", most, place)
		}
		leave = append(leave, out...)
	}
	r.remove(leave...)
	if !isNew || len(r.members) < maxMembers {
		return nil
	}
	for id, m := range r.members {
		if m.silent() {
			r.remove(id)
			return nil
		}
	}
	return errors.New("this authority knows as many relays as it can hold")
}

// displace returns which silent occupants have to leave a place so that newcomer may come in beside at
// most most-1 others; false if not enough of them are silent.
func (r *roster) displace(occupants map[wire.ID]bool, newcomer wire.ID, most int) (leave []wire.ID, ok bool) {
	others := len(occupants)
	if occupants[newcomer] {
		others--
	}
	for id := range occupants {
		if others < most {
			break
		}
		if id != newcomer && r.members[id].silent() {
			leave = append(leave, id)
			others--
		}
	}
	return leave, others < most
}

// limits returns the places that a descriptor takes, with how many relays may be there. Nothing if the
// network has no limits.
func (r *roster) limits(d *netdoc.Descriptor) map[netip.Prefix]int {
	limits := map[netip.Prefix]int{}
	perAddress := r.network.Params.PerAddress
	if perAddress == 0 {
		return limits
	}
	for _, a := range d.Addresses {
		addr, subnet := a.Addr(), 48
		if addr.Is4() {
			subnet = 24
		}
		limits[netip.PrefixFrom(addr, addr.BitLen())] = perAddress
		if r.network.Params.SubnetRule {
			limits[netip.PrefixFrom(addr, subnet).Masked()] = perSubnet * perAddress
		}
	}
	return limits
}

// replace makes d the member's descriptor.
func (r *roster) replace(m *member, d *netdoc.Descriptor) {
	if m.descriptor != nil {
		r.vacate(m.descriptor)
	}
	if m.previous != nil {
		delete(r.byDigest, m.previous.Digest())
	}
	m.previous, m.descriptor, m.unstored = m.descriptor, d, true
	r.byDigest[d.Digest()] = d
	for place := range r.limits(d) {
		if r.places[place] == nil {
			r.places[place] = map[wire.ID]bool{}
		}
		r.places[place][d.ID] = true
	}
}

// remove forgets relays; forget has to be called behind it.
func (r *roster) remove(ids ...wire.ID) {
	for _, id := range ids {
		m := r.members[id]
		if m == nil {
			continue
		}
		delete(r.members, id)
		r.vacate(m.descriptor)
		delete(r.byDigest, m.descriptor.Digest())
		if m.previous != nil {
			delete(r.byDigest, m.previous.Digest())
		}
	}
	r.dropped = append(r.dropped, ids...)
}

// forget has the store drop what remove has dropped, in one change. storing is held, mu is not.
func (r *roster) forget() {
	r.mu.Lock()
	ids := r.dropped
	r.dropped = nil
	r.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	if err := r.store.Forget(ids...); err != nil {
		r.log.Error("relays not forgotten by the store", "count", len(ids), "err", err)
	}
}

// forgetDropped is forget for those who do not hold storing.
func (r *roster) forgetDropped() {
	r.mu.Lock()
	none := len(r.dropped) == 0
	r.mu.Unlock()
	if none {
		return
	}
	r.storing.Lock()
	defer r.storing.Unlock()
	r.forget()
}

// enforce removes the relays that the operator does not admit any more.
func (r *roster) enforce() {
	defer r.forgetDropped()
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []wire.ID
	for id := range r.members {
		if err := r.gate.judge(id); err != nil {
			r.log.Info("relay removed", "relay", id.Short(), "reason", err)
			out = append(out, id)
		}
	}
	r.remove(out...)
}

// vacate gives up the places of a descriptor.
func (r *roster) vacate(d *netdoc.Descriptor) {
	for place := range r.limits(d) {
		delete(r.places[place], d.ID)
		if len(r.places[place]) == 0 {
			delete(r.places, place)
		}
	}
}

// descriptor returns a descriptor by its digest, nil if it is not held.
func (r *roster) descriptor(digest netdoc.Digest) *netdoc.Descriptor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byDigest[digest]
}
