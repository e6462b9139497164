package frontdoor

import (
	"hash/maphash"
	"net/http"
	"sync"
	"time"
)

const (
	maxDelivered  = 4096      // replies that are remembered; the oldest are forgotten first
	deliveredTime = time.Hour // at most; browsers throw things away, too
)

// delivered remembers what browsers have got lately and may keep, so that exits need not send it for every
// page of a site again. When it is wrong, a browser's request goes out itself: nothing is lost but time.
// It knows names by hashes only.
type delivered struct {
	seed maphash.Seed

	mu    sync.Mutex
	until map[uint64]time.Time // to when it is fresh
	order [maxDelivered]uint64 // a ring
	next  int
}

func newDelivered() *delivered {
	return &delivered{seed: maphash.MakeSeed(), until: map[uint64]time.Time{}}
}

// note remembers a reply that a page's browser gets, if it says for how long the browser may keep it.
func (d *delivered) note(name pushName, request *http.Request, reply *http.Response) {
	control := directives(reply.Header)
	delete(control, "s-maxage") // which is not for browsers
	if request.Method != http.MethodGet || request.Header["Referer"] == nil || reply.StatusCode != http.StatusOK ||
		control.has("no-store") || control.has("no-cache") {
		return
	}
	lifetime, said := freshness(reply.Header, control)
	if lifetime = min(lifetime-age(reply.Header), deliveredTime); !said || lifetime <= 0 {
		return
	}
	key := maphash.Comparable(d.seed, name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.until[key]; !known {
		delete(d.until, d.order[d.next])
		d.order[d.next] = key
		d.next = (d.next + 1) % maxDelivered
	}
	d.until[key] = time.Now().Add(lifetime)
}

// has reports whether a browser has a reply.
func (d *delivered) has(name pushName) bool {
	key := maphash.Comparable(d.seed, name)
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.until[key])
}

// renew forgets everything.
func (d *delivered) renew() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.until)
}
