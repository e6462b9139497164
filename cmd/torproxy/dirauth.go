package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"torproxy/cmd/torproxy/internal/state"
	"torproxy/dirauth"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// The files in an authority's directory besides its key, its address and the network file.
const (
	storeName      = "state.db"
	allowName      = "allow.txt"
	rejectionsName = "rejected.txt"
)

// dirauthOptions are the flags of dirauth.
type dirauthOptions struct {
	dir        string
	listen     udpAddress
	passphrase string
	metrics    metricsAddress
	systemd    bool
}

func newDirauth(out *output) *cobra.Command {
	o := dirauthOptions{}
	cmd := &cobra.Command{
		Use:   "dirauth --dir DIR",
		Short: "Run a directory authority",
		Long: "Run one of a network's directory authorities: it tests the relays that register, votes with the other\n" +
			"authorities, and signs the consensus. torproxy network new makes DIR.\n\n" +
			"If DIR/allow.txt exists when it starts, only the relays in it may register, an ID in each line. torproxy\n" +
			"dirauth reject shuts relays out. Both lists are read in every round, and on SIGHUP. SIGTERM stops it.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.systemd {
				return printUnit(cmd, dirauthUnit)
			}
			if o.dir == "" {
				return wrongUsage(cmd.CommandPath(), "the authority's directory is missing: --dir DIR")
			}
			return runDirauth(cmd.Context(), o, out, &passphrases{ctx: cmd.Context(), flag: "passphrase-file", file: o.passphrase, in: cmd.InOrStdin(), out: out.stderr})
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.dir, "dir", "", "the authority's `DIR`")
	f.Var(&o.listen, "listen", "listen on UDP `ADDRESS` in place of DIR/listen's, as behind a router")
	f.StringVar(&o.passphrase, "passphrase-file", "", "the passphrase of a sealed key is the first line of `FILE`")
	addMetricsFlag(cmd, &o.metrics)
	f.BoolVar(&o.systemd, "print-systemd", false, "print a unit for systemd, with these flags")
	addOutputFlags(cmd, out)
	cmd.MarkFlagDirname("dir")
	cmd.AddCommand(newDirauthSeal(out), newDirauthReject())
	return cmd
}

// newDirauthSeal is the command that seals an authority's key.
func newDirauthSeal(out *output) *cobra.Command {
	var dir, file, old string
	cmd := &cobra.Command{
		Use:   "seal --dir DIR",
		Short: "Seal an authority's key under a passphrase",
		Long: "Put the authority's key under a passphrase, or under another one. From then on the authority asks for it\n" +
			"when it starts. The key stays the same; copies of it made before stay unsealed.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return wrongUsage(cmd.CommandPath(), "the authority's directory is missing: --dir DIR")
			}
			current := &passphrases{ctx: cmd.Context(), flag: "old-passphrase-file", file: old, in: cmd.InOrStdin(), out: out.stderr}
			next := &passphrases{ctx: cmd.Context(), flag: "passphrase-file", file: file, in: cmd.InOrStdin(), out: out.stderr}
			return sealAuthority(cmd, dir, current, next)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&dir, "dir", "", "the authority's `DIR`")
	f.StringVar(&file, "passphrase-file", "", "the new passphrase is the first line of `FILE`")
	f.StringVar(&old, "old-passphrase-file", "", "the present one, of a sealed key, is the first line of `FILE`")
	return cmd
}

func sealAuthority(cmd *cobra.Command, path string, current, next *passphrases) error {
	dir, err := openState(state.OpenExisting, "dir", path)
	if err != nil {
		return err
	}
	defer dir.Close()
	passphrase, err := next.choose()
	if err != nil {
		return &failure{code: codeState, what: "the key was not sealed: " + err.Error(), err: err}
	}
	if err := dir.SealIdentity(current.asker(), passphrase); err != nil {
		return explainIdentity("dir", path, err)
	}
	fmt.Fprintln(cmd.OutOrStdout(), "the key is sealed")
	return nil
}

// authority is one run of dirauth:
//
//  1. open     its directory, which nobody else may use meanwhile
//  2. read     its network file, its address, its key
//  3. listen
//  4. serve    until ctx ends
type authority struct {
	options dirauthOptions
	log     *slog.Logger
	hangups hangups

	dir     *state.Dir
	network *netdoc.Network
	self    *netdoc.Authority
	conn    *net.UDPConn
	metrics *listener // nil: there are none
	role    *dirauth.Authority
	closers []func() error // in the order in which they were opened
}

func runDirauth(ctx context.Context, o dirauthOptions, out *output, p *passphrases) error {
	a := &authority{options: o, log: out.roleLog(), hangups: catchHangups()}
	defer a.hangups.stop()
	defer a.close()
	err := a.open(p)
	if err == nil {
		a.metrics, err = listenMetrics(ctx, o.metrics, a.log)
	}
	if err != nil {
		return err
	}
	if a.metrics != nil {
		a.closers = append(a.closers, a.metrics.Close)
	}
	if !out.quiet {
		fmt.Fprintf(out.stdout, "%s of network %s, one of %d, listens on %v\n", a.self.Nickname, a.network.Name, len(a.network.Authorities), boundTo(a.conn))
	}
	notifySupervisor(a.log, notifyReady)
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return a.role.Run(running) })
	g.Go(func() error { return serveMetrics(running, a.metrics, metricsHandler("dirauth", a.collect)) })
	g.Go(func() error { return a.hangups.run(running, a.reload) })
	g.Go(func() error {
		<-running.Done()
		notifySupervisor(a.log, notifyStopping)
		return nil
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the authority has failed: %w", err)
	}
	a.close()
	out.reporter().stopped()
	return nil
}

func (a *authority) close() {
	for i := len(a.closers) - 1; i >= 0; i-- {
		if err := a.closers[i](); err != nil {
			a.log.Error("not closed in order", "err", err)
		}
	}
	a.closers = nil
}

func (a *authority) open(p *passphrases) error {
	var err error
	path := a.options.dir
	if a.dir, err = openState(state.OpenExisting, "dir", path); err != nil {
		return err
	}
	a.closers = append(a.closers, a.dir.Close)
	if a.network, err = readNetwork(a.dir.Path(networkName)); err != nil {
		return err
	}
	key, err := a.dir.Identity(p.asker())
	if err != nil {
		return explainIdentity("dir", path, err)
	}
	self, ok := a.network.Authority(wire.PublicID(key))
	if !ok {
		return &failure{
			code: codeState, what: fmt.Sprintf("the network file in %s does not list this authority", path),
			cause: "the key or the network file is of another network", advice: "put the directory that torproxy network new made in its place",
		}
	}
	a.self = self
	addr, err := a.address()
	if err != nil {
		return err
	}
	if a.conn, err = listenUDP(addr); err != nil {
		return err
	}
	a.closers = append(a.closers, a.conn.Close)
	store, closeStore, err := openStore(a.dir)
	if err != nil {
		return &failure{code: codeState, err: err, what: fmt.Sprintf("cannot use the authority's store: %v", err)}
	}
	a.closers = append(a.closers, closeStore)
	a.role, err = dirauth.New(dirauth.Config{
		Network: a.network, Identity: key, Conn: a.conn, Store: store, Log: a.log,
		Allow: a.allowList(), Rejections: a.dir.Path(rejectionsName),
	})
	return err
}

// allowList names the file of the relays that may register, if the operator has made one.
func (a *authority) allowList() string {
	name := a.dir.Path(allowName)
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return name
}

// address is --listen's, or DIR/listen's.
func (a *authority) address() (netip.AddrPort, error) {
	if a.options.listen.addr.IsValid() {
		return a.options.listen.addr, nil
	}
	name := a.dir.Path(listenName)
	data, err := state.ReadBounded(name, 256)
	var addr udpAddress
	if err == nil {
		err = addr.Set(strings.TrimSpace(string(data)))
	}
	if err != nil {
		return netip.AddrPort{}, &failure{
			code: codeState, err: err, what: fmt.Sprintf("cannot tell from %s where to listen: %v", name, err), advice: "say it with --listen",
		}
	}
	return addr.addr, nil
}

// reload is what SIGHUP asks for: the operator's lists are read again.
func (a *authority) reload() {
	if err := a.role.Reload(); err != nil {
		a.log.Error("SIGHUP: the lists stay as they were", "err", err)
		return
	}
	a.log.Info("SIGHUP: the lists were read again")
}

// openStore opens what the authority must not forget.
func openStore(dir *state.Dir) (store dirauth.Store, closeStore func() error, err error) {
	s, err := dirauth.OpenStore(dir.Path(storeName))
	if err != nil {
		return nil, nil, err
	}
	return s, s.Close, nil
}
