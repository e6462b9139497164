package directory

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire/netdoc"
)

// A client asks for the keys of all relays before it uses a consensus, and afterwards for those that are new.
func TestClientFetchesAllKeysThatItLacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, time.Hour, 30, func(round int) []int { return upTo(20 + round) })
		f.sail(func(c *Follower) {
			held := c.Current()
			if held == nil || len(held.Relays) != 20 || held.Keyless() != 0 {
				t.Fatalf("holds %v; problem: %v", held, c.Problem())
			}
			for i := range 20 {
				if r, ok := c.Lookup(relayID(i)); !ok || !bytes.Equal(r.OnionKey(), onionKey(i)) {
					t.Fatalf("relay %d has not its key", i)
				}
			}
			calls := f.take()
			if len(calls) != 2 || calls[0].to != calls[1].to || calls[1].path != KeysPath || calls[1].digests != 20 {
				t.Errorf("asked %+v, want the list and all keys of one authority", calls)
			}
			pass(time.Hour + 40*time.Minute)
			if now := c.Current(); len(now.Relays) != 21 || now.Keyless() != 0 || c.Previous() != held {
				t.Errorf("an hour later: %d relays, %d keys missing", len(now.Relays), now.Keyless())
			}
			calls = f.take()
			if len(calls) != 2 || !calls[0].patch || !calls[0].mirror || calls[1].digests != 1 || calls[1].to != calls[0].to {
				t.Errorf("asked %+v, want a difference and one key of one mirror", calls)
			}
			if into := calls[0].at - time.Hour; into < 6*time.Minute || into > 30*time.Minute {
				t.Errorf("came %v into the round", into)
			}
		})
	})
}

// For many keys a mirror is dialled even by a client that starts.
func TestManyKeysAreAskedOfMirrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, time.Hour, 70, func(int) []int { return upTo(70) })
		f.sail(func(c *Follower) {
			if c.Current() == nil {
				t.Fatal(c.Problem())
			}
			if calls := f.take(); len(calls) != 2 || calls[0].mirror || !calls[1].mirror || calls[1].digests != 70 {
				t.Errorf("asked %+v", calls)
			}
		})
	})
}

// Where mirrors are down, old, or spoil what they send, the authorities are asked in the same poll.
func TestMirrorsAreNotNeeded(t *testing.T) {
	for name, change := range map[string]func(*ship){
		"down":    func(s *ship) { s.down = true },
		"garbage": func(s *ship) { s.spoils = func([]byte) []byte { return []byte("garbage") } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, time.Hour, 10, func(int) []int { return upTo(10) })
				f.sail(func(c *Follower) {
					f.take()
					f.each(true, change)
					pass(time.Hour + 40*time.Minute)
					if c.Previous() == nil || c.Problem() != nil {
						t.Fatalf("no second consensus: %v", c.Problem())
					}
					calls := f.take()
					if len(calls) != mirrorsAsked+1 || calls[mirrorsAsked].mirror {
						t.Errorf("asked %+v, want %d mirrors and an authority", calls, mirrorsAsked)
					}
				})
			})
		})
	}
}

// A difference that is of no use is followed by the whole document, from the same server.
func TestBadDifferenceIsFollowedByTheDocument(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"cut":              func(b []byte) []byte { return b[:len(b)/2] },
		"a flipped bit":    func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"a bad signature":  func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"to another":       func(b []byte) []byte { b[8] ^= 1; return b },
		"only a beginning": func(b []byte) []byte { return b[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, time.Hour, 10, func(int) []int { return upTo(10) })
				f.sail(func(c *Follower) {
					f.take()
					f.each(true, func(s *ship) { s.spoils = spoil })
					pass(time.Hour + 40*time.Minute)
					calls := f.take()
					if c.Previous() == nil || len(calls) != 2 || !calls[0].patch || calls[1].patch || calls[0].to != calls[1].to {
						t.Errorf("asked %+v", calls)
					}
				})
			})
		})
	}
}

// A relay whose key nobody has is left out; servers that keep back more than a tenth stop the client from
// going over, and cannot choose its routes.
func TestKeysKeptBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, time.Hour, 20, func(int) []int { return upTo(20) })
		keepBack := func(n int) {
			for _, mirror := range []bool{true, false} {
				f.each(mirror, func(s *ship) {
					s.lacks = map[int]bool{}
					for i := range n {
						s.lacks[i] = true
					}
				})
			}
		}
		keepBack(3)
		f.sail(func(c *Follower) {
			problem, ok := errors.AsType[*KeysError](c.Problem())
			if c.Current() != nil || !ok || problem.Missing != 3 || problem.Relays != 20 {
				t.Fatalf("problem %v", c.Problem())
			}
			if c.Known(relayID(5)) {
				t.Error("a consensus without keys is used")
			}
			keepBack(2)
			pass(2 * time.Minute)
			if held := c.Current(); held == nil || held.Keyless() != 2 {
				t.Fatalf("with nine tenths of the keys: %v", c.Problem())
			}
			first := c.Current()
			keepBack(0)
			pass(2 * time.Minute)
			if held := c.Current(); held.Keyless() != 0 || held.Digest() != first.Digest() || c.Previous() != nil {
				t.Errorf("%d keys missing when all can be had", held.Keyless())
			}
			f.take()
			pass(20 * time.Minute)
			if calls := f.take(); len(calls) != 0 {
				t.Errorf("asked %+v with all keys at hand", calls)
			}
		})
	})
}

// What does not fit into one request is asked for in several, of one server.
func TestKeysComeInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, time.Hour, 0, func(int) []int { return nil })
		var digests []netdoc.Digest
		for i := range 3*keysPerRequest + 1 {
			digests = append(digests, netdoc.DigestOf([]byte{byte(i), byte(i >> 8)}))
		}
		digests[0], digests[keysPerRequest], digests[2*keysPerRequest] = netdoc.DigestOf(onionKey(1)), netdoc.DigestOf(onionKey(2)), netdoc.DigestOf(onionKey(3))
		digests[3*keysPerRequest] = netdoc.DigestOf(onionKey(4))
		f.relays = func(int) []int { return upTo(5) }
		c := NewFollower(FollowerConfig{Network: f.network, Client: f, Keys: f, Routes: true})
		from := source{Peer: PeerOf(f.network.Authorities[1])}
		if err := c.askKeys(t.Context(), from, digests); err != nil {
			t.Error(err)
		}
		asked := 0
		for _, call := range f.take() {
			if asked += call.digests; call.digests > keysPerRequest || call.to != from.ID {
				t.Errorf("asked %+v", call)
			}
		}
		if asked != len(digests) || len(c.keys.keys) != 4 {
			t.Errorf("asked for %d, holds %d", asked, len(c.keys.keys))
		}
	})
}

// One authority that keeps a key back costs a question to the next.
func TestOneServerLacksAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, time.Hour, 0, func(int) []int { return upTo(20) })
		f.servers[f.network.Authorities[2].ID].lacks[7] = true
		for range 10 {
			f.sail(func(c *Follower) {
				if held := c.Current(); held == nil || held.Keyless() != 0 {
					t.Errorf("%v", c.Problem())
				}
			})
		}
	})
}

// A mirror does not wait for keys to have a consensus, and holds the keys of the last two.
func TestMirrorHoldsTheKeysOfTwoConsensuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, time.Hour, 0, func(round int) []int { return []int{round, 100 + round} })
		m := NewFollower(FollowerConfig{Network: f.network, Client: f, Keys: f})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		for range 5 {
			pass(time.Hour)
		}
		if len(m.keys.keys) != 4 || m.Current() == nil {
			t.Errorf("holds %d keys of two consensuses of two relays", len(m.keys.keys))
		}
		if m.keys.key(netdoc.DigestOf(onionKey(0))) != nil || m.keys.key(m.Current().Relays[0].Key.Digest) == nil {
			t.Error("the keys are not those of the last consensuses")
		}
		cancel()
		<-ended
	})
}

// Keys from a file are as good as fetched ones, if the consensus names them.
func TestOfferKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testNetwork(4, time.Hour)
		f := NewFollower(FollowerConfig{Network: n, Routes: true})
		if f.OfferKeys(onionKey(1)) != 0 {
			t.Error("a key is taken before there is a consensus")
		}
		if err := f.Offer(consensusOf(t, n, bubbleStart, 1, 2)); err != nil || f.Current() != nil {
			t.Fatalf("used without keys; %v", err)
		}
		if got := f.OfferKeys(onionKey(1), onionKey(3), onionKey(1)); got != 1 || f.Current() != nil {
			t.Errorf("took %d of one good key", got)
		}
		if got := f.OfferKeys(onionKey(2)); got != 1 || f.Current() == nil || f.Problem() != nil {
			t.Errorf("took %d; problem %v", got, f.Problem())
		}
	})
}

func TestKeyRequest(t *testing.T) {
	digests := make([]netdoc.Digest, keysPerRequest+1)
	for i := range digests {
		digests[i] = netdoc.DigestOf(onionKey(i % 256))
		digests[i][0], digests[i][1] = byte(i), byte(i>>8)
	}
	good := appendKeyRequest(nil, digests[:keysPerRequest])
	if got, err := parseKeyRequest(good); err != nil || len(got) != keysPerRequest || got[5] != digests[5] {
		t.Errorf("%d digests: %v", len(got), err)
	}
	if int64(len(good)) != bodyLimit(KeysPath) {
		t.Errorf("the largest request is %d bytes, the server's limit %d", len(good), bodyLimit(KeysPath))
	}
	for name, bad := range map[string][]byte{
		"nothing":    {},
		"half a one": good[:digestSize/2],
		"cut":        good[:len(good)-1],
		"too many":   appendKeyRequest(nil, digests),
		"one twice":  append(good[:digestSize:digestSize], good[:digestSize]...),
	} {
		if _, err := parseKeyRequest(bad); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

// Only what was asked for, and is what its digest says, is kept.
func TestKeysAreKeptByTheirDigests(t *testing.T) {
	var s keyStore
	asked := []netdoc.Digest{netdoc.DigestOf(onionKey(1)), netdoc.DigestOf(onionKey(2))}
	spoilt := onionKey(2)
	spoilt[0] ^= 1
	answer := bytes.Join([][]byte{onionKey(3), onionKey(1), spoilt, onionKey(1), {1, 2, 3}}, nil)
	if n := s.takeAnswer(asked, answer); n != 1 || len(s.keys) != 1 || !bytes.Equal(s.key(asked[0]), onionKey(1)) {
		t.Errorf("took %d, holds %d", n, len(s.keys))
	}
	if s.put(asked[1], spoilt) || s.put(asked[1], nil) || s.put(netdoc.DigestOf(nil), nil) {
		t.Error("a key is kept that is not what its digest says")
	}
}

func FuzzParseKeyRequest(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, digestSize))
	f.Add(make([]byte, 3*digestSize+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if digests, err := parseKeyRequest(b); err == nil && !bytes.Equal(appendKeyRequest(nil, digests), b) {
			t.Errorf("%x reads as %d digests", b, len(digests))
		}
	})
}
