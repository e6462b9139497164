package guard

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// TestMonths runs clients for half a year in a network in which relays come, go, and do not answer though they
// are listed, over connections that break, and counts the guards that each used: in all, and within a month.
func TestMonths(t *testing.T) {
	const (
		days     = 180
		inAll    = 10
		inAMonth = 7
	)
	var sums [2]int
	const clients = 6
	for seed := range uint64(clients) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLife(t, seed, 300)
			for range days {
				l.day()
			}
			month := l.most(30 * day)
			t.Logf("%d guards used, %d within a month, %d contacted, %d of them explored; %d of %d dials failed", len(l.w.used), month, len(l.w.contacted), len(l.w.explored), l.failed, l.dials)
			if len(l.w.used) > inAll || month > inAMonth {
				t.Errorf("%d guards used in half a year, %d within a month; bounds are %d and %d", len(l.w.used), month, inAll, inAMonth)
			}
			if len(l.w.contacted) > len(l.w.used)+10 || len(l.w.explored) > 3 {
				t.Errorf("%d guards contacted, %d used, %d contacted when they were no primaries", len(l.w.contacted), len(l.w.used), len(l.w.explored))
			}
			if l.failed*100 > l.dials {
				t.Errorf("%d of %d dials failed", l.failed, l.dials)
			}
			sums[0] += len(l.w.used)
			sums[1] += month
		})
	}
	t.Logf("on average %.1f guards in half a year, %.1f in the worst month", float64(sums[0])/clients, float64(sums[1])/clients)
}

// life is a client's days in a network with relays that come and go.
type life struct {
	w             *world
	next          int               // number of the next new relay
	asleep        map[int]time.Time // relays that are away for a while, and until when
	when          map[wire.ID][]time.Time
	dials, failed int
}

func newLife(t testing.TB, seed uint64, relays int) *life {
	return &life{
		w: newWorld(t, seed, relays), next: relays,
		asleep: map[int]time.Time{}, when: map[wire.ID][]time.Time{},
	}
}

// day is one day: of the relays one in 200 leaves for good, one in 40 is away for hours, one in 100 is listed
// but does not answer for some hours; as many come as go. The client is there for some hours, in which its
// connection breaks now and then, and starts anew.
func (l *life) day() {
	w := l.w
	on := w.rnd.IntN(12)
	for hour := range 24 {
		l.churn()
		if hour < on || hour >= on+8 {
			w.sleep(time.Hour)
			continue
		}
		if hour == on && w.rnd.IntN(2) == 0 {
			w.restart()
		}
		w.update()
		l.hour()
	}
}

func (l *life) churn() {
	w := l.w
	for n, until := range l.asleep {
		if w.real.After(until) {
			w.add(n)
			delete(l.asleep, n)
		}
	}
	for n := range l.next {
		if w.relays[n] == nil {
			continue
		}
		switch x := w.rnd.IntN(200 * 24); {
		case x == 0:
			delete(w.relays, n)
			w.add(l.next)
			l.next++
		case x < 6:
			delete(w.relays, n)
			l.asleep[n] = w.real.Add(time.Duration(1+w.rnd.IntN(20)) * time.Hour)
		case x < 8:
			w.dead[n] = true
		case x < 1000:
			w.dead[n] = false
		}
	}
}

// hour is one hour of the client: a dial every ten minutes, and sometimes no connection.
func (l *life) hour() {
	w := l.w
	end := w.now.Add(time.Hour)
	for w.now.Before(end) {
		if w.rnd.IntN(40) == 0 {
			w.off = true
			w.dial(nil)
			w.off = false
		}
		var exit int
		fits := func(r *netdoc.Relay) bool { return numberOf(r.ID) != exit }
		exit = w.rnd.IntN(300)
		l.dials++
		if r := w.dial(fits); r == nil {
			l.failed++
		} else {
			l.when[r.ID] = append(l.when[r.ID], w.now)
		}
		w.sleep(10 * time.Minute)
	}
}

// most returns how many guards were used within any time of that length, at most.
func (l *life) most(span time.Duration) int {
	type use struct {
		id wire.ID
		at time.Time
	}
	var all []use
	for id, times := range l.when {
		for _, at := range times {
			all = append(all, use{id, at})
		}
	}
	slices.SortFunc(all, func(a, b use) int { return a.at.Compare(b.at) })
	most, first := 0, 0
	count := map[wire.ID]int{}
	for _, u := range all {
		count[u.id]++
		for ; u.at.Sub(all[first].at) > span; first++ {
			if count[all[first].id]--; count[all[first].id] == 0 {
				delete(count, all[first].id)
			}
		}
		most = max(most, len(count))
	}
	return most
}
