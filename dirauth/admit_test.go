package dirauth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

func newTestRoster(change func(*netdoc.Params)) *roster {
	w := newTown(4)
	if change != nil {
		change(&w.Params)
	}
	return newRoster(w.Network, NewMemoryStore(), &gate{}, slog.New(slog.DiscardHandler))
}

// at places a relay.
func at(addresses ...string) func(*netdoc.Descriptor) {
	return func(d *netdoc.Descriptor) {
		d.Addresses = nil
		for _, a := range addresses {
			d.Addresses = append(d.Addresses, netip.MustParseAddrPort(a))
		}
	}
}

// newer publishes a descriptor later.
func newer(by time.Duration) func(*netdoc.Descriptor) {
	return func(d *netdoc.Descriptor) { d.Published += by.Milliseconds() }
}

func TestAdmit(t *testing.T) {
	public := func(p *netdoc.Params) { p.SubnetRule, p.PerAddress = true, 2 }
	now := validAfter
	for _, tt := range []struct {
		name   string
		params func(*netdoc.Params)
		first  *netdoc.Descriptor // admitted before, at now; may be nil
		then   *netdoc.Descriptor
		want   directory.Result
		reason string
	}{
		{"new", nil, nil, describe(t, 1), directory.Added, ""},
		{"the very same", nil, describe(t, 1), describe(t, 1), directory.Known, ""},
		{"newer", nil, describe(t, 1), describe(t, 1, newer(time.Second)), directory.Known, ""},
		{"older", nil, describe(t, 1, newer(time.Second)), describe(t, 1), directory.Refused, "newer descriptor"},
		{"of the same time", nil, describe(t, 1), describe(t, 1, at("127.0.0.9:1")), directory.Refused, "newer descriptor"},
		{"slightly in the future", nil, nil, describe(t, 1, newer(10*time.Minute)), directory.Added, ""},
		{"far in the future", nil, nil, describe(t, 1, newer(time.Hour)), directory.Refused, "clock is fast"},
		{"of two days ago", nil, nil, describe(t, 1, newer(-49*time.Hour)), directory.Refused, "too old"},
		{"without an onion key", nil, nil, describe(t, 1, func(d *netdoc.Descriptor) {
			d.OnionKeys[0].Until = now.UnixMilli()
		}), directory.Refused, "onion key"},
		{"of a later protocol", nil, nil, describe(t, 1, func(d *netdoc.Descriptor) { d.Protocols = []uint64{2, 3} }), directory.Refused, "version 1"},
		{"at a private address", public, nil, describe(t, 1, at("10.0.0.1:1")), directory.Refused, "10.0.0.1 is not a public address"},
		{"at one private address of two", public, nil, describe(t, 1, at("1.2.3.4:1", "[fe80::1]:1")), directory.Refused, "not a public address"},
		{"at a public address", public, nil, describe(t, 1, at("1.2.3.4:1", "[2600::1]:1")), directory.Added, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newTestRoster(tt.params)
			if tt.first != nil {
				if got := r.admit(tt.first, now); got.Result != directory.Added {
					t.Fatalf("the first is %v", got)
				}
			}
			got := r.admit(tt.then, now)
			if got.Result != tt.want || !strings.Contains(got.Reason, tt.reason) || (got.Reason == "") != (tt.reason == "") {
				t.Errorf("answer %q, want %q with %q in it", got, tt.want, tt.reason)
			}
			if held := r.descriptor(tt.then.Digest()) != nil; held != (tt.want != directory.Refused) {
				t.Errorf("held: %v", held)
			}
		})
	}
}

func TestAuthorityIsNoRelay(t *testing.T) {
	r := newTestRoster(nil)
	d := describe(t, 1)
	r.network.Authorities[2].ID = d.ID
	if got := r.admit(d, validAfter); got.Result != directory.Refused || !strings.Contains(got.Reason, "authority3") {
		t.Errorf("answer %v", got)
	}
}

// The descriptor before the newest can still be had, for votes that name it; the one before that cannot.
func TestPreviousDescriptorIsKept(t *testing.T) {
	r := newTestRoster(nil)
	var editions []*netdoc.Descriptor
	for i := range 3 {
		editions = append(editions, describe(t, 1, newer(time.Duration(i)*time.Second)))
		r.admit(editions[i], validAfter)
	}
	for i, want := range []bool{false, true, true} {
		if got := r.descriptor(editions[i].Digest()) != nil; got != want {
			t.Errorf("edition %d held: %v", i, got)
		}
	}
}

func TestPlaces(t *testing.T) {
	r := newTestRoster(func(p *netdoc.Params) { p.SubnetRule, p.PerAddress = true, 2 })
	admit := func(i int, want directory.Result, changes ...func(*netdoc.Descriptor)) *netdoc.Descriptor {
		t.Helper()
		d := describe(t, i, changes...)
		if got := r.admit(d, validAfter); got.Result != want {
			t.Errorf("relay %d: %v, want %v", i, got, want)
		}
		return d
	}
	first := admit(1, directory.Added, at("1.2.3.4:1"))
	second := admit(2, directory.Added, at("1.2.3.4:2"))
	admit(3, directory.Refused, at("1.2.3.4:3")) // two wait for their tests
	r.tested(first, true, validAfter)
	r.tested(second, true, validAfter)
	admit(3, directory.Refused, at("1.2.3.4:3")) // two answer
	admit(3, directory.Refused, at("1.2.3.5:3", "1.2.3.4:3"))
	admit(2, directory.Known, at("1.2.3.4:2", "1.2.3.4:22"), newer(time.Second)) // one of them changes
	r.tested(first, false, validAfter)
	admit(3, directory.Added, at("1.2.3.4:3")) // the silent one goes
	if r.descriptor(first.Digest()) != nil {
		t.Error("the silent relay is still there")
	}
	admit(2, directory.Known, at("1.2.3.6:2"), newer(2*time.Second)) // one moves away
	admit(4, directory.Added, at("1.2.3.4:4"))                       // and leaves a place
	// 16 in a /24: three are there.
	for i := 5; i < 18; i++ {
		admit(i, directory.Added, at(fmt.Sprintf("1.2.3.%d:1", 100+i)))
	}
	admit(18, directory.Refused, at("1.2.3.200:1"))
	admit(19, directory.Added, at("1.2.4.200:1"))
	// IPv6: by address, and by /48.
	for i := 20; i < 36; i++ {
		admit(i, directory.Added, at(fmt.Sprintf("[2600:0:1:%d::1]:1", i)))
	}
	admit(36, directory.Refused, at("[2600:0:1:ffff::1]:1"))
	admit(37, directory.Added, at("[2600:0:2::1]:1"))
}

func TestNoLimits(t *testing.T) {
	r := newTestRoster(nil)
	for i := range 50 {
		if got := r.admit(describe(t, i, at(fmt.Sprintf("127.0.0.1:%d", i+1))), validAfter); got.Result != directory.Added {
			t.Fatalf("relay %d: %v", i, got)
		}
	}
	if len(r.places) != 0 {
		t.Errorf("%d places are counted", len(r.places))
	}
}

// A full roster gives a place only where a relay does not answer.
func TestFullRoster(t *testing.T) {
	r := newTestRoster(nil)
	quiet := describe(t, 1)
	r.admit(quiet, validAfter)
	r.tested(quiet, true, validAfter)
	for i := len(r.members); i < maxMembers; i++ {
		r.members[wire.ID{byte(i), byte(i >> 8), 1}] = &member{descriptor: quiet, membership: membership{running: true, tested: true}}
	}
	newcomer := describe(t, 2)
	if got := r.admit(newcomer, validAfter); got.Result != directory.Refused || !strings.Contains(got.Reason, "as many relays") {
		t.Errorf("all answer: %v", got)
	}
	if got := r.admit(describe(t, 1, newer(time.Second)), validAfter); got.Result != directory.Known {
		t.Errorf("a newer descriptor of a known relay: %v", got)
	}
	r.tested(r.members[quiet.ID].descriptor, false, validAfter)
	if got := r.admit(newcomer, validAfter); got.Result != directory.Added {
		t.Errorf("one is silent: %v", got)
	}
	if len(r.members) != maxMembers {
		t.Errorf("%d members", len(r.members))
	}
}

// What was admitted is there after a restart, and what was forgotten is not.
func TestRosterRestores(t *testing.T) {
	before := newTestRoster(nil)
	stays, goes := describe(t, 1), describe(t, 2)
	before.admit(stays, validAfter)
	before.admit(goes, validAfter)
	before.mu.Lock()
	before.remove(goes.ID)
	before.mu.Unlock()
	before.forgetDropped()
	before.store.SaveDescriptor(wire.ID{1}, []byte("garbage"))
	after := newRoster(before.network, before.store, before.gate, before.log)
	if err := after.restore(validAfter.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if after.descriptor(stays.Digest()) == nil || after.descriptor(goes.Digest()) != nil || len(after.members) != 1 {
		t.Errorf("%d relays are restored", len(after.members))
	}
	late := newRoster(before.network, before.store, before.gate, before.log)
	if err := late.restore(validAfter.Add(48 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	if len(late.members) != 0 {
		t.Error("an old descriptor is restored")
	}
}

// What could not be written down is not acknowledged.
func TestNotStored(t *testing.T) {
	r := newTestRoster(nil)
	empty := r.store
	r.store = full{empty}
	for range 2 {
		if got := r.admit(describe(t, 1), validAfter); got.Result != directory.Refused || !strings.Contains(got.Reason, "cannot store") {
			t.Errorf("answer %v", got)
		}
	}
	r.store = empty
	if got := r.admit(describe(t, 1), validAfter); got.Result != directory.Known {
		t.Errorf("when it can be stored: %v", got)
	}
	if kept, _ := r.store.Descriptors(); len(kept) != 1 {
		t.Errorf("%d descriptors are stored", len(kept))
	}
}

// full is a store that takes no descriptors.
type full struct{ Store }

func (full) SaveDescriptor(wire.ID, []byte) error { return errors.New("disk full") }

// Flags compare relays with one another.
func TestEntries(t *testing.T) {
	r := newTestRoster(nil)
	var want []wire.ID
	add := func(i int, ok bool, since time.Time, changes ...func(*netdoc.Descriptor)) wire.ID {
		d := describe(t, i, changes...)
		if got := r.admit(d, since); got.Result != directory.Added {
			t.Fatal(got)
		}
		r.tested(d, ok, since)
		want = append(want, d.ID)
		return d.ID
	}
	fast := func(d *netdoc.Descriptor) { d.Bandwidth = 1 << 20 }
	noExit := func(d *netdoc.Descriptor) { d.Policy = netdoc.Policy{} }
	now := validAfter.Add(time.Hour)
	flags := map[wire.ID]netdoc.Flags{}
	for i := range 9 {
		flags[add(i, true, validAfter, fast)] = netdoc.Running | netdoc.Exit | netdoc.Fast | netdoc.Stable | netdoc.Guard
	}
	flags[add(10, true, validAfter, noExit)] = netdoc.Running | netdoc.Stable
	flags[add(11, true, now, fast)] = netdoc.Running | netdoc.Exit | netdoc.Fast
	flags[add(12, false, validAfter, fast)] = 0
	untested := describe(t, 13)
	r.admit(untested, validAfter)

	entries := r.entries(now)
	slices.SortFunc(want, netdoc.CompareIDs)
	if !slices.EqualFunc(entries, want, func(e netdoc.VoteEntry, id wire.ID) bool { return e.ID == id }) {
		t.Fatalf("%d entries, want %d, ascending", len(entries), len(want))
	}
	for _, e := range entries {
		if e.Flags != flags[e.ID] {
			t.Errorf("%s: %v, want %v", r.members[e.ID].descriptor.Nickname, e.Flags, flags[e.ID])
		}
	}
	// Long enough is long enough.
	for _, e := range r.entries(now.Add(time.Hour)) {
		if d := r.members[e.ID].descriptor; d.Nickname == "relay11" && !e.Flags.Has(netdoc.Stable|netdoc.Guard) {
			t.Errorf("after an hour of rounds of 5 s: %v", e.Flags)
		}
	}
}
