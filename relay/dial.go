package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// errPolicy is what an address that must not be dialled gives; it never leaves the relay.
var errPolicy = errors.New("relay: the exit policy does not allow this address")

// dialer makes an exit's connections. The policy is asked about the address that is dialled, after the
// name was resolved, and once more in the moment of the system call: what a name resolves to, and what a
// literal looks like, decides nothing. It is safe for concurrent use.
type dialer struct {
	policy   func() *netdoc.Policy
	own      func(netip.AddrPort) bool
	machine  *machine
	resolver Resolver // nil: the system's
	connect  func(ctx context.Context, network, address string) (net.Conn, error)
	kept     atomic.Int64            // answers in all circuits' names
	results  *[reasons]atomic.Uint64 // of dials; 0 is a connection
}

func newDialer(cfg *Config) *dialer {
	d := &dialer{
		policy: func() *netdoc.Policy { return &cfg.Policy }, own: cfg.Own, machine: newMachine(cfg.Advertise),
		resolver: cfg.Resolver, connect: cfg.Dial, results: new([reasons]atomic.Uint64),
	}
	if d.own == nil {
		d.own = func(netip.AddrPort) bool { return false }
	}
	if d.connect == nil {
		system := &net.Dialer{ControlContext: d.control}
		d.connect = system.DialContext
	}
	return d
}

// names returns what a new circuit looks names up with; ctx is the circuit's. Its maker closes it.
func (d *dialer) names(ctx context.Context) *names {
	resolver := d.resolver
	if resolver == nil {
		// Each circuit has its own, for a net.Resolver joins equal lookups. Go's own code never reads a
		// strange name as an address, nor asks the local network for it by multicast.
		resolver = &net.Resolver{PreferGo: true}
	}
	return newNames(ctx, resolver, &d.kept)
}

// dial connects to HOST:PORT; conn is nil when it could not, and reason says why. It takes dialTimeout at
// most.
func (d *dialer) dial(ctx context.Context, n *names, target string) (conn net.Conn, reason wire.Reason) {
	defer func() { d.results[reason].Add(1) }()
	host, port, err := splitTarget(target)
	if err != nil {
		return nil, wire.ReasonDNS
	}
	if !d.policy().IsExit() {
		return nil, wire.ReasonPolicy // who dials nothing asks no resolver for strangers either
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return newRace(d, port).run(ctx, n, host)
	}
	to := netip.AddrPortFrom(addr.Unmap(), port)
	if d.judge(to) != nil {
		return nil, wire.ReasonPolicy
	}
	if conn, err = d.connect(ctx, "tcp", to.String()); err != nil {
		return nil, reasonOf(err)
	}
	return conn, 0
}

// allowed returns the first addresses that the policy lets be dialled.
func (d *dialer) allowed(addrs []netip.Addr, port uint16) (to []netip.AddrPort) {
	for _, addr := range addrs {
		if a := netip.AddrPortFrom(addr.Unmap(), port); len(to) < maxAddresses && d.judge(a) == nil {
			to = append(to, a)
		}
	}
	return to
}

// splitTarget reads HOST:PORT.
func splitTarget(target string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(target)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 || host == "" || len(host) > 255 {
		return "", 0, errors.New("relay: not HOST:PORT")
	}
	return host, uint16(n), nil
}

// judge returns errPolicy for an address that must not be dialled.
func (d *dialer) judge(to netip.AddrPort) error {
	p := d.policy()
	if !p.Allows(to) || d.own(to) {
		return errPolicy
	}
	if !p.Allows(netip.AddrPortFrom(loopback4[0], to.Port())) && d.isOurs(to.Addr()) {
		return errPolicy
	}
	return nil
}

// reachable reports whether an address could be dialled with some port.
func (d *dialer) reachable(addr netip.Addr) bool {
	p := d.policy()
	return p.AllowsAddress(addr) && (p.AllowsAddress(loopback4[0]) || !d.isOurs(addr))
}

// isOurs reports whether an address is this machine's, or could be.
func (d *dialer) isOurs(addr netip.Addr) bool {
	its, err := d.machine.has(addr)
	return its || err != nil
}

// control is the last word before connect(2): address is what the kernel is about to be given.
func (d *dialer) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return errPolicy
	}
	return d.judge(netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
}

// reasonOf puts a dial's error into the one byte that the client is told.
func reasonOf(err error) wire.Reason {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errPolicy):
		return wire.ReasonPolicy
	case isAny(err, refusedErrors):
		return wire.ReasonRefused
	case isAny(err, hostErrors):
		return wire.ReasonHostUnreachable
	case isAny(err, networkErrors):
		return wire.ReasonNetUnreachable
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return wire.ReasonTimeout
	case errors.As(err, &timeout) && timeout.Timeout():
		return wire.ReasonTimeout
	default:
		return wire.ReasonInternal
	}
}

func isAny(err error, codes []error) bool {
	for _, code := range codes {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}
