package localnet_test

import (
	"errors"
	"sync"
	"testing"

	"torproxy/proxy/localnet"
	"torproxy/relay"
)

// TestStopAndStartAtOnce stops and starts one relay from many goroutines: each call does what it says or
// waits until it can, and the network survives them.
func TestStopAndStartAtOnce(t *testing.T) {
	n := startNetwork(t, localnet.Config{Relays: 5, Exits: 1})
	id := n.Relays()[0].ID
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := n.StartRelay(id); err != nil && !errors.Is(err, localnet.ErrStopped) {
				t.Errorf("start: %v", err)
			}
		})
		all.Go(func() {
			if err := n.StopRelay(id); err != nil {
				t.Errorf("stop: %v", err)
			}
		})
	}
	all.Wait()
	if err := n.StopRelay(id); err != nil || n.Relays()[0].Running {
		t.Errorf("stop: %v, and it runs: %v", err, n.Relays()[0].Running)
	}
}

// TestStartWhileClosing starts and adds relays while the network ends: it ends with all of them.
func TestStartWhileClosing(t *testing.T) {
	n, err := localnet.Start(localnet.Config{Relays: 5, Exits: 1})
	if err != nil {
		t.Fatal(err)
	}
	for n.StartRelay(n.Relays()[0].ID) != nil { // until it runs
	}
	var all sync.WaitGroup
	for _, r := range n.Relays() {
		all.Go(func() {
			n.StopRelay(r.ID)
			n.StartRelay(r.ID)
			n.AddRelay()
		})
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	if _, err := n.AddRelay(); !errors.Is(err, localnet.ErrStopped) {
		t.Errorf("add a relay afterwards: %v, want %v", err, localnet.ErrStopped)
	}
	for _, r := range n.Relays() {
		if r.Running {
			t.Errorf("%s runs", r.Nickname)
		}
	}
}

// TestBadRelay checks that a relay which cannot be made is the answer to who wanted it, and not the end of
// the network.
func TestBadRelay(t *testing.T) {
	n := startNetwork(t, localnet.Config{Relays: 5, Exits: 1, Relay: func(i int, c *relay.Config) {
		if i == 5 {
			c.Identity = nil
		}
	}})
	for {
		_, err := n.AddRelay()
		if err == nil {
			t.Fatal("a relay without an identity was added")
		}
		if !errors.Is(err, localnet.ErrStopped) { // it has not begun to run
			break
		}
	}
	id := n.Relays()[0].ID
	if len(n.Relays()) != 5 || n.StopRelay(id) != nil || n.StartRelay(id) != nil {
		t.Errorf("the network is not as it was: %+v", n.Relays())
	}
}
