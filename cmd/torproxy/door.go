package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"

	"torproxy/cmd/torproxy/internal/browser"
	"torproxy/proxy/frontdoor"
	"torproxy/wire"
)

// makeDoor makes the front door, the browsers that it opens links in, and who asks about them.
func (c *client) makeDoor(stdin io.Reader) error {
	at, err := netip.ParseAddrPort(reachable(c.http.shown))
	if err != nil {
		return err
	}
	c.browsers = browser.NewOpener(browser.Config{Proxy: at, Program: c.options.browser, Log: c.log})
	c.questions = newQuestions(stdin, c.output)
	c.door = frontdoor.New(c.doorConfig())
	return nil
}

// doorConfig is what the flags make of the front door.
func (c *client) doorConfig() frontdoor.Config {
	return frontdoor.Config{
		Dial:    c.dialHTTP,
		Backend: &backend{client: c},
		Own:     c.listeners.HasTarget,
		// What an exit fetches for a page of one host would come from it, and not over the other host's circuit.
		Prefetch:   bool(c.options.prefetch) && !c.options.isolateDest,
		Optimistic: c.options.optimistic,
		OpenLinks:  frontdoor.OpenLinks(c.options.openLinks),
		ParseLink:  parseLink,
		Open:       c.openLink,
		LinkAsked:  c.questions.add,
		Metrics:    metricsHandler("client", c.collect),
		Log:        c.log,
	}
}

// dialHTTP is the front door's Dial.
func (c *client) dialHTTP(ctx context.Context, r frontdoor.Request) (net.Conn, error) {
	wanted, err := c.request(r.Target, c.labels.http(r.Isolation), r.User)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", frontdoor.ErrUser, err)
	}
	wanted.Early, wanted.After, wanted.Pushed = r.Early, r.After, r.Pushed
	if r.HTTP {
		wanted.Kind = wire.KindHTTP
	}
	return c.proxy.Dial(ctx, wanted)
}

// parseLink is the front door's ParseLink.
func parseLink(raw string) (url, host string, err error) {
	link, err := browser.ParseLink(raw)
	return link.String(), link.Host(), err
}

// openLink is the front door's Open.
func (c *client) openLink(ctx context.Context, url string) error {
	link, err := browser.ParseLink(url)
	if err != nil {
		return err
	}
	if err := c.browsers.Open(ctx, url); err != nil {
		return explainBrowser(link, err)
	}
	return nil
}
