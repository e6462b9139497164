package relay

import (
	"context"
	"errors"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/onion"
)

// kept is a Store in memory that outlives a relay.
type kept struct {
	keys   []OnionKey
	peeled []onion.ReplayEntry
	saves  int
	oldest uint32
	fails  error
}

func (s *kept) Keys() []OnionKey { return s.keys }

func (s *kept) Peeled(f func(onion.ReplayEntry)) error {
	for _, e := range s.peeled {
		f(e)
	}
	return s.fails
}

func (s *kept) Save(keys []OnionKey) error {
	if s.fails == nil {
		s.saves++
		s.keys = keys
	}
	return s.fails
}

func (s *kept) Append(e onion.ReplayEntry) error {
	if s.fails == nil {
		s.peeled = append(s.peeled, e)
	}
	return s.fails
}

func (s *kept) Expire(oldest uint32) error {
	s.oldest = oldest
	return nil
}

// TestReplayAcrossRestart sends a packet to a relay, and again to another with the same identity that has
// what the first one kept.
func TestReplayAcrossRestart(t *testing.T) {
	store := &kept{}
	onBed(t, 2, func(i int, c *Config) {
		if i == 0 {
			c.Store = store
		}
	}, func(b *bed) {
		packet, _ := b.create(0)
		if _, _, err := b.send(0, packet); err != nil {
			t.Fatal(err)
		}
		if len(store.keys) != 1 || len(store.peeled) != 1 {
			t.Fatalf("kept %d keys and %d packets", len(store.keys), len(store.peeled))
		}
		again, err := newKeys(b.ids[0], nil, store, b.relays[0].cfg.Network.Params, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := again.published()[0], b.relays[0].keys.published()[0]; string(got.Public) != string(want.Public) || got.Until != want.Until {
			t.Error("the key is another one")
		}
		if _, err := again.ring.Peel(packet, time.Now()); !errors.Is(err, onion.ErrCreate) {
			t.Errorf("peeled a second time: %v", err)
		}
		fresh, _ := b.create(0)
		if _, err := again.ring.Peel(fresh, time.Now()); err != nil {
			t.Errorf("a fresh packet: %v", err)
		}
	})
}

// TestStoreFails turns a circuit away when its packet cannot be remembered.
func TestStoreFails(t *testing.T) {
	store := &kept{}
	onBed(t, 1, func(_ int, c *Config) { c.Store = store }, func(b *bed) {
		packet, _ := b.create(0)
		store.fails = errors.New("disk full")
		_, _, err := b.send(0, packet)
		wantReset(t, err, wire.ResetOverloaded)
	})
}

// TestKeysRotate follows the keys through a rotation and its end, and a restart in between.
func TestKeysRotate(t *testing.T) {
	store, now := &kept{}, time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	onBed(t, 1, nil, func(b *bed) {
		params := b.relays[0].cfg.Network.Params // a consensus is valid for 100 hours
		// A key that begins at the relay's own moment lives for exactly a day.
		now = rotation(b.ids[0], 24*time.Hour, now)
		start := func(now time.Time) *keys {
			k, err := newKeys(b.ids[0], nil, store, params, now)
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		tend := func(k *keys, now time.Time, want int) {
			t.Helper()
			if err := k.tend(now, nil); err != nil {
				t.Fatal(err)
			}
			if len(store.keys) != want {
				t.Fatalf("%d keys are kept, not %d", len(store.keys), want)
			}
		}
		k := start(now)
		tend(k, now.Add(23*time.Hour), 1)
		if store.oldest != uint32(now.Unix()/3600+22) {
			t.Errorf("packets are kept from hour %d on", store.oldest)
		}
		store.fails = errors.New("disk full")
		if err := k.tend(now.Add(24*time.Hour), nil); err == nil || len(k.changed) > 0 {
			t.Errorf("a key that is not kept was announced: %v", err)
		}
		store.fails = nil
		tend(k, now.Add(24*time.Hour), 2)
		if len(k.changed) != 1 {
			t.Error("the rotation was not announced")
		}
		k = start(now.Add(30 * time.Hour))
		if k.old == nil || k.published()[0].From != now.Add(24*time.Hour).UnixMilli() {
			t.Error("the keys are not those before the restart")
		}
		tend(k, now.Add(124*time.Hour), 2) // until then a consensus may list the old one,
		tend(k, now.Add(125*time.Hour), 2) // an hour for clocks,
		tend(k, now.Add(126*time.Hour), 2) // and then it is erased: now the next one is due
		if k.old.From != now.Add(24*time.Hour).UnixMilli() {
			t.Error("the first key is still there")
		}
		if k = start(now.Add(900 * time.Hour)); k.published()[0].Until <= now.Add(900*time.Hour).UnixMilli() {
			t.Error("a key whose time is over was taken up")
		}
	})
}

// TestKeysDamaged makes new keys when the packets of the kept ones cannot be read.
func TestKeysDamaged(t *testing.T) {
	key, err := onion.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	store := &damaged{kept{keys: []OnionKey{{Private: key, From: 1, Until: 1 << 50}}}}
	onBed(t, 1, func(_ int, c *Config) { c.Store = store }, func(b *bed) {
		if got := b.relays[0].keys.published()[0]; string(got.Public) == string(key.Public()) || store.saves != 1 {
			t.Error("the key is used")
		}
	})
}

type damaged struct{ kept }

func (*damaged) Peeled(func(onion.ReplayEntry)) error { return errors.New("damaged") }

// TestDrain stops a relay that has a circuit: no other comes in, and it ends when that one has.
func TestDrain(t *testing.T) {
	onBed(t, 1, nil, func(b *bed) {
		packet, _ := b.create(0)
		s, _, err := b.send(0, packet)
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(b.t.Context(), time.Second)
		defer cancel()
		if left := b.relays[0].Drain(short); left != 1 {
			t.Fatalf("%d circuits are left, not 1", left)
		}
		packet, _ = b.create(0)
		_, _, err = b.send(0, packet)
		wantReset(t, err, wire.ResetOverloaded)
		began := time.Now()
		time.AfterFunc(10*time.Second, func() { s.Reset(wire.ResetDestroyed) })
		if left := b.relays[0].Drain(b.t.Context()); left != 0 {
			t.Errorf("%d circuits are left", left)
		}
		if took := time.Since(began); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
