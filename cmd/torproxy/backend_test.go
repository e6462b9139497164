package main

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"torproxy/proxy/frontdoor"
	"torproxy/proxy/localnet"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

func TestMergeRelays(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:1")
	listed := []netdoc.Relay{
		{ID: wire.ID{1}, Nickname: "foreign", Addresses: []netip.AddrPort{at}, Flags: netdoc.Running},
		{ID: wire.ID{2}, Nickname: "stopped", Addresses: []netip.AddrPort{at}, Flags: netdoc.Running | netdoc.Exit, Weight: 5},
	}
	embedded := []localnet.RelayInfo{{ID: wire.ID{3}, Nickname: "new", Address: at, Running: true}, {ID: wire.ID{2}}}
	want := []string{"foreign true [Running]", "stopped false [Running Exit]", "new true []"}
	got := mergeRelays(listed, embedded)
	for i, r := range got {
		if s := r.Nickname + fmt.Sprint(" ", r.Running, " ", r.Flags); i >= len(want) || s != want[i] || r.Address != at.String() {
			t.Errorf("relay %d: %s, want %s", i, s, want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d relays", len(got))
	}
}

func TestSteerWithoutAnEmbeddedNetwork(t *testing.T) {
	b := &backend{client: &client{}}
	_, err := b.AddRelay()
	for _, err := range []error{err, b.StopRelay(wire.ID{}), b.StartRelay(wire.ID{})} {
		if !errors.Is(err, frontdoor.ErrNotEmbedded) {
			t.Error(err)
		}
	}
}
