package relay

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"torproxy/wire"
)

// race makes one connection to a name of many addresses (RFC 8305, "Happy Eyeballs"): both families are
// looked up at once, and an address that does not answer is not waited for; the next one is tried beside
// it, in turn of each family, and the first connection wins.
//
//	ask for IPv6 and IPv4
//	  IPv6 came, or IPv4 came and IPv6 did not within resolutionDelay: first attempt
//	  attemptDelay later, or at once when no attempt runs: the next
//	  connected: end the other attempts
//
// It belongs to one goroutine.
type race struct {
	dialer *dialer
	port   uint16

	families [2]family // IPv6, which is preferred, and IPv4
	turn     int       // the family whose turn it is
	found    time.Time // when the first address came

	began    time.Time // the newest attempt
	tried    int
	running  int
	attempts chan attempt
	begun    sync.WaitGroup // lookups and attempts
	reason   wire.Reason    // why there is no connection, the most telling cause so far
}

// family is one address family of a race.
type family struct {
	network string
	asking  bool
	addrs   []netip.AddrPort // that the policy allows, yet to be tried
}

// attempt is the outcome of one.
type attempt struct {
	conn net.Conn
	err  error
}

// lookup is the outcome of one family's.
type lookup struct {
	family int
	addrs  []netip.Addr
	reason wire.Reason
}

func newRace(d *dialer, port uint16) *race {
	return &race{dialer: d, port: port, families: [2]family{{network: "ip6"}, {network: "ip4"}}, attempts: make(chan attempt)}
}

// run returns the connection, or why there is none.
func (r *race) run(ctx context.Context, n *names, host string) (net.Conn, wire.Reason) {
	ctx, cancel := context.WithCancel(ctx)
	defer r.begun.Wait()
	defer cancel()
	lookups := make(chan lookup, len(r.families))
	for i := range r.families {
		f := &r.families[i]
		f.asking = true
		r.begun.Go(func() {
			addrs, reason := n.addresses(ctx, f.network, host)
			lookups <- lookup{i, addrs, reason}
		})
	}
	for {
		due, more := r.next()
		if more && !due.After(time.Now()) {
			r.start(ctx)
			continue
		}
		if !more && r.running == 0 && !r.asking() {
			return nil, r.reason
		}
		var timer <-chan time.Time
		if more {
			timer = time.After(time.Until(due))
		}
		select {
		case l := <-lookups:
			r.families[l.family].asking = false
			r.take(l)
		case a := <-r.attempts:
			r.running--
			if a.err == nil {
				return a.conn, 0
			}
			r.failed(reasonOf(a.err))
		case <-timer:
		case <-ctx.Done():
			r.failed(wire.ReasonTimeout)
			return nil, r.reason
		}
	}
}

// take adds what a lookup has found, as far as the policy allows it.
func (r *race) take(l lookup) {
	if l.reason != 0 {
		r.failed(l.reason)
		return
	}
	f := &r.families[l.family]
	if f.addrs = r.dialer.allowed(l.addrs, r.port); len(f.addrs) == 0 {
		r.failed(wire.ReasonPolicy)
		return
	}
	if r.found.IsZero() {
		r.found = time.Now()
	}
}

// next returns when the next attempt is due; more is false while there is no address for it.
func (r *race) next() (due time.Time, more bool) {
	v6, v4 := &r.families[0], &r.families[1]
	switch {
	case r.tried == maxAddresses || len(v6.addrs)+len(v4.addrs) == 0:
		return time.Time{}, false
	case r.tried == 0 && len(v6.addrs) == 0 && v6.asking:
		return r.found.Add(resolutionDelay), true
	case r.running == 0:
		return time.Time{}, true
	default:
		return r.began.Add(attemptDelay), true
	}
}

// start begins an attempt at the next address; more was true.
func (r *race) start(ctx context.Context) {
	f := &r.families[r.turn]
	if len(f.addrs) == 0 {
		f = &r.families[1-r.turn]
	} else {
		r.turn = 1 - r.turn
	}
	to := f.addrs[0]
	f.addrs = f.addrs[1:]
	r.began = time.Now()
	r.tried++
	r.running++
	r.begun.Go(func() {
		conn, err := r.dialer.connect(ctx, "tcp", to.String())
		select {
		case r.attempts <- attempt{conn, err}:
		case <-ctx.Done(): // another one has won
			if err == nil {
				conn.Close()
			}
		}
	})
}

func (r *race) asking() bool { return r.families[0].asking || r.families[1].asking }

// telling orders the causes of a failure: that one address refused says more than that another one is in a
// network this machine has no route to.
var telling = []wire.Reason{
	wire.ReasonRefused, wire.ReasonTimeout, wire.ReasonHostUnreachable, wire.ReasonNetUnreachable,
	wire.ReasonPolicy, wire.ReasonInternal, wire.ReasonDNS, 0,
}

func (r *race) failed(reason wire.Reason) { r.reason = moreTelling(r.reason, reason) }

func moreTelling(a, b wire.Reason) wire.Reason {
	if slices.Index(telling, b) < slices.Index(telling, a) {
		return b
	}
	return a
}
