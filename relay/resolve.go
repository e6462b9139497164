package relay

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"torproxy/wire"
	"torproxy/wire/mux"
)

// serveResolve answers a stream of kind resolve (section 4.1 of SPEC.md): the addresses of a name, IPv4
// first, or the names of an address. What the policy lets nobody reach is not told either: a resolver knows
// the names of the networks that it stands in, and they are no stranger's business.
func (h *lastHop) serveResolve(st *mux.Stream) (reason wire.Reason) {
	r := h.relay
	if trace := r.cfg.Trace.Begin; trace != nil {
		trace(st.Target())
	}
	defer r.lookups.Add(-1)
	if r.lookups.Add(1) > maxLookups {
		return wire.ReasonResourceLimit
	}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	st.OnDone(cancel)
	answers, reason := r.dialer.resolve(ctx, h.names, st.Target())
	packed := wire.AppendAnswers(nil, answers)
	if reason == 0 && len(packed) == 0 {
		reason = wire.ReasonDNS // no name among them that can be told
	}
	if reason != 0 {
		return reason
	}
	st.Connect()
	if _, err := st.Write(packed); err == nil {
		st.CloseWrite()
	}
	return 0
}

// resolve looks up a name, or the names of an address; reason says why there is no answer.
func (d *dialer) resolve(ctx context.Context, n *names, target string) ([]wire.Answer, wire.Reason) {
	if !d.policy().IsExit() {
		return nil, wire.ReasonPolicy
	}
	if addr, err := netip.ParseAddr(target); err == nil {
		return d.pointers(ctx, n, addr.Unmap())
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ask := func(network string) <-chan lookup {
		to := make(chan lookup, 1)
		asking.Go(func() {
			addrs, reason := n.addresses(ctx, network, target)
			to <- lookup{addrs: addrs, reason: reason}
		})
		return to
	}
	v4, v6 := ask("ip4"), ask("ip6")
	return d.both(ctx, v4, v6)
}

// both collects the answers of the two families. When one has come, the other gets familyWait: a server
// that drops questions for IPv6 must not hold up IPv4.
func (d *dialer) both(ctx context.Context, v4, v6 <-chan lookup) ([]wire.Answer, wire.Reason) {
	var four, six []wire.Answer
	var late <-chan time.Time
	reason := wire.Reason(0)
	for range 2 {
		var l lookup
		select {
		case l = <-v4:
			four = d.tellable(l.addrs)
		case l = <-v6:
			six = d.tellable(l.addrs)
		case <-late:
		case <-ctx.Done():
			return nil, wire.ReasonTimeout
		}
		if len(l.addrs) > 0 && len(four)+len(six) == 0 {
			l.reason = wire.ReasonPolicy
		}
		reason = moreTelling(reason, l.reason)
		if len(four)+len(six) > 0 && late == nil {
			late = time.After(familyWait)
		}
	}
	if len(four)+len(six) > 0 {
		reason = 0
	}
	return append(four, six...), reason
}

// tellable returns answers for the addresses that somebody could be let to.
func (d *dialer) tellable(addrs []netip.Addr) (answers []wire.Answer) {
	for _, addr := range addrs {
		if d.reachable(addr.Unmap()) {
			answers = append(answers, wire.Answer{Addr: addr, TTL: nameLife})
		}
	}
	return answers
}

// pointers returns the names of an address.
func (d *dialer) pointers(ctx context.Context, n *names, addr netip.Addr) ([]wire.Answer, wire.Reason) {
	if !d.reachable(addr) {
		return nil, wire.ReasonPolicy
	}
	hosts, reason := n.pointers(ctx, addr)
	if reason != 0 {
		return nil, reason
	}
	var answers []wire.Answer
	for _, host := range hosts {
		answers = append(answers, wire.Answer{Name: host, TTL: nameLife})
	}
	return answers, 0
}
