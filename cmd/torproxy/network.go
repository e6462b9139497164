package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"torproxy/cmd/torproxy/internal/state"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// A new network's directory:
//
//	DIR/network.json                 for everybody
//	DIR/authority1 ... authorityN    for one authority each: identity.pem, listen, network.json
const (
	networkName = "network.json"
	listenName  = "listen"
)

func newNetwork(out *output) *cobra.Command {
	network := &cobra.Command{
		Use:   "network",
		Short: "Make a network, or show one",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	network.AddCommand(newNetworkNew(), newNetworkShow(out))
	return network
}

// networkOptions are the flags of network new.
type networkOptions struct {
	out         string
	authorities []netip.AddrPort
	name        string
	round       time.Duration
	minRelays   int
	perAddress  int
	subnetRule  onOff
}

// onOff is a flag's value that is "on" or "off".
type onOff bool

func (o *onOff) String() string {
	if *o {
		return "on"
	}
	return "off"
}

// Type implements pflag.Value.
func (o *onOff) Type() string { return "on|off" }

// Set implements pflag.Value.
func (o *onOff) Set(s string) error {
	if s != "on" && s != "off" {
		return errors.New("it is on or off")
	}
	*o = s == "on"
	return nil
}

func newNetworkNew() *cobra.Command {
	o := networkOptions{}
	var authorities []string
	cmd := &cobra.Command{
		Use:   "new --out DIR --authority HOST:PORT ...",
		Short: "Make the files of a new network",
		Long: "Write DIR/network.json, the file that every client and relay of the network is given, and for each\n" +
			"authority a directory DIR/authority1, DIR/authority2, ... with its key, which goes to its host and\n" +
			"nowhere else. Nothing is ever overwritten.\n\n" +
			"If every authority's address is loopback or private: rounds of 5 s, no limit per address, no subnet\n" +
			"rule. Else rounds of 1 h, 2 relays per address, and no two relays of one subnet in a circuit.",
		Example: "  torproxy network new --out net --authority 10.77.1.1:9001 --authority 10.77.1.2:9001 \\\n" +
			"      --authority 10.77.1.3:9001 --authority 10.77.1.4:9001",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(cmd, append(authorities, args...)); err != nil {
				return wrongUsage(cmd.CommandPath(), err.Error())
			}
			return o.write(cmd)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.out, "out", "", "the `DIR` to write")
	f.StringArrayVar(&authorities, "authority", nil, "the address of an authority, IP:PORT; once for each (`HOST:PORT`)")
	f.StringVar(&o.name, "name", "", "the network's name (default: that of DIR)")
	f.DurationVar(&o.round, "round", 0, "time from one consensus to the next (default 5s or 1h)")
	f.IntVar(&o.minRelays, "min-relays", 5, "relays that must run before clients build circuits")
	f.IntVar(&o.perAddress, "per-address", 0, "relays on one address, 0 for no limit (default 0 or 2)")
	f.Var(&o.subnetRule, "subnet-rule", "no two relays of one subnet in a circuit (default off or on)")
	cmd.MarkFlagDirname("out")
	return cmd
}

// complete reads the addresses and fills in what was not given.
func (o *networkOptions) complete(cmd *cobra.Command, authorities []string) error {
	if o.out == "" {
		return errors.New("the directory to write is missing: --out DIR")
	}
	if len(authorities) == 0 {
		return errors.New("a network needs authorities: --authority HOST:PORT, once for each")
	}
	for _, s := range authorities {
		addr, err := authorityAddress(s)
		if err != nil {
			return fmt.Errorf("--authority %s: %w", s, err)
		}
		o.authorities = append(o.authorities, addr)
	}
	private := allPrivate(o.authorities)
	given := cmd.Flags().Changed
	if !given("round") {
		o.round = time.Hour
		if private {
			o.round = 5 * time.Second
		}
	}
	if !given("per-address") && !private {
		o.perAddress = 2
	}
	if !given("subnet-rule") {
		o.subnetRule = onOff(!private)
	}
	if o.name == "" {
		o.name = nameOf(o.out)
	}
	return o.check()
}

// check finds what is wrong with the network before anything of it is made: its keys are made up.
func (o *networkOptions) check() error {
	ids := make([]wire.ID, len(o.authorities))
	for i := range ids {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return err
		}
		ids[i] = wire.PublicID(key)
	}
	return o.network(ids).Check()
}

// authorityAddress reads IP:PORT.
func authorityAddress(s string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddrPort(s)
	if err == nil {
		return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil
	}
	host, port, found := cutPort(s)
	if _, err := strconv.ParseUint(port, 10, 16); !found || err != nil {
		return netip.AddrPort{}, errors.New("it is not IP:PORT, such as 192.0.2.1:9001 or [2001:db8::1]:9001")
	}
	return netip.AddrPort{}, fmt.Errorf("%.80q is a name: a network file has addresses only, so that nobody who answers for a name can stand in an authority's way; give its IP address", host)
}

func cutPort(s string) (host, port string, found bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// allPrivate reports whether these are addresses of a private network.
func allPrivate(addrs []netip.AddrPort) bool {
	for _, a := range addrs {
		if !a.Addr().IsLoopback() && !a.Addr().IsPrivate() {
			return false
		}
	}
	return true
}

// nameOf makes a network's name of a directory's.
func nameOf(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-':
			return r
		}
		return -1
	}, filepath.Base(abs))
	if name == "" {
		return "network"
	}
	return name[:min(len(name), netdoc.MaxNetworkName)]
}

// network is the network file for authorities of these identities.
func (o *networkOptions) network(ids []wire.ID) *netdoc.Network {
	n := &netdoc.Network{Version: netdoc.Version, Name: o.name, Params: netdoc.Params{
		Round: netdoc.Duration(o.round), MinRelays: o.minRelays, PerAddress: o.perAddress,
		SubnetRule: bool(o.subnetRule), OnionKeyLifetime: netdoc.Duration(24 * time.Hour),
	}}
	for i, addr := range o.authorities {
		n.Authorities = append(n.Authorities, netdoc.Authority{
			Nickname: authorityName(i), ID: ids[i], Addresses: []netip.AddrPort{addr},
		})
	}
	return n
}

func authorityName(i int) string { return fmt.Sprintf("authority%d", i+1) }

// write makes the files, and takes away what it has made if it fails.
func (o *networkOptions) write(cmd *cobra.Command) (err error) {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return cannotWrite(err)
	}
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				os.RemoveAll(path)
			}
		}
	}()
	if err := o.free(); err != nil {
		return err
	}
	ids := make([]wire.ID, len(o.authorities))
	for i := range o.authorities {
		dir := filepath.Join(o.out, authorityName(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return cannotWrite(err)
		}
		made = append(made, dir)
		if ids[i], err = makeAuthority(dir, o.authorities[i]); err != nil {
			return cannotWrite(err)
		}
	}
	file := o.network(ids).Marshal()
	for i := range o.authorities {
		if err := state.Create(filepath.Join(o.out, authorityName(i), networkName), file, 0o600); err != nil {
			return cannotWrite(err)
		}
	}
	if err := state.Create(filepath.Join(o.out, networkName), file, 0o644); err != nil {
		return cannotWrite(err)
	}
	o.tell(cmd)
	return nil
}

// free makes sure that nothing would be overwritten.
func (o *networkOptions) free() error {
	names := []string{networkName}
	for i := range o.authorities {
		names = append(names, authorityName(i))
	}
	for _, name := range names {
		path := filepath.Join(o.out, name)
		if _, err := os.Lstat(path); err == nil {
			return &failure{
				code: codeState, what: fmt.Sprintf("%s is there already", path),
				cause: "a network was made in this directory before", advice: "choose another --out; nothing is ever overwritten",
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return cannotWrite(err)
		}
	}
	return nil
}

// makeAuthority writes an authority's own files, and returns its identity.
func makeAuthority(path string, listen netip.AddrPort) (wire.ID, error) {
	dir, err := state.OpenExisting(path)
	if err != nil {
		return wire.ID{}, err
	}
	defer dir.Close()
	key, err := dir.CreateIdentity(nil)
	if err != nil {
		return wire.ID{}, err
	}
	return wire.PublicID(key), state.Create(dir.Path(listenName), []byte(listen.String()+"\n"), 0o600)
}

// tell says what was made and what to do with it.
func (o *networkOptions) tell(cmd *cobra.Command) {
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%s is made: rounds of %v, %d relays at least.\n\n", o.name, o.round, o.minRelays)
	for i, addr := range o.authorities {
		fmt.Fprintf(w, "  %s    to the host of %v, and nowhere else: it has that authority's key\n", filepath.Join(o.out, authorityName(i)), addr)
	}
	fmt.Fprintf(w, "  %s  to every relay and every client\n", filepath.Join(o.out, networkName))
	fmt.Fprintf(w, "\nOn each authority's host:  torproxy dirauth --dir %s\n", authorityName(0))
	fmt.Fprintf(w, "On a relay's:              torproxy relay --network network.json --listen ADDRESS:9001 --data-dir relay\n")
	fmt.Fprintf(w, "On a client's:             torproxy --network network.json\n")
}

func cannotWrite(err error) *failure {
	return &failure{code: codeState, err: err, what: fmt.Sprintf("cannot write: %v", err)}
}
