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
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, reason := d.resolve(ctx, host)
	if reason != 0 {
		return nil, reason
	}
	reason = wire.ReasonPolicy
	tried := 0
	for _, addr := range addrs {
		to := netip.AddrPortFrom(addr.Unmap(), port)
		if d.judge(to) != nil {
			continue
		}
		conn, err = d.connect(ctx, "tcp", to.String())
		if err == nil {
			return conn, 0
		}
		reason = reasonOf(err)
		if tried++; tried == maxAddresses || ctx.Err() != nil {
			break
		}
	}
	return nil, reason
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
