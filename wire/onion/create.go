package onion

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"torproxy/wire"
)

// CREATE (SPEC.md section 3.2), in the order in which it happens:
//
//  1. Create       the client encapsulates to each onion key and wraps the heads, last hop first
//  2. Keyring.Peel each relay opens its layer (open), checks and reads its head (peel), judges it (judge)
//
// created.go goes on with 3. Peeled.Answer and 4. Handshake.Finish.

// Roles of a head.
const (
	roleForward = 1
	roleEnd     = 2
)

// head is the part of a slot that its hop reads. Flags and reserved are always zero, and so is next at the end.
type head struct {
	role     byte
	flags    byte
	hour     uint32 // Unix seconds / 3600
	next     wire.ID
	c        [dhSize]byte
	reserved [2]byte
}

// put writes the head to b[0:headSize].
func (h *head) put(b []byte) {
	w := cryptobyte.NewFixedBuilder(b[:0:headSize])
	w.AddUint8(h.role)
	w.AddUint8(h.flags)
	w.AddUint32(h.hour)
	w.AddBytes(h.next[:])
	w.AddBytes(h.c[:])
	w.AddBytes(h.reserved[:])
	w.BytesOrPanic()
}

// parseHead reads b[0:headSize]. Every byte string of that length is a head: peel and judge check its values.
func parseHead(b []byte) (h head) {
	s := cryptobyte.String(b[:headSize])
	if !s.ReadUint8(&h.role) || !s.ReadUint8(&h.flags) || !s.ReadUint32(&h.hour) ||
		!s.CopyBytes(h.next[:]) || !s.CopyBytes(h.c[:]) || !s.CopyBytes(h.reserved[:]) || !s.Empty() {
		panic("onion: headSize is not the size of a head")
	}
	return h
}

// hours returns the hours since 1970 that a head carries and the replay cache counts in.
func hours(t time.Time) int64 { return t.Unix() / 3600 }

// Hop names one relay of a path, as the consensus lists it.
type Hop struct {
	ID       wire.ID
	OnionKey []byte // the relay's current public onion key, PublicKeySize bytes
}

// hop is what the client keeps of one hop until CREATED is back.
type hop struct {
	id     wire.ID
	digest [32]byte
	enc    []byte
	tag    [macSize]byte
	first  *firstPass
	c      *ecdh.PrivateKey
}

// Handshake is a CREATE under way: the client's secrets for its hops. Finish ends it.
type Handshake struct {
	redacted
	hops []hop
	done atomic.Bool
}

// Create seals a CREATE packet of wire.CreateSize bytes for a path of 1 to wire.MaxHops different relays, first hop
// first. now is the time of the consensus's world, not more than an hour off, or every relay drops the packet. A
// packet is sent once: if it fails, call Create again.
func Create(path []Hop, now time.Time) (packet []byte, h *Handshake, err error) {
	if len(path) < 1 || len(path) > wire.MaxHops {
		return nil, nil, fmt.Errorf("onion: a path of %d hops: a circuit has 1 to %d", len(path), wire.MaxHops)
	}
	hops, heads, err := plan(path, now)
	if err != nil {
		return nil, nil, err
	}
	return wrap(hops, heads), &Handshake{hops: hops}, nil
}

// plan makes the secrets of every hop, and what its head will say.
func plan(path []Hop, now time.Time) (hops []hop, heads []head, err error) {
	hops, heads = make([]hop, len(path)), make([]head, len(path))
	seen := make(map[wire.ID]bool, len(path))
	for i := range path {
		if seen[path[i].ID] {
			return nil, nil, errors.New("onion: a path with the same relay twice")
		}
		seen[path[i].ID] = true
		if hops[i], err = newHop(&path[i]); err != nil {
			return nil, nil, fmt.Errorf("onion: hop %d: %w", i+1, err)
		}
		heads[i] = head{role: roleEnd, hour: uint32(hours(now)), c: [dhSize]byte(hops[i].c.PublicKey().Bytes())}
		if i > 0 {
			heads[i-1].role, heads[i-1].next = roleForward, path[i].ID
		}
	}
	return hops, heads, nil
}

// newHop encapsulates to a relay's onion key and makes c for it. One c for two hops would link them.
func newHop(to *Hop) (h hop, err error) {
	public, err := kem.NewPublicKey(to.OnionKey)
	if err != nil {
		return hop{}, fmt.Errorf("onion key: %w", err)
	}
	h = hop{id: to.ID, digest: publicDigest(to.OnionKey)}
	enc, ctx, err := hpke.NewSender(public, kdf, aead, hpkeInfo(h.id, h.digest))
	if err != nil {
		return hop{}, fmt.Errorf("encapsulating: %w", err)
	}
	h.enc = enc
	if h.first, err = newFirstPass(ctx); err != nil {
		return hop{}, err
	}
	if h.c, err = newShare(); err != nil {
		return hop{}, err
	}
	return h, nil
}

// newShare makes an X25519 key pair, c or y.
func newShare() (*ecdh.PrivateKey, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("onion: making an X25519 key: %w", err)
	}
	return key, nil
}

// wrap builds the packet around the heads, last hop first, and sets each hop's tag.
//
// Behind the last hop's head the body is random, not zero, for zeros would tell that hop how long the path is; its
// end is the filler, which is what the relays before will have made of the zeros that they append.
func wrap(hops []hop, heads []head) []byte {
	packet := make([]byte, wire.CreateSize)
	body := packet[encSize+macSize:]
	last := len(hops) - 1
	filler := newFiller(hops[:last])
	for i := last; i >= 0; i-- {
		if i == last {
			_, _ = rand.Read(body) // never fails: crypto/rand ends the process instead
		} else {
			copy(body[slotSize:], body)
			copy(body[headSize:], hops[i+1].enc)
			copy(body[headSize+encSize:], hops[i+1].tag[:])
		}
		heads[i].put(body)
		keystream(&hops[i].first.stream).XORKeyStream(body, body)
		if i == last {
			copy(body[len(body)-len(filler):], filler)
		}
		hops[i].tag = hops[i].first.seal(body)
	}
	copy(packet, hops[0].enc)
	copy(packet[encSize:], hops[0].tag[:])
	return packet
}

// newFiller returns the end of the last hop's body: one slot per hop before it, each as the relays make it from
// the zeros behind the body and every later relay's key stream.
func newFiller(before []hop) []byte {
	filler := make([]byte, len(before)*slotSize)
	var ks [keyRange]byte
	for i := range before {
		clear(ks[:])
		keystream(&before[i].first.stream).XORKeyStream(ks[:], ks[:])
		n := (i + 1) * slotSize
		subtle.XORBytes(filler, filler[:n], ks[keyRange-n:])
	}
	return filler
}

// ErrCreate is what every error of Keyring.Peel but ErrFull wraps. The stream is reset with wire.ResetCreate whatever the
// cause: which check failed is for the local log only, and tells a prober nothing.
var ErrCreate = errors.New("CREATE not accepted")

// ErrFull is Keyring.Peel's error for a packet that could not be remembered: reset the stream with
// wire.ResetOverloaded. It does not wrap ErrCreate. An answer would be wrong: sent twice, the packet would be
// answered twice under one reply key, and the two answers' difference would show the sender that it ends here.
var ErrFull = errors.New("replay cache full")

var (
	errSize     = fmt.Errorf("%w: not %d bytes", ErrCreate, wire.CreateSize)
	errTag      = fmt.Errorf("%w: it opens under none of the onion keys", ErrCreate)
	errHour     = fmt.Errorf("%w: its hour is not now", ErrCreate)
	errReplay   = fmt.Errorf("%w: it was peeled before", ErrCreate)
	errLowOrder = fmt.Errorf("%w: its X25519 share has low order", ErrCreate)
)

// Peeled is a CREATE packet without this relay's layer, and the secrets that its answer needs.
type Peeled struct {
	redacted

	// Verdict is 0, or the status that Answer must be given: wire.StatusRefused for a head that breaks the
	// protocol. Last, Next and Packet are then unset.
	Verdict wire.Status

	Last   bool    // this relay is the last hop
	Next   wire.ID // else: the next relay. The caller refuses it if it is where the packet came from
	Packet []byte  // the CREATE for Next, wire.CreateSize bytes, to be written at most once; nil at the last hop

	// Replay is what the replay cache now holds of this packet, for a file that outlives the process. It is
	// written before Packet goes on.
	Replay ReplayEntry

	answered   atomic.Bool
	transcript hash.Hash
	first      *firstPass
	y          [dhSize]byte // Y
	dh         []byte       // X25519(y, C)
}

// onionKey is one key of a Keyring: what HPKE binds it to, and the packets that it has peeled.
type onionKey struct {
	private *PrivateKey
	info    []byte
	seen    *replayCache
}

// open decapsulates and checks the tag: HPKE cannot fail on a forged enc, it yields other keys, so the tag decides.
func (k *onionKey) open(packet []byte) (*firstPass, error) {
	ctx, err := hpke.NewRecipient(packet[:encSize], k.private.key, kdf, aead, k.info)
	if err != nil {
		return nil, errTag
	}
	first, err := newFirstPass(ctx)
	if err != nil {
		return nil, errTag
	}
	tag := first.seal(packet[encSize+macSize:])
	if subtle.ConstantTimeCompare(tag[:], packet[encSize:encSize+macSize]) != 1 {
		return nil, errTag
	}
	return first, nil
}

// peel takes the layer off a packet that open has accepted. The order of the checks is section 3.2's: hour, replay
// cache, then the share; only what passes them gets an answer at all.
func (k *onionKey) peel(self wire.ID, packet []byte, first *firstPass, now int64, share shareSource) (*Peeled, error) {
	b := make([]byte, keyRange)
	copy(b, packet[encSize+macSize:])
	keystream(&first.stream).XORKeyStream(b, b)
	hd := parseHead(b)
	if d := int64(hd.hour) - now; d < -1 || d > 1 {
		return nil, errHour
	}
	enc, tag := packet[:encSize], packet[encSize:encSize+macSize]
	entry := ReplayEntry{Key: k.private.digest, Hour: hd.hour, Digest: digestEnc(enc)}
	switch k.seen.add(entry.Digest, int64(hd.hour), now) {
	case replayed:
		return nil, errReplay
	case stale:
		return nil, errHour
	case full:
		return nil, ErrFull
	}
	p := &Peeled{transcript: newTranscript(self, k.private.digest, enc, tag, hd.c[:]), first: first}
	if err := p.agree(&hd, share); err != nil {
		return nil, err
	}
	p.Replay = entry
	p.judge(&hd, self, b[headSize:headSize+wire.CreateSize])
	return p, nil
}

// shareSource makes y: newShare, or in vectors a fixed one.
type shareSource func() (*ecdh.PrivateKey, error)

// agree makes y and computes X25519(y, C). Without it no answer could be authenticated, so a C of low order, which
// makes the result zero whatever y is, is not answered.
func (p *Peeled) agree(hd *head, share shareSource) error {
	c, err := ecdh.X25519().NewPublicKey(hd.c[:])
	if err != nil {
		return errLowOrder
	}
	y, err := share()
	if err != nil {
		return err
	}
	if p.dh, err = y.ECDH(c); err != nil {
		return errLowOrder
	}
	p.y = [dhSize]byte(y.PublicKey().Bytes())
	return nil
}

// judge reads the head's values and fills in where the rest goes, or the verdict.
func (p *Peeled) judge(hd *head, self wire.ID, rest []byte) {
	end := hd.role == roleEnd
	switch {
	case !end && hd.role != roleForward,
		hd.flags != 0,
		hd.reserved != [2]byte{},
		end && !hd.next.IsZero(),
		!end && (hd.next.IsZero() || hd.next == self):
		p.Verdict = wire.StatusRefused
	case end:
		p.Last = true
	default:
		p.Next, p.Packet = hd.next, rest
	}
}
