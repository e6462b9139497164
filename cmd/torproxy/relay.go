package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"torproxy/cmd/torproxy/internal/state"
	"torproxy/relay"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

const (
	maxCount       = 256
	offered        = 10 << 20 // bytes per second that each relay says it carries; authorities measure
	defaultDrain   = 30 * time.Second
	defaultRelay   = "relay"
	maxPublicCount = netdoc.MaxFamily + 1 // a family names all the others
)

// relayOptions are the flags of relay.
type relayOptions struct {
	network    fileName
	listen     udpAddress
	advertise  udpAddress
	nickname   string
	policy     exitPolicy
	policyFile string
	count      int
	dataDir    string
	drain      time.Duration
	metrics    metricsAddress
	systemd    bool
}

// exitPolicy is the value of --exit-policy.
type exitPolicy struct{ netdoc.Policy }

// Type implements pflag.Value.
func (p *exitPolicy) Type() string { return "POLICY" }

// String implements pflag.Value.
func (p *exitPolicy) String() string {
	if p == nil || !p.IsExit() {
		return ""
	}
	return p.Policy.String()
}

// Set implements pflag.Value.
func (p *exitPolicy) Set(s string) (err error) {
	p.Policy, err = netdoc.ParsePolicy(s)
	return err
}

func newRelay(out *output) *cobra.Command {
	o := relayOptions{advertise: udpAddress{noPort: true}}
	cmd := &cobra.Command{
		Use:   "relay --network FILE --listen ADDRESS",
		Short: "Run a relay, or several",
		Long: "Run a relay of a network: it carries other people's connections, and, with an exit policy, makes them.\n" +
			"Without --data-dir its identity ends with the process.\n\n" +
			"SIGTERM lets the circuits that run end, for --drain at most, and then stops it; a second one stops it at\n" +
			"once. SIGHUP reads --exit-policy-file again, and nothing else.",
		Example: "  torproxy relay --network network.json --listen 192.0.2.1:9001 --nickname alice --data-dir relay\n" +
			"  torproxy relay --network network.json --listen 192.0.2.1:9001 --count 8 --data-dir relays",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.systemd {
				return printUnit(cmd, relayUnit)
			}
			if err := o.check(); err != nil {
				return wrongUsage(cmd.CommandPath(), err.Error())
			}
			return runRelays(cmd.Context(), o, out)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&o.network, "network", "the network to be part of, as described by `FILE`")
	f.Var(&o.listen, "listen", "listen on UDP `ADDRESS`, IP:PORT")
	f.Var(&o.advertise, "advertise", "the `ADDRESS` that others reach it at, if that is another one")
	f.StringVar(&o.nickname, "nickname", defaultRelay, "what people call it (`NAME`)")
	f.Var(&o.policy, "exit-policy", "where it makes connections to, such as 'accept *:80,accept *:443' (default: nowhere)")
	f.StringVar(&o.policyFile, "exit-policy-file", "", "the same, read from `FILE`, and again at SIGHUP")
	f.IntVar(&o.count, "count", 1, "run `N` relays: on N ports, with names and directories numbered from 1")
	f.StringVar(&o.dataDir, "data-dir", "", "keep its keys in `DIR`")
	f.DurationVar(&o.drain, "drain", defaultDrain, "how long circuits have to end when it stops (`TIME`)")
	addMetricsFlag(cmd, &o.metrics)
	f.BoolVar(&o.systemd, "print-systemd", false, "print a unit for systemd, with these flags")
	addOutputFlags(cmd, out)
	cmd.MarkFlagFilename("network", "json")
	cmd.MarkFlagDirname("data-dir")
	return cmd
}

// check finds what no machine and no network could carry out.
func (o *relayOptions) check() error {
	last := int(o.listen.addr.Port()) + o.count - 1
	switch {
	case o.network == "":
		return errors.New("the network file is missing: --network FILE")
	case !o.listen.addr.IsValid():
		return errors.New("the address is missing: --listen IP:PORT")
	case o.count < 1 || o.count > maxCount:
		return fmt.Errorf("--count is 1 to %d", maxCount)
	case last > 65535 || int(o.advertise.addr.Port())+o.count-1 > 65535:
		return fmt.Errorf("--count %d: there are no ports above 65535", o.count)
	case o.listen.addr.Addr().IsUnspecified() && !o.advertise.addr.IsValid():
		return fmt.Errorf("--listen %v is every address of this machine: say with --advertise which one others reach", o.listen.addr)
	case o.advertise.addr.IsValid() && o.advertise.addr.Addr().IsUnspecified():
		return errors.New("--advertise is an address that others reach, which this is not")
	case o.policyFile != "" && o.policy.IsExit():
		return errors.New("--exit-policy and --exit-policy-file contradict each other")
	case o.drain < 0:
		return errors.New("--drain is a time such as 30s")
	}
	for i := range o.count {
		if name := o.nameOf(i); !isNickname(name) {
			return fmt.Errorf("--nickname: %q is not 1 to %d letters, digits and hyphens", name, netdoc.MaxNickname)
		}
	}
	return nil
}

func isNickname(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		default:
			return false
		}
	}
	return len(s) >= 1 && len(s) <= netdoc.MaxNickname
}

// nameOf is the nickname of relay i, from 0.
func (o *relayOptions) nameOf(i int) string {
	if o.count == 1 {
		return o.nickname
	}
	return o.nickname + strconv.Itoa(i+1)
}

// dirOf is the state directory of relay i; "" is none.
func (o *relayOptions) dirOf(i int) string {
	if o.count == 1 || o.dataDir == "" {
		return o.dataDir
	}
	return filepath.Join(o.dataDir, strconv.Itoa(i+1))
}

// advertised is what relay i, which listens on bound, advertises; none: bound.
func (o *relayOptions) advertised(i int, bound netip.AddrPort) []netip.AddrPort {
	switch {
	case !o.advertise.addr.IsValid():
		return nil
	case o.advertise.without:
		return []netip.AddrPort{netip.AddrPortFrom(o.advertise.addr.Addr(), bound.Port())}
	}
	return []netip.AddrPort{plus(o.advertise.addr, i)}
}

// relays is one run of relay:
//
//  1. read     the network file and the exit policy
//  2. open     each relay's state and socket
//  3. make     the relays; in a public network they are a family
//  4. serve    until ctx ends
//  5. drain    let circuits end
//  6. close    the state is complete, and others may use it
type relays struct {
	options relayOptions
	output  *output
	log     *slog.Logger
	hangups hangups
	network *netdoc.Network
	policy  netdoc.Policy
	members []*member
	metrics *listener // nil: there are none
}

// member is one relay.
type member struct {
	name  string
	log   *slog.Logger
	dir   *state.Dir // nil: it has none
	onion *state.Onion
	key   ed25519.PrivateKey
	conn  *net.UDPConn
	relay *relay.Relay
}

func runRelays(ctx context.Context, o relayOptions, out *output) error {
	r := &relays{options: o, output: out, log: out.roleLog(), hangups: catchHangups()}
	defer r.hangups.stop()
	defer r.close()
	if err := r.read(); err != nil {
		return err
	}
	for i := range o.count {
		if err := r.open(i); err != nil {
			return err
		}
	}
	for i := range r.members {
		if err := r.make(i); err != nil {
			return err
		}
	}
	var err error
	if r.metrics, err = listenMetrics(ctx, o.metrics, r.log); err != nil {
		return err
	}
	r.announce()
	if err := r.serve(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the relay has failed: %w", err)
	}
	r.close()
	out.reporter().stopped()
	return nil
}

func (r *relays) read() (err error) {
	o := r.options
	if r.network, err = readNetwork(string(o.network)); err != nil {
		return err
	}
	if !r.network.IsPrivate() && o.count > maxPublicCount {
		return &failure{
			code: codeUsage, what: fmt.Sprintf("--count %d is too much for this network", o.count),
			cause: fmt.Sprintf("one operator's relays name one another as a family, which has at most %d", maxPublicCount),
		}
	}
	r.policy = o.policy.Policy
	if o.policyFile != "" {
		r.policy, err = readPolicy(o.policyFile)
	}
	if err == nil && o.count > 1 && o.dataDir != "" {
		err = makeParent(o.dataDir)
	}
	return err
}

// makeParent makes the directory of several relays' directories.
func makeParent(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return &failure{code: codeState, err: err, what: fmt.Sprintf("cannot make the directory %s (--data-dir): %v", path, err)}
	}
	return nil
}

// open opens one relay's state and socket.
func (r *relays) open(i int) error {
	m := &member{name: r.options.nameOf(i), log: r.log}
	if r.options.count > 1 {
		m.log = r.log.With("relay", m.name)
	}
	r.members = append(r.members, m)
	if err := m.openState(r.options.dirOf(i)); err != nil {
		return err
	}
	var err error
	m.conn, err = listenUDP(plus(r.options.listen.addr, i))
	return err
}

func (m *member) openState(path string) error {
	if path == "" {
		return m.makeIdentity()
	}
	var err error
	if m.dir, err = openState(state.Open, "data-dir", path); err != nil {
		return err
	}
	key, created, err := m.dir.OpenIdentity(nil)
	if err != nil {
		return explainIdentity("data-dir", path, err)
	}
	m.key = key
	if created {
		m.log.Info("a new identity was made", "dir", path)
	}
	onion, erased, err := m.dir.OpenOnion(time.Now())
	if err != nil {
		return &failure{code: codeState, err: err, what: fmt.Sprintf("cannot keep the onion keys: %v", err)}
	}
	if erased != nil {
		m.log.Warn("the onion keys were erased and are made anew: packets could have been replayed to them", "cause", erased)
	}
	m.onion = onion
	return nil
}

// close completes the state of all.
func (r *relays) close() {
	if r.metrics != nil {
		r.metrics.Close()
	}
	for _, m := range r.members {
		m.close()
	}
	r.members = nil
}

func (m *member) close() {
	var errs []error
	if m.conn != nil {
		errs = append(errs, m.conn.Close())
	}
	if m.onion != nil {
		errs = append(errs, m.onion.Close())
	}
	if m.dir != nil {
		errs = append(errs, m.dir.Close())
	}
	if err := errors.Join(errs...); err != nil {
		m.log.Error("not closed in order", "err", err)
	}
}

// make makes one relay, when the identities of all are known.
func (r *relays) make(i int) error {
	m := r.members[i]
	cfg := relay.Config{
		Network: r.network, Identity: m.key, Conn: m.conn, Nickname: m.name, Policy: r.policy, Family: r.family(i),
		Advertise: r.options.advertised(i, boundTo(m.conn)), Bandwidth: offered, Log: m.log,
	}
	if m.onion != nil {
		cfg.Store = m.onion
	}
	var err error
	m.relay, err = relay.New(cfg)
	return err
}

// family is what relay i declares: the others, unless the network is private, where it would only keep
// them out of one another's circuits.
func (r *relays) family(i int) []wire.ID {
	if r.network.IsPrivate() {
		return nil
	}
	var family []wire.ID
	for j, m := range r.members {
		if j != i {
			family = append(family, wire.PublicID(m.key))
		}
	}
	slices.SortFunc(family, netdoc.CompareIDs)
	return family
}

// announce says what runs.
func (r *relays) announce() {
	if r.options.dataDir == "" {
		r.log.Warn("there is no --data-dir: the identity ends with this process")
	}
	if r.output.quiet {
		return
	}
	for _, m := range r.members {
		fmt.Fprintf(r.output.stdout, "%s listens on %v, its ID is %v\n", m.name, boundTo(m.conn), m.relay.ID())
	}
}

// serve runs all until ctx ends and they are drained, or one fails.
func (r *relays) serve(ctx context.Context) error {
	notifySupervisor(r.log, notifyReady)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, running := errgroup.WithContext(running)
	for _, m := range r.members {
		g.Go(func() error { return m.relay.Run(running) })
		g.Go(func() error { return m.watch(running) })
	}
	g.Go(func() error { return serveMetrics(running, r.metrics, metricsHandler("relay", r.collect)) })
	g.Go(func() error { return r.hangups.run(running, r.reload) })
	g.Go(func() error {
		defer stop()
		select {
		case <-running.Done(): // one has failed
		case <-ctx.Done():
			r.drain()
		}
		return nil
	})
	return g.Wait()
}

// drain lets circuits end, until the time is over or another signal comes.
func (r *relays) drain() {
	ctx, cancel := untilSignal(r.options.drain) // before it is said that one may come
	defer cancel()
	notifySupervisor(r.log, notifyStopping)
	circuits := 0
	for _, m := range r.members {
		circuits += m.relay.Circuits()
	}
	r.log.Info("stopping: new circuits are turned away", "circuits", circuits, "wait", r.options.drain)
	var g errgroup.Group
	left := make([]int, len(r.members))
	for i, m := range r.members {
		g.Go(func() error {
			left[i] = m.relay.Drain(ctx)
			return nil
		})
	}
	g.Wait()
	sum := 0
	for _, n := range left {
		sum += n
	}
	if sum > 0 {
		r.log.Warn("circuits that had not ended are cut off", "circuits", sum)
	}
}
