package state

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"torproxy/relay"
	"torproxy/wire/onion"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func newKey(t *testing.T) relay.OnionKey {
	t.Helper()
	key, err := onion.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return relay.OnionKey{Private: key, From: noon.UnixMilli(), Until: noon.Add(24 * time.Hour).UnixMilli()}
}

func openOnion(t *testing.T, d *Dir, now time.Time) (*Onion, error) {
	t.Helper()
	o, erased, err := d.OpenOnion(now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o, erased
}

func packet(k relay.OnionKey, at time.Time, n byte) onion.ReplayEntry {
	return onion.ReplayEntry{Key: k.Private.Digest(), Hour: hourOf(at), Digest: [16]byte{n, 1}}
}

func peeled(t *testing.T, o *Onion) (all []onion.ReplayEntry) {
	t.Helper()
	if err := o.Peeled(func(e onion.ReplayEntry) { all = append(all, e) }); err != nil {
		t.Fatal(err)
	}
	return all
}

// begin starts a relay's first session, with two keys that have peeled a packet each.
func begin(t *testing.T, d *Dir) (*Onion, []relay.OnionKey) {
	t.Helper()
	o, erased := openOnion(t, d, noon)
	if erased != nil || len(o.Keys()) != 0 {
		t.Fatal("an empty directory has keys, or had", erased)
	}
	keys := []relay.OnionKey{newKey(t), newKey(t)}
	keys[1].Last = noon.Add(time.Hour).UnixMilli()
	if err := o.Save(keys); err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		if err := o.Append(packet(k, noon, byte(i))); err != nil {
			t.Fatal(err)
		}
	}
	return o, keys
}

func sameKeys(a, b []relay.OnionKey) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i].Private.Bytes(), b[i].Private.Bytes()) || a[i].From != b[i].From || a[i].Until != b[i].Until || a[i].Last != b[i].Last {
			return false
		}
	}
	return true
}

// TestOnionGoesOn begins a second session after an orderly end, and after the process was killed.
func TestOnionGoesOn(t *testing.T) {
	for _, orderly := range []bool{true, false} {
		if !orderly && bootID() == "" {
			continue // it is TestOnionErased's then
		}
		d := open(t)
		o, keys := begin(t, d)
		if orderly {
			if err := o.Close(); err != nil {
				t.Fatal(err)
			}
			if err := o.Append(packet(keys[0], noon, 9)); err == nil {
				t.Error("a packet was taken after Close")
			}
		}
		o, erased := openOnion(t, d, noon)
		if erased != nil || !sameKeys(o.Keys(), keys) {
			t.Fatalf("orderly %v: the keys are gone: %v", orderly, erased)
		}
		if got := peeled(t, o); len(got) != 2 || got[0] != packet(keys[0], noon, 0) || got[1] != packet(keys[1], noon, 1) {
			t.Errorf("orderly %v: remembered %v", orderly, got)
		}
		o.Close()
	}
}

// TestOnionCutShort finds a record that was being written when the process was killed.
func TestOnionCutShort(t *testing.T) {
	d := open(t)
	o, keys := begin(t, d)
	o.Close()
	info, _ := os.Stat(d.Path(replayName))
	if err := os.Truncate(d.Path(replayName), info.Size()-5); err != nil {
		t.Fatal(err)
	}
	o, erased := openOnion(t, d, noon)
	if erased != nil || len(peeled(t, o)) != 1 {
		t.Fatal(erased)
	}
	if err := o.Append(packet(keys[0], noon, 7)); err != nil {
		t.Fatal(err)
	}
	if got := peeled(t, o); len(got) != 2 || got[1] != packet(keys[0], noon, 7) {
		t.Errorf("remembered %v", got)
	}
}

// TestOnionErased breaks what the keys' safety rests on.
func TestOnionErased(t *testing.T) {
	flip := func(name string, at int64) func(*testing.T, *Dir) {
		return func(t *testing.T, d *Dir) {
			data, err := os.ReadFile(d.Path(name))
			if err != nil {
				t.Fatal(err)
			}
			data[at] ^= 1
			if err := os.WriteFile(d.Path(name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, *Dir) {
		return func(t *testing.T, d *Dir) {
			if err := os.Remove(d.Path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name  string
		spoil func(*testing.T, *Dir)
		later time.Duration
		says  string
	}{
		{"machine stopped", func(t *testing.T, d *Dir) {
			if err := d.markSession(markRunning("another boot")); err != nil {
				t.Fatal(err)
			}
		}, 0, "stopped uncleanly"},
		{"no mark", remove(sessionName), 0, sessionName},
		{"no replay file", remove(replayName), 0, replayName},
		{"header", flip(replayName, 3), 0, "damaged"},
		{"oldest hour", flip(replayName, int64(len(replayMagic))), 0, "damaged"},
		{"record", flip(replayName, int64(headerSize)+recordSize+11), 0, "damaged"},
		{"keys", flip(onionName, 0), 0, "damaged"},
		{"clock set back", func(*testing.T, *Dir) {}, -2 * time.Hour, "set back"},
	} {
		d := open(t)
		o, _ := begin(t, d)
		o.Close()
		test.spoil(t, d)
		o, erased := openOnion(t, d, noon.Add(test.later))
		if erased == nil || !strings.Contains(erased.Error(), test.says) {
			t.Errorf("%s: erased because of %v", test.name, erased)
		}
		if len(o.Keys()) != 0 || len(peeled(t, o)) != 0 {
			t.Errorf("%s: it goes on with what there was", test.name)
		}
		if _, err := os.Stat(d.Path(onionName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the keys' file is still there", test.name)
		}
		o.Close()
	}
}

func TestLost(t *testing.T) {
	for _, c := range []struct {
		mark, boot string
		lost       bool
	}{
		{markClean, "a", false}, {markClean, "", false},
		{markRunning("a"), "a", false}, {markRunning("a"), "b", true},
		{markRunning(""), "", true}, {"", "a", true}, {"cle", "a", true},
	} {
		if got := lost(c.mark, c.boot); got != c.lost {
			t.Errorf("%q under boot %q: %v", c.mark, c.boot, got)
		}
	}
}

// TestOnionExpire lets hours pass.
func TestOnionExpire(t *testing.T) {
	d := open(t)
	o, keys := begin(t, d)
	for n := range byte(3) {
		if err := o.Append(packet(keys[0], noon.Add(time.Duration(n)*time.Hour), 10+n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Expire(hourOf(noon)); err != nil || len(peeled(t, o)) != 5 {
		t.Errorf("nothing had expired: %v", err)
	}
	if err := o.Save(keys[:1]); err != nil {
		t.Fatal(err)
	}
	if err := o.Expire(hourOf(noon) + 1); err != nil {
		t.Fatal(err)
	}
	want := []onion.ReplayEntry{packet(keys[0], noon.Add(time.Hour), 11), packet(keys[0], noon.Add(2*time.Hour), 12), packet(keys[0], noon.Add(time.Hour), 13)}
	if err := o.Append(want[2]); err != nil {
		t.Fatal(err)
	}
	o.Close()
	o, erased := openOnion(t, d, noon.Add(2*time.Hour))
	if erased != nil {
		t.Fatal(erased)
	}
	got := peeled(t, o)
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("remembered %v, want %v", got, want)
	}
	if info, _ := os.Stat(d.Path(replayName)); info.Size() != int64(headerSize)+3*recordSize {
		t.Errorf("the file has %d bytes", info.Size())
	}
}

func FuzzDecodeOnion(f *testing.F) {
	key, _ := onion.GenerateKey()
	good, _ := encodeOnion([]relay.OnionKey{{Private: key, From: 1, Until: 2}})
	f.Add(good)
	f.Add([]byte(`{"keys":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := decodeOnion(data)
		if err == nil && (len(keys) < 1 || len(keys) > 2) {
			t.Errorf("%d keys", len(keys))
		}
	})
}

func FuzzReplay(f *testing.F) {
	rec := record{hour: 5}
	f.Add(append(encodeHeader(4), rec.encode()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		name := t.TempDir() + "/replay"
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := openReplay(name, 100)
		if err != nil {
			return
		}
		defer r.close()
		n := 0
		if err := r.each(func(record) { n++ }); err != nil || n > len(data)/recordSize {
			t.Errorf("%d records, %v", n, err)
		}
	})
}
