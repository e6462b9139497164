package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// Resolver looks up the addresses of a name; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// errPolicy is what an address that must not be dialled gives; it never leaves the relay.
var errPolicy = errors.New("relay: the exit policy does not allow this address")

// dialer makes an exit's connections. The policy is asked about the address that is dialled, after the
// name was resolved, and once more in the moment of the system call: what a name resolves to, and what a
// literal looks like, decides nothing.
type dialer struct {
	policy   func() *netdoc.Policy
	own      func(netip.AddrPort) bool
	resolver Resolver
	connect  func(ctx context.Context, network, address string) (net.Conn, error)
}

func newDialer(cfg *Config) *dialer {
	d := &dialer{policy: func() *netdoc.Policy { return &cfg.Policy }, own: cfg.Own, resolver: cfg.Resolver, connect: cfg.Dial}
	if d.own == nil {
		d.own = func(netip.AddrPort) bool { return false }
	}
	if d.resolver == nil {
		d.resolver = net.DefaultResolver
	}
	if d.connect == nil {
		system := &net.Dialer{ControlContext: d.control}
		d.connect = system.DialContext
	}
	return d
}

// dial connects to HOST:PORT; conn is nil when it could not, and reason says why.
func (d *dialer) dial(ctx context.Context, target string) (conn net.Conn, reason wire.Reason) {
	host, port, err := splitTarget(target)
	if err != nil {
		return nil, wire.ReasonDNS
	}
	if !d.policy().IsExit() {
		return nil, wire.ReasonPolicy // who dials nothing asks no resolver for strangers either
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, reason := d.resolve(ctx, host)
	if reason != 0 {
		return nil, reason
	}
	reason = wire.ReasonPolicy
	for allowed := d.allowed(addrs, port); len(allowed) > 0 && ctx.Err() == nil; allowed = allowed[1:] {
		conn, err = d.connectIn(ctx, share(ctx, len(allowed)), allowed[0])
		if err == nil {
			return conn, 0
		}
		reason = reasonOf(err)
	}
	return nil, reason
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

// share is the part of the time left that the next of n addresses gets: one that swallows packets must
// leave time for those behind it, as net.Dialer does it for the addresses of a name.
func share(ctx context.Context, n int) time.Duration {
	until, _ := ctx.Deadline()
	left := time.Until(until)
	return max(left/time.Duration(n), min(left, minShare))
}

func (d *dialer) connectIn(ctx context.Context, timeout time.Duration, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return d.connect(ctx, "tcp", to.String())
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

// resolve returns the addresses of a literal or a name.
func (d *dialer) resolve(ctx context.Context, host string) ([]netip.Addr, wire.Reason) {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return nil, wire.ReasonPolicy // a zone names an interface of this machine
		}
		return []netip.Addr{addr}, 0
	}
	if strings.ContainsAny(host, ":%[]/") {
		return nil, wire.ReasonDNS
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, err := d.resolver.LookupNetIP(ctx, "ip", host)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, wire.ReasonTimeout
	case err != nil || len(addrs) == 0:
		return nil, wire.ReasonDNS
	}
	return addrs, 0
}

func (d *dialer) judge(to netip.AddrPort) error {
	if !d.policy().Allows(to) || d.own(to) {
		return errPolicy
	}
	return nil
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
