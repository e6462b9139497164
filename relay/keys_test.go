package relay

import (
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

const testLifetime = 24 * time.Hour

// Each hour of the day a twenty-fourth of the relays rotates, and each of them once a day.
func TestRotationsSpreadOverTheDay(t *testing.T) {
	const relays = 2400
	start := time.Date(2026, 3, 1, 5, 0, 0, 0, time.UTC)
	var hours [24]int
	for i := range relays {
		id := wire.ID{byte(i), byte(i >> 8), 7}
		first := rotation(id, testLifetime, start)
		if wait := first.Sub(start); wait <= 0 || wait > testLifetime {
			t.Fatalf("the next rotation is %v away", wait)
		}
		if second := rotation(id, testLifetime, first); second.Sub(first) != testLifetime {
			t.Fatalf("%v from one rotation to the next", second.Sub(first))
		}
		if before := rotation(id, testLifetime, first.Add(-time.Millisecond)); !before.Equal(first) {
			t.Fatalf("just before %v it is to be at %v", first, before)
		}
		hours[int(first.Sub(start).Hours())%24]++
	}
	for hour, n := range hours {
		if n < 60 || n > 145 { // 100 expected, standard deviation below 10
			t.Errorf("%d of %d relays rotate in hour %d", n, relays, hour)
		}
	}
}

// A key ends at the relay's moment, however late its making, and never at once.
func TestKeyLivesUntilTheMoment(t *testing.T) {
	k := &keys{id: wire.ID{1}, lifetime: testLifetime}
	moment := rotation(k.id, testLifetime, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	for _, c := range []struct {
		before time.Duration // the moment
		life   time.Duration
	}{
		{testLifetime, testLifetime},
		{12 * time.Hour, 12 * time.Hour},
		{testLifetime / leastLife, testLifetime / leastLife},
		{testLifetime/leastLife - time.Millisecond, testLifetime + testLifetime/leastLife - time.Millisecond},
		{time.Millisecond, testLifetime + time.Millisecond},
		{0, testLifetime},
		{-time.Minute, testLifetime - time.Minute},
	} {
		now := moment.Add(-c.before)
		if life := k.end(now).Sub(now); life != c.life {
			t.Errorf("made %v before the moment, a key lives %v, want %v", c.before, life, c.life)
		}
	}
}

// TestOldKey checks how long a replaced key stays: an hour longer than the last consensus that lists it for
// this relay can be used, and not a moment longer because somebody else lists it as his.
func TestOldKey(t *testing.T) {
	const valid = 3 * time.Hour
	self, other := wire.ID{1}, wire.ID{2}
	for name, test := range map[string]struct {
		lister wire.ID
		stays  time.Duration // after the rotation
	}{
		"listed once more": {self, valid + time.Hour + afterExpiry},
		"copied":           {other, valid + afterExpiry},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			params := netdoc.Params{Round: netdoc.Duration(time.Hour), Valid: netdoc.Duration(valid), OnionKeyLifetime: netdoc.Duration(24 * time.Hour)}
			k, err := newKeys(self, nil, memory{}, params, began)
			if err != nil {
				t.Fatal(err)
			}
			replaced := k.current
			rotated := time.UnixMilli(replaced.Until)
			if err := k.tend(rotated, nil); err != nil || k.old == nil {
				t.Fatalf("not rotated: %v", err)
			}
			late := rotated.Add(time.Hour)
			listed := replaced.document()
			c := &netdoc.Consensus{ValidUntil: late.Add(valid).UnixMilli(), Relays: []netdoc.Relay{{ID: test.lister, Key: listed.Ref()}}}
			k.tend(late, c)
			k.tend(rotated.Add(test.stays-time.Minute), c)
			if k.old == nil {
				t.Error("the old key was erased too early")
			}
			k.tend(rotated.Add(test.stays+time.Minute), c)
			if k.old != nil {
				t.Error("the old key stayed too long")
			}
		})
	}
}
