package proxy

import (
	"context"
	"time"

	"torproxy/proxy/need"
)

const (
	aheadAtOnce = 4               // spares being built at the same time
	aheadBurst  = 32              // spares built one behind the other,
	aheadRefill = 2 * time.Second // and then one in so long

	guardInterval = time.Second // circuits that wait for better guards are looked at so often

	retryMin = 100 * time.Millisecond
	retryMax = 10 * time.Second
)

// keeper decides when spares are built. It belongs to one goroutine. It rests ever longer after a build that
// failed, from building the same kind, and after a spare that did not last, from building at all: else a
// relay that accepts circuits and drops them would keep us building.
type keeper struct {
	proxy  *Proxy
	done   chan finished // has room for all builds under way
	under  int           // builds under way
	rests  map[need.Kind]rest
	lost   rest      // after spares that did not last
	tokens int       // spares that may be built at once still
	filled time.Time // when there was last one token more
}

// finished is how the build of a spare ended.
type finished struct {
	kind need.Kind
	err  error
}

// rest is a time in which nothing is built.
type rest struct {
	until time.Time
	next  time.Duration // how long the next one is, if nothing succeeds before
}

// longer returns a rest that begins now.
func (r rest) longer(now time.Time) rest {
	length := max(r.next, retryMin)
	return rest{now.Add(length), min(2*length, retryMax)}
}

func newKeeper(p *Proxy) *keeper {
	return &keeper{
		proxy: p, done: make(chan finished, aheadAtOnce), rests: map[need.Kind]rest{},
		tokens: aheadBurst, filled: time.Now(),
	}
}

// fill begins builds for what is missing, one at a time while something is wrong: one tells as much as many.
func (k *keeper) fill(ctx context.Context) {
	p := k.proxy
	c := p.newest()
	if c == nil {
		return
	}
	limit := aheadAtOnce
	if len(k.rests) > 0 || k.lost.next > retryMin {
		limit = 1
	}
	now := time.Now()
	if p.pool.lostSpare() && !now.Before(k.lost.until) {
		k.lost = k.lost.longer(now)
	}
	for k.under < limit && !now.Before(k.lost.until) {
		next, missing := p.pool.missing(k.awake(p.wanted(c), now), k.under)
		if !missing {
			if now.After(k.lost.until.Add(k.lost.next)) { // they have lasted
				k.lost = rest{}
			}
			return
		}
		if !k.token(now) {
			return
		}
		k.under++
		go func() { k.done <- finished{next.Kind, p.buildSpare(ctx, c, next)} }()
	}
}

// finished notes the end of a build.
func (k *keeper) finished(f finished) {
	k.under--
	if f.err == nil {
		delete(k.rests, f.kind)
	} else {
		k.rests[f.kind] = k.rests[f.kind].longer(time.Now())
	}
}

// awake leaves out what is rested from, and forgets the rests of what is wanted no more.
func (k *keeper) awake(wanted []ahead, now time.Time) []ahead {
	rests := map[need.Kind]rest{}
	var awake []ahead
	for _, a := range wanted {
		r, resting := k.rests[a.Kind]
		if resting {
			rests[a.Kind] = r
		}
		if !resting || !now.Before(r.until) {
			awake = append(awake, a)
		}
	}
	k.rests = rests
	return awake
}

// wait returns how long it takes until a rest ends, or there is a token again.
func (k *keeper) wait() time.Duration {
	now := time.Now()
	wait := tendInterval
	sooner := func(t time.Time) {
		if d := t.Sub(now); d > 0 {
			wait = min(wait, d)
		}
	}
	sooner(k.lost.until)
	for _, r := range k.rests {
		sooner(r.until)
	}
	if k.proxy.pool.waitsForGuards() {
		wait = min(wait, guardInterval)
	}
	if k.tokens == 0 {
		sooner(k.filled.Add(aheadRefill))
	}
	return wait
}

// token takes one of the spares that may be built now.
func (k *keeper) token(now time.Time) bool {
	if more := int(now.Sub(k.filled) / aheadRefill); more > 0 {
		k.tokens = min(k.tokens+more, aheadBurst)
		k.filled = k.filled.Add(time.Duration(more) * aheadRefill)
	}
	if k.tokens == 0 {
		return false
	}
	k.tokens--
	return true
}
