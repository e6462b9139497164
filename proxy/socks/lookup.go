package socks

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// Tor's additional commands (socks-extensions.txt section 2). RESOLVE has a name in its request, and the
// reply an IPv4 or IPv6 address; RESOLVE_PTR has an address, and the reply a name. The ports mean nothing.
// The connection is closed after the reply: programs such as tor-resolve read up to its end.
const (
	commandResolve    = 0xF0
	commandResolvePTR = 0xF1
)

var (
	errNotAddress = errors.New("socks: RESOLVE_PTR asks for the name of an address, not of a name")
	errNoAnswer   = errors.New("socks: there is no such name or address")
	errAnswer     = errors.New("socks: what was found is neither an address nor a host name")
)

// looksUp reports whether the request is a lookup that is served.
func (c *client) looksUp() bool {
	return c.command == commandResolve && c.cfg.Resolve != nil || c.command == commandResolvePTR && c.cfg.ResolveAddr != nil
}

// lookUp asks for what the client wants to know and sets the reply.
func (c *client) lookUp() error {
	addr, name, err := host(c.dest)
	if err != nil {
		return err
	}
	var reply []byte
	if c.command == commandResolve {
		reply, err = c.resolve(addr, name)
	} else {
		reply, err = c.resolvePTR(addr)
	}
	if err != nil {
		return err
	}
	c.reply, c.answered = reply, true
	return nil
}

// resolve looks a name up. Only one address fits into the reply: an IPv4 one if there is any, as most
// programs that ask this way cannot use another. An address is its own answer.
func (c *client) resolve(addr netip.Addr, name string) ([]byte, error) {
	if !addr.IsValid() {
		ctx, stop := c.watch()
		defer stop()
		found, err := c.cfg.Resolve(ctx, c.request(name))
		switch {
		case err != nil:
			return nil, err
		case len(found) == 0:
			return nil, errNoAnswer
		}
		addr = found[max(0, slices.IndexFunc(found, isIPv4))].Unmap()
	}
	if !addr.IsValid() {
		return nil, errAnswer
	}
	return addressReply(replySucceeded, addr), nil
}

func isIPv4(addr netip.Addr) bool { return addr.Unmap().Is4() }

// resolvePTR looks an address up. What comes back was written by whoever owns the address, and is printed
// by programs: anything but a host name is kept from them.
func (c *client) resolvePTR(addr netip.Addr) ([]byte, error) {
	if !addr.IsValid() {
		return nil, errNotAddress
	}
	ctx, stop := c.watch()
	defer stop()
	name, err := c.cfg.ResolveAddr(ctx, c.request(addr.String()))
	if err != nil {
		return nil, err
	}
	switch name = strings.TrimSuffix(name, "."); {
	case name == "":
		return nil, errNoAnswer
	case !isName(name):
		return nil, errAnswer
	}
	return nameReply(name), nil
}
