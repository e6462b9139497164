package main

import (
	"context"
	"net"
	"net/netip"

	"torproxy/proxy"
	"torproxy/proxy/socks"
)

// request is what a program asked one of the ports for, as the proxy is asked; the user name may say which
// relays it wants. The error is parseUserName's.
func (c *client) request(target, label, user string) (proxy.Request, error) {
	relays, err := parseUserName(user)
	if err != nil {
		return proxy.Request{}, err
	}
	return proxy.Request{Target: target, Isolation: label, Exit: relays.exit, Exclude: relays.exclude}, nil
}

// serveSOCKS serves the SOCKS port.
func (c *client) serveSOCKS(ctx context.Context) error {
	return socks.New(socks.Config{
		Dial: func(ctx context.Context, r socks.Request) (net.Conn, error) {
			wanted, err := c.requestOf(r)
			if err != nil {
				return nil, err
			}
			wanted.Early = c.options.optimistic
			return c.proxy.Dial(ctx, wanted)
		},
		Resolve: func(ctx context.Context, r socks.Request) ([]netip.Addr, error) {
			wanted, err := c.requestOf(r)
			if err != nil {
				return nil, err
			}
			return c.proxy.Resolve(ctx, wanted)
		},
		ResolveAddr: func(ctx context.Context, r socks.Request) (string, error) {
			wanted, err := c.requestOf(r)
			if err != nil {
				return "", err
			}
			return c.proxy.ResolveAddr(ctx, wanted)
		},
		Login: func(user, _ string) error {
			_, err := parseUserName(user)
			return err
		},
		FrontDoor: reachable(c.http.shown),
		Log:       c.log,
	}).Serve(ctx, c.socks)
}

func (c *client) requestOf(r socks.Request) (proxy.Request, error) {
	return c.request(r.Target, c.labels.socks(r.User, r.Password), r.User)
}
