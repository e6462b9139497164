package proxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// Resolve asks an exit for the addresses of a name, IPv4 first, through a circuit as Dial would use one for
// the same label. An address is its own answer, and costs no circuit. The exit tells only addresses that
// it might connect to; and those that are private, loopback or otherwise special it can tell in a private
// network only (netdoc.Network.IsPrivate): elsewhere they would be this machine's own, or its neighbours', to a
// program that connects to them by another way. Another exit is asked where Dial would ask another.
//
// A program that then dials an address in the place of the name loses by it: the name's other addresses,
// the exit's choice between them, and with Config.IsolateDestinations the circuit.
func (p *Proxy) Resolve(ctx context.Context, req Request) ([]netip.Addr, error) {
	if addr, ok := literal(req.Target); ok {
		return []netip.Addr{addr}, nil
	}
	if req.Target == "" || strings.Contains(req.Target, ":") || !printable(req.Target) {
		return nil, errors.New("proxy: not a host name that can be asked for: it has no port, and may need its xn-- form")
	}
	answers, err := p.lookUp(ctx, req)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, a := range answers {
		if a.Addr.IsValid() && !slices.Contains(addrs, a.Addr) {
			addrs = append(addrs, a.Addr)
		}
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	return addrs, nil
}

// ResolveAddr asks an exit for the name of an address (PTR), as Resolve does for addresses. Whoever owns an
// address may give it any name.
func (p *Proxy) ResolveAddr(ctx context.Context, req Request) (string, error) {
	addr, ok := literal(req.Target)
	if !ok {
		return "", errors.New("proxy: not an address whose name can be asked for")
	}
	req.Target = addr.String()
	answers, err := p.lookUp(ctx, req)
	if err != nil {
		return "", err
	}
	return answers[0].Name, nil
}

// literal reads an address without a port; IPv6 may stand in brackets.
func literal(host string) (netip.Addr, bool) {
	if inner, bracketed := strings.CutPrefix(host, "["); bracketed {
		if host, bracketed = strings.CutSuffix(inner, "]"); !bracketed {
			return netip.Addr{}, false
		}
	}
	addr, err := netip.ParseAddr(host)
	return addr.WithZone("").Unmap(), err == nil
}

// lookUp asks for the names of an address, or the addresses of a name. It returns at least one answer, and
// only such as were asked for.
func (p *Proxy) lookUp(ctx context.Context, req Request) (answers []wire.Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	req.Kind = 0
	e := p.newErrand(req, req.Target, 0)
	err = e.run(ctx, func(h *held) (err error) {
		answers, err = e.lookUp(ctx, h)
		return err
	})
	if err != nil {
		e.failed(err)
		return nil, err
	}
	e.connected(OutcomeResolved)
	return answers, nil
}

// lookUp asks the exit of one circuit.
func (e *errand) lookUp(ctx context.Context, h *held) ([]wire.Answer, error) {
	pool := &e.proxy.pool
	defer pool.release(h)
	began := time.Now()
	answering, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	heard := h.circuit.Heard() // before the question: the END may be answered by the time it is given up
	answers, err := h.circuit.Resolve(answering, e.req.Target)
	if err == nil {
		answers, err = wanted(answers, e.req.Target, e.proxy.cfg.Network.IsPrivate())
	}
	if ctx.Err() == nil && answering.Err() != nil {
		err = &wire.EndError{Reason: wire.ReasonTimeout}
	}
	switch {
	case err != nil && ctx.Err() != nil:
		pool.awaitWord(h, heard) // given up; a circuit that has gone mute does not answer that either
	case err != nil && lost(err):
		pool.retire(h)
	}
	e.trace.asked(StepResolve, h, time.Since(began), err)
	return answers, err
}

// wanted keeps the answers that were asked for, and special addresses only if any address will do. None is an
// exit's way to say that it may not tell any.
func wanted(answers []wire.Answer, target string, anyAddress bool) ([]wire.Answer, error) {
	_, byAddr := literal(target)
	kept := slices.DeleteFunc(answers, func(a wire.Answer) bool {
		return a.Addr.IsValid() == byAddr || a.Addr.IsValid() && !anyAddress && netdoc.IsSpecial(a.Addr)
	})
	if len(kept) == 0 {
		return nil, &wire.EndError{Reason: wire.ReasonDNS, Remote: true}
	}
	return kept, nil
}
