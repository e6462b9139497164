package relay

import (
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

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
			rotated := began.Add(24 * time.Hour)
			if err := k.tend(rotated, nil); err != nil || k.old == nil {
				t.Fatalf("not rotated: %v", err)
			}
			late := rotated.Add(time.Hour)
			c := &netdoc.Consensus{ValidUntil: late.Add(valid).UnixMilli(), Relays: []netdoc.Relay{{ID: test.lister, OnionKeys: []netdoc.OnionKey{replaced.document()}}}}
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
