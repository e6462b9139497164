package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"

	"torproxy/cmd/torproxy/internal/browser"
	"torproxy/proxy"
	"torproxy/proxy/frontdoor"
	"torproxy/proxy/localnet"
	"torproxy/wire/netdoc"
)

// The client's run:
//
//  1. open        listen on both ports, first of all: a taken one is known at once
//  2.             make them known, so that nothing in this process ever connects to them
//  3. findNetwork read the network file, or make a network of our own
//  4.             make the proxy, and give it what an earlier run has kept
//  5. warn        of what the flags give away
//  6. serve       run the network, the proxy, SOCKS and HTTP: both answer from the start, and what
//     comes before the first circuit waits for it
//  7. progress    tell how far the start is, at 100 percent the addresses
//  8.             ctx ends, or one of them fails: all of them end, and the ports are closed

// client is one run of the client.
type client struct {
	options    options
	output     *output
	reporter   reporter
	log        *slog.Logger
	networkLog *slog.Logger // the embedded network's
	labels     *labels

	listeners proxy.Listeners
	socks     *listener
	http      *listener
	network   *netdoc.Network
	embedded  *localnet.Network // nil: the network is somewhere else
	proxy     *proxy.Proxy
	cache     *cache // nil: nothing is kept
	browsers  *browser.Opener
	questions *questions
	door      *frontdoor.Server

	announced bool // progress has told the addresses
}

// runClient runs the client until ctx ends, which is no error.
func runClient(ctx context.Context, o options, stdin io.Reader, out *output) error {
	c := &client{options: o, output: out, reporter: out.reporter(), labels: newLabels()}
	c.log, c.networkLog = out.log()
	defer c.close()
	if err := c.open(ctx); err != nil {
		return err
	}
	c.listeners.Add(c.socks.Addr())
	c.listeners.Add(c.http.Addr())
	if err := c.findNetwork(); err != nil {
		return err
	}
	var err error
	if c.options.dataDir != "" {
		if c.cache, err = openCache(string(c.options.dataDir), c.log); err != nil {
			return err
		}
		defer c.cache.dir.Close()
		if c.embedded == nil { // whose relays are others at every start
			c.cache.guards = newGuardFile(c.cache.dir, c.log)
		}
	}
	c.proxy, err = proxy.New(proxy.Config{
		Network: c.network, Hops: int(o.hops), IsolateDestinations: o.isolateDest,
		Exit: o.relays.exit, Exclude: o.relays.exclude,
		Listeners: &c.listeners, Progress: c.progress, Log: c.log,
	})
	if err != nil {
		if c.embedded != nil {
			c.embedded.Close() // it never ran
		}
		return err
	}
	if c.cache != nil {
		if err := c.cache.load(c.proxy); err != nil {
			if c.embedded != nil {
				c.embedded.Close()
			}
			return err
		}
	}
	if err := c.makeDoor(stdin); err != nil {
		return err
	}
	c.warn()
	if err := c.serve(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	c.close() // whoever hears that it has stopped finds the ports free
	c.reporter.stopped()
	return nil
}

// open listens on both ports.
func (c *client) open(ctx context.Context) error {
	var err error
	if c.socks, err = listen(ctx, "socks", c.options.socks); err != nil {
		return c.taken(ctx, err, "socks", c.options.socks)
	}
	if c.http, err = listen(ctx, "http", c.options.http); err != nil {
		return c.taken(ctx, err, "http", c.options.http)
	}
	return nil
}

// taken finds out who has a port if that is what err is about. Who has a SOCKS port is asked at HTTP ports
// only: a tor would log the question as somebody's mistake.
func (c *client) taken(ctx context.Context, err error, flag string, a listenAddress) error {
	f, ok := errors.AsType[*failure](err)
	if !ok || f.code != codeTaken || a.network != "tcp" {
		return err
	}
	asked := []string{reachable(c.options.http.address)}
	if asked[0] != defaultHTTP {
		asked = append(asked, defaultHTTP)
	}
	explainTaken(ctx, f, flag, a, asked...)
	return f
}

// close closes the ports; it may be called again.
func (c *client) close() {
	for _, l := range []*listener{c.socks, c.http} {
		if l != nil {
			l.Close()
		}
	}
}

// findNetwork reads --network, or makes the embedded network.
func (c *client) findNetwork() error {
	if c.options.network != "" {
		n, err := readNetwork(string(c.options.network))
		c.network = n
		return err
	}
	n, err := localnet.New(localnet.Config{Own: c.listeners.HasAddr, Log: c.networkLog})
	if err != nil {
		return err
	}
	c.network, c.embedded = n.File(), n
	return nil
}

// readNetwork reads a network file. Its errors are failures.
func readNetwork(name string) (*netdoc.Network, error) {
	data, err := readBounded(name, netdoc.MaxNetworkFile)
	if err != nil {
		f := &failure{
			code: codeNetwork, err: err, what: fmt.Sprintf("cannot read the network file (--network): %v", err),
			advice: "ask whoever runs the network for its network.json; without --network a private network is started",
		}
		if errors.Is(err, fs.ErrNotExist) {
			f.what, f.cause = fmt.Sprintf("there is no network file %s (--network)", name), "its name is misspelt, or it is in another directory"
		}
		return nil, f
	}
	n, err := netdoc.ParseNetwork(data)
	if err != nil {
		return nil, &failure{
			code: codeNetwork, err: err, what: fmt.Sprintf("%s (--network) is not a network file that can be used: %v", name, err),
			cause:  "it is another kind of file, was changed by hand, or was written by another version of torproxy",
			advice: "get it again from whoever runs the network",
		}
	}
	return n, nil
}

// readBounded reads a file, and one byte more than limit of a longer one.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// warn says what a person should know before trusting this run.
func (c *client) warn() {
	if c.embedded != nil {
		c.reporter.warning("private network on this machine: for trying out, no anonymity")
	}
	switch c.options.hops {
	case 1:
		c.reporter.warning("--hops 1: the one relay sees both ends, who connects and where to")
	case 2:
		c.reporter.warning("--hops 2: the two relays together see both ends, who connects and where to")
	}
	if c.options.relays.exit != nil {
		c.reporter.warning("--exit: whoever runs or watches the exits that you chose sees all that leaves by them, and few others may choose them")
	}
	if c.embedded == nil && c.cache == nil && c.options.hops > 1 {
		c.reporter.warning("no --data-dir: the relays by which you enter the network, your guards, are drawn anew at each start; the more of them, the likelier a bad one")
	}
	for _, l := range []*listener{c.socks, c.http} {
		if l.exposed() {
			c.reporter.warning(fmt.Sprintf("--%s %s: anyone who can reach this address can use it", l.flag, l.shown))
		}
	}
}

// serve runs everything until ctx ends or a part fails, and waits for all of it. The error is that of the
// part that failed first.
func (c *client) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	run := func(what string, f func(context.Context) error) {
		g.Go(func() error {
			if err := f(ctx); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	if c.embedded != nil {
		run("the private network has failed", c.embedded.Run)
	}
	run("the proxy has failed", c.proxy.Run)
	if c.cache != nil {
		run("the data directory has failed", func(ctx context.Context) error { return c.cache.run(ctx, c.proxy) })
	}
	run("the SOCKS port has failed", c.serveSOCKS)
	run("the HTTP port has failed", func(ctx context.Context) error { return c.door.Serve(ctx, c.http) })
	run("the browsers have failed", c.browsers.Run)
	run("the questions have failed", func(ctx context.Context) error { return c.questions.run(ctx, c.door) })
	return g.Wait()
}

// progress tells how far the start is. It is called from one goroutine.
func (c *client) progress(p proxy.Progress) {
	c.reporter.bootstrap(p.Percent, p.Summary)
	if p.Percent == 100 && !c.announced {
		c.announced = true
		c.output.attend()
		c.reporter.ready(addresses{socks: c.socks.shown, http: c.http.shown})
	}
}
