package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"torproxy/wire"
)

// Resolver looks names up for the exit; *net.Resolver is one. Hosts come with a final dot: no search list
// of the machine is for strangers' names.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// names is what the exit knows of names for one circuit: lookups that run, which equal questions join, and
// answers that are kept for a short while. It is made with the circuit and goes with it.
//
// What a cache tells a neighbour. From a cache that circuits share, each could learn what the others
// visit: it asks for a name, and an answer from the cache comes sooner (or, asked together with a name that
// is known to be there, in another order: "Timeless Timing Attacks and Preload Defenses in Tor's DNS
// Cache", USENIX Security 2023). So nothing is shared: no answer, no running lookup. Nor does the time to
// live of an answer leave the exit, for what is left of it would tell when somebody asked before: the
// client is told nameLife, whatever the answer's own is, as Tor's exits tell 60 seconds.
//
// That leaves the cache of the machine's own resolver, or its provider's, which this process does not
// rule: whoever asks it through two circuits can tell. A resolver that keeps names fresh by itself
// (prefetch, long minimum lifetimes) makes that less telling.
//
// Its methods may be called from any goroutine.
type names struct {
	ctx      context.Context // of the circuit
	resolver Resolver
	kept     *atomic.Int64 // answers of all circuits, at most maxKept
	running  sync.WaitGroup

	mu      sync.Mutex
	answers map[question]*answer
}

// question is what can be asked: the addresses of one family ("ip4", "ip6") of a name, or the names of an
// address ("ptr").
type question struct{ network, host string }

// answer is the outcome of one lookup. What it holds may be read once done is closed.
type answer struct {
	done   chan struct{}
	until  time.Time // it is good that long
	addrs  []netip.Addr
	hosts  []string
	reason wire.Reason // why there is none
}

// found reports whether the lookup is over.
func (a *answer) found() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// old reports whether there is an answer that is no longer good.
func (a *answer) old(now time.Time) bool { return a.found() && !now.Before(a.until) }

func newNames(ctx context.Context, resolver Resolver, kept *atomic.Int64) *names {
	return &names{ctx: ctx, resolver: resolver, kept: kept, answers: map[question]*answer{}}
}

// close gives back the room of what is kept and waits for the lookups. The circuit's context has ended and
// nobody asks any more.
func (n *names) close() {
	n.running.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept.Add(-int64(len(n.answers)))
	clear(n.answers)
}

// lookup returns the answer to a question; reason is zero if there is one. It waits no longer than ctx; the
// lookup itself goes on for others, until resolveTimeout or the circuit's end.
func (n *names) lookup(ctx context.Context, q question) *answer {
	a := n.ask(q)
	select {
	case <-a.done:
		return a
	case <-ctx.Done():
		return &answer{reason: wire.ReasonTimeout}
	}
}

// ask returns the answer that is kept or on its way, or begins a lookup.
func (n *names) ask(q question) *answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if a := n.answers[q]; a != nil && !a.old(now) {
		return a
	}
	n.forget(q)
	a := &answer{done: make(chan struct{})}
	if n.room(now) {
		n.answers[q] = a
	}
	n.running.Go(func() { n.find(q, a) })
	return a
}

// room reports whether one more answer may be kept, after it has thrown out the old ones or, if none is
// old, the oldest. Without room (all of them are being asked for, or the process keeps maxKept) the answer
// serves only who waits for it. n.mu is held.
func (n *names) room(now time.Time) bool {
	if len(n.answers) >= maxNames {
		var oldest question
		var until time.Time
		for q, a := range n.answers {
			switch {
			case a.old(now):
				n.forget(q)
			case a.found() && (until.IsZero() || a.until.Before(until)):
				oldest, until = q, a.until
			}
		}
		if len(n.answers) >= maxNames {
			n.forget(oldest)
		}
	}
	if len(n.answers) >= maxNames {
		return false
	}
	if n.kept.Add(1) > maxKept {
		n.kept.Add(-1)
		return false
	}
	return true
}

// forget throws out what is kept for a question, if anything is. n.mu is held.
func (n *names) forget(q question) {
	if _, ok := n.answers[q]; ok {
		delete(n.answers, q)
		n.kept.Add(-1)
	}
}

// find looks a question up. Of failures only "does not exist" is worth keeping: others may pass.
func (n *names) find(q question, a *answer) {
	defer close(a.done)
	ctx, cancel := context.WithTimeout(n.ctx, resolveTimeout)
	defer cancel()
	var err error
	if q.network == "ptr" {
		a.hosts, err = n.resolver.LookupAddr(ctx, q.host)
		a.hosts = a.hosts[:min(len(a.hosts), maxAnswers)]
	} else {
		a.addrs, err = n.resolver.LookupNetIP(ctx, q.network, q.host)
		a.addrs = a.addrs[:min(len(a.addrs), maxAnswers)]
	}
	life := nameLife
	if len(a.addrs) == 0 && len(a.hosts) == 0 {
		a.reason, life = failedLookup(ctx, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	a.until = time.Now().Add(life)
}

// failedLookup returns what the client is told of a lookup without an answer, and how long that holds.
func failedLookup(ctx context.Context, err error) (wire.Reason, time.Duration) {
	var failed *net.DNSError
	switch {
	case ctx.Err() != nil, errors.As(err, &failed) && failed.IsTimeout:
		return wire.ReasonTimeout, 0
	case err == nil, errors.As(err, &failed) && failed.IsNotFound:
		return wire.ReasonDNS, missLife
	}
	return wire.ReasonDNS, 0
}

var (
	loopback4 = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	loopback6 = []netip.Addr{netip.IPv6Loopback()}
)

// addresses returns the addresses of one family of a name.
func (n *names) addresses(ctx context.Context, network, host string) ([]netip.Addr, wire.Reason) {
	host, ok := absolute(host)
	if !ok {
		return nil, wire.ReasonDNS
	}
	if host == "localhost." || strings.HasSuffix(host, ".localhost.") { // RFC 6761, section 6.3
		if network == "ip4" {
			return loopback4, 0
		}
		return loopback6, 0
	}
	a := n.lookup(ctx, question{network, host})
	return a.addrs, a.reason
}

// pointers returns the names of an address.
func (n *names) pointers(ctx context.Context, addr netip.Addr) ([]string, wire.Reason) {
	a := n.lookup(ctx, question{"ptr", addr.String()})
	return a.hosts, a.reason
}

// absolute returns a name in lower case and with a final dot, or false for what no resolver should be
// asked: names in which a program might see an address (127.1, 0x7f000001), and onion addresses, which
// would tell the resolver what somebody wanted to visit (RFC 7686, section 2).
func absolute(host string) (string, bool) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" || last == "onion" || isNumber(last) || strings.ContainsAny(host, ":%[]/") {
		return "", false
	}
	return host + ".", true
}

// isNumber reports whether a label is one by the rules of URLs (https://url.spec.whatwg.org/#ends-in-a-number-checker).
func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}
