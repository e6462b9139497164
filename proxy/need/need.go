// Package need predicts which circuits will be wanted next, from which were wanted lately: so that they stand
// when they are, and none is built for nobody.
//
//   - What was wanted once will be wanted again: a port, and what else was asked of the relays, is remembered
//     for an hour after its last use, as Tor's path-spec (section 2.1.1) has it. The ports of the web count
//     as used from the start, and as long as anything is.
//   - What came at once will come at once again: a browser that opens asks with several labels in one moment,
//     and each wants a circuit of its own. The largest such burst of the last hour, and one more, is kept
//     ready; of the ports of the web never less than a start needs.
//   - Who has asked for nothing for an hour gets one circuit ready, and no more, until he asks again.
//
// The package is pure: time comes in as an argument.
package need

import (
	"cmp"
	"slices"
	"time"
)

const (
	memory    = time.Hour        // Tor's PredictedPortsRelevanceTime
	burst     = 10 * time.Second // what is asked for within it comes at once
	stretches = 6                // of the memory, for the largest burst of each
	maxKinds  = 32               // remembered; one more takes the place of that least lately used
	idle      = 1                // circuits for a client that nobody uses
)

// Most is how many unused circuits of one kind are ever wanted.
const Most = 16

// web are the ports that a person's next request goes to most probably, whatever the last one did.
var web = []uint16{443, 80}

// Kind is a kind of circuit: to a port (0: wherever), along relays that Choice names in its own way; "" is what
// requests ask for that ask for nothing of their own.
type Kind struct {
	Port   uint16
	Choice string
}

// Need is how many circuits of a kind should stand that nobody uses yet.
type Need struct {
	Kind
	Circuits int
}

// Habits is what was wanted lately. It is not safe for concurrent use.
type Habits struct {
	least int       // of circuits for the web while the client is in use
	asked time.Time // last
	kinds []habit   // the least lately used first
}

// habit is what was wanted of one kind.
type habit struct {
	Kind
	used   time.Time
	opened time.Time // when the burst of now began
	now    int       // how many fresh circuits it has taken so far
	most   [stretches]struct {
		number int64 // of the stretch since the epoch
		burst  int
	}
}

// New returns the habits of a client that starts now, and wants at least so many circuits for the web while
// it is in use; a negative number wants none of any kind, ever.
func New(least int, now time.Time) *Habits { return &Habits{least: min(least, Most), asked: now} }

// Asked notes that a circuit of a kind was wanted; fresh says that it took one that nobody had used.
func (h *Habits) Asked(k Kind, fresh bool, now time.Time) {
	h.asked = now
	i := slices.IndexFunc(h.kinds, func(o habit) bool { return o.Kind == k })
	this := habit{Kind: k, opened: now}
	if i >= 0 {
		this = h.kinds[i]
		h.kinds = slices.Delete(h.kinds, i, i+1)
	} else if len(h.kinds) == maxKinds {
		h.kinds = slices.Delete(h.kinds, 0, 1)
	}
	this.used = now
	if fresh {
		this.fresh(now)
	}
	h.kinds = append(h.kinds, this)
}

// fresh counts a fresh circuit.
func (o *habit) fresh(now time.Time) {
	if now.Sub(o.opened) > burst || now.Before(o.opened) {
		o.opened, o.now = now, 0
	}
	o.now++
	number := stretch(now)
	m := &o.most[number%stretches]
	if m.number != number {
		m.number, m.burst = number, 0
	}
	m.burst = max(m.burst, o.now)
}

// burst returns the largest burst that is remembered.
func (o *habit) burst(now time.Time) int {
	largest := 0
	for _, m := range o.most {
		if n := stretch(now); m.number > n-stretches && m.number <= n {
			largest = max(largest, m.burst)
		}
	}
	return largest
}

func stretch(t time.Time) int64 { return t.Unix() / int64((memory / stretches).Seconds()) }

// InUse reports whether anything was asked for lately; a start counts.
func (h *Habits) InUse(now time.Time) bool { return now.Sub(h.asked) < memory }

// Needs returns what should stand now, the largest need first. One circuit may serve several of them.
func (h *Habits) Needs(now time.Time) []Need {
	if h.least < 0 {
		return nil
	}
	if !h.InUse(now) {
		return []Need{{Kind{Port: web[0]}, idle}}
	}
	var needs []Need
	add := func(k Kind, circuits int) {
		if i := slices.IndexFunc(needs, func(n Need) bool { return n.Kind == k }); i >= 0 {
			needs[i].Circuits = max(needs[i].Circuits, circuits)
		} else {
			needs = append(needs, Need{k, circuits})
		}
	}
	for _, port := range web {
		add(Kind{Port: port}, h.least)
	}
	for _, o := range h.kinds {
		if now.Sub(o.used) < memory {
			add(o.Kind, min(o.burst(now)+1, Most))
		}
	}
	slices.SortStableFunc(needs, func(a, b Need) int { return cmp.Compare(b.Circuits, a.Circuits) })
	return needs
}
