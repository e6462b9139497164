package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
)

const (
	showTimeout     = 20 * time.Second // for a consensus
	softwareTimeout = 10 * time.Second // for all the descriptors
	maxDescriptors  = 256              // of larger networks no descriptors are asked for
	atOnce          = 8                // descriptors
)

func newNetworkShow(out *output) *cobra.Command {
	var file fileName
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "show --network FILE",
		Short: "Show a network's relays, as its authorities have signed them",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return wrongUsage(cmd.CommandPath(), "the network file is missing: --network FILE")
			}
			n, err := readNetwork(string(file))
			if err != nil {
				return err
			}
			shown, err := lookAt(cmd.Context(), n, wait)
			if err != nil {
				return err
			}
			if out.json {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetEscapeHTML(false)
				return enc.Encode(shown)
			}
			return shown.print(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&file, "network", "the network, as described by `FILE`")
	f.BoolVar(&out.json, "json", false, "print one JSON object")
	f.DurationVar(&wait, "wait", showTimeout, "for so long, if there is no consensus yet (`TIME`)")
	cmd.MarkFlagFilename("network", "json")
	return cmd
}

// shownNetwork is what is shown of a network; --json prints it as it is.
type shownNetwork struct {
	Name        string           `json:"name"`
	ValidAfter  time.Time        `json:"valid_after"`
	FreshUntil  time.Time        `json:"fresh_until"`
	ValidUntil  time.Time        `json:"valid_until"`
	Quorum      int              `json:"quorum"`
	Authorities []shownAuthority `json:"authorities"`
	Relays      []shownRelay     `json:"relays"`
}

type shownAuthority struct {
	Nickname string           `json:"nickname"`
	ID       wire.ID          `json:"id"`
	Address  []netip.AddrPort `json:"addresses"`
	Voted    bool             `json:"voted"`  // its vote was counted
	Signed   bool             `json:"signed"` // its signature is among those that came with the consensus
}

type shownRelay struct {
	Nickname string           `json:"nickname"`
	ID       wire.ID          `json:"id"`
	Address  []netip.AddrPort `json:"addresses"`
	Flags    []string         `json:"flags"`
	Weight   uint64           `json:"weight"` // bytes per second
	Policy   string           `json:"exit_policy"`
	Software string           `json:"software,omitempty"` // if its descriptor was to be had
	Versions []uint64         `json:"protocols,omitempty"`
}

// lookAt asks the authorities for the consensus, and for what it leaves out.
func lookAt(ctx context.Context, n *netdoc.Network, wait time.Duration) (*shownNetwork, error) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	defer conn.Close()
	node, err := link.NewNode(link.Config{Conn: conn})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	client := directory.NewClient(node)
	follower := directory.NewFollower(directory.FollowerConfig{Network: n, Client: client})
	var g errgroup.Group
	g.Go(func() error { return node.Run(ctx) })
	g.Go(func() error { return follower.Run(ctx) })
	defer g.Wait()
	defer stop()
	defer client.Close()
	c, err := first(ctx, follower, wait)
	if err != nil {
		return nil, err
	}
	shown := showConsensus(n, c)
	shown.addSoftware(ctx, n, c, client)
	return shown, nil
}

// first waits for the follower's first consensus.
func first(ctx context.Context, f *directory.Follower, wait time.Duration) (*netdoc.Consensus, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		changed := f.Changed()
		if c := f.Current(); c != nil {
			return c, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err := f.Problem()
			if err == nil {
				err = ctx.Err()
			}
			return nil, &failure{
				code: codeFailed, err: err, what: fmt.Sprintf("there is no consensus to show: %v", err),
				advice: "see whether the authorities run, whether this machine reaches their UDP ports, and whether its clock is right",
			}
		}
	}
}

func showConsensus(n *netdoc.Network, c *netdoc.Consensus) *shownNetwork {
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	s := &shownNetwork{
		Name: n.Name, Quorum: netdoc.Quorum(len(n.Authorities)),
		ValidAfter: at(c.ValidAfter), FreshUntil: at(c.FreshUntil), ValidUntil: at(c.ValidUntil),
		Relays: []shownRelay{},
	}
	signed := signers(c.Raw())
	for _, a := range n.Authorities {
		shown := shownAuthority{Nickname: a.Nickname, ID: a.ID, Address: a.Addresses, Signed: signed[a.ID]}
		for _, v := range c.Voters {
			shown.Voted = shown.Voted || v.Authority == a.ID
		}
		s.Authorities = append(s.Authorities, shown)
	}
	for i := range c.Relays {
		r := &c.Relays[i]
		s.Relays = append(s.Relays, shownRelay{
			Nickname: r.Nickname, ID: r.ID, Address: r.Addresses, Flags: r.Flags.Names(), Weight: r.Weight, Policy: r.Policy.String(),
		})
	}
	return s
}

// signers are whose signatures an envelope carries. It was verified: it has valid ones of authorities only.
func signers(raw []byte) map[wire.ID]bool {
	var envelope struct {
		Signatures []netdoc.Signature `cbor:"2,keyasint"`
	}
	all := map[wire.ID]bool{}
	if err := cbor.Unmarshal(raw, &envelope); err != nil {
		return all
	}
	for _, s := range envelope.Signatures {
		all[s.Signer] = true
	}
	return all
}

// addSoftware asks the authorities for the relays' descriptors, and leaves out what it does not get.
func (s *shownNetwork) addSoftware(ctx context.Context, n *netdoc.Network, c *netdoc.Consensus, client *directory.Client) {
	if len(c.Relays) > maxDescriptors {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, softwareTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range c.Relays {
		g.Go(func() error {
			path := directory.DescriptorPath + "/" + c.Relays[i].Descriptor.String()
			for k := range n.Authorities {
				a := n.Authorities[(i+k)%len(n.Authorities)]
				raw, _, err := client.Fetch(ctx, directory.PeerOf(a), path, "", netdoc.MaxDescriptor)
				if err != nil {
					continue
				}
				if d, err := netdoc.ParseDescriptor(raw); err == nil && d.Digest() == c.Relays[i].Descriptor {
					s.Relays[i].Software, s.Relays[i].Versions = d.Software, d.Protocols
					return nil
				}
			}
			return nil
		})
	}
	g.Wait()
}

// print prints tables for a person.
func (s *shownNetwork) print(w io.Writer) error {
	fmt.Fprintf(w, "network %s: %d relays\n", s.Name, len(s.Relays))
	fmt.Fprintf(w, "consensus of %s, fresh until %s, valid until %s\n\n",
		s.ValidAfter.Format(time.RFC3339), s.FreshUntil.Format(time.RFC3339), s.ValidUntil.Format(time.RFC3339))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "AUTHORITY\tID\tADDRESS\tVOTE\tSIGNATURE")
	for _, a := range s.Authorities {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", a.Nickname, a.ID.Short(), joined(a.Address), yes(a.Voted, "counted"), yes(a.Signed, "signed"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprintln(table, "RELAY\tID\tADDRESS\tWEIGHT\tSOFTWARE\tVERSIONS\tFLAGS")
	for _, r := range s.Relays {
		software, versions := "-", "-"
		if r.Software != "" {
			software, versions = r.Software, strings.Trim(fmt.Sprint(r.Versions), "[]")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", r.Nickname, r.ID.Short(), joined(r.Address), r.Weight, software, versions, strings.Join(r.Flags, " "))
	}
	return table.Flush()
}

func joined(addrs []netip.AddrPort) string {
	all := make([]string, len(addrs))
	for i, a := range addrs {
		all[i] = a.String()
	}
	return strings.Join(all, " ")
}

func yes(ok bool, word string) string {
	if ok {
		return word
	}
	return "-"
}
