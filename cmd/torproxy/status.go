package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"torproxy/proxy/frontdoor"
)

func newStatus(out *output) *cobra.Command {
	var at listenAddress
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether the running client is ready",
		Long: "Ask the client that runs on this machine how it is. The exit code is 0 when it is ready, and 1 when it is\n" +
			"not, which is then explained, or when there is none: this is the health check.",
		Example: "  torproxy status\n" +
			"  until torproxy status; do sleep 1; done",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkDoor(cmd, at); err != nil {
				return err
			}
			return runStatus(cmd.Context(), newAPI(at), out)
		},
	}
	cmd.Flags().SortFlags = false
	addDoorFlag(cmd, &at)
	cmd.Flags().BoolVar(&out.json, "json", false, "print the status as one JSON object")
	return cmd
}

func runStatus(ctx context.Context, a *api, out *output) error {
	s, err := a.status(ctx)
	if err != nil {
		return err
	}
	if out.json {
		if err := json.NewEncoder(out.stdout).Encode(s); err != nil {
			return err
		}
		if !s.Ready() {
			return errSaidNo
		}
		return nil
	}
	if err := printStatus(out.stdout, s); err != nil {
		return err
	}
	if !s.Ready() {
		return &failure{
			code: codeNotReady, what: fmt.Sprintf("torproxy is not ready: it is at %d percent, %s", s.Bootstrap.Percent, s.Bootstrap.Summary),
			advice: "wait, and see whether that changes; requests that come meanwhile wait too",
		}
	}
	return nil
}

// printStatus prints a table for a person.
func printStatus(w io.Writer, s frontdoor.Status) error {
	if s.Ready() {
		fmt.Fprintln(w, "torproxy is ready.")
	}
	n := s.Network
	name := n.Name
	if n.Embedded {
		name = "private network on this machine: for trying out, no anonymity"
	}
	lines := [][2]string{
		{"SOCKS5", s.SOCKS},
		{"HTTP", s.HTTP},
		{"console", "http://" + reachable(s.HTTP) + "/"},
		{"hops", fmt.Sprint(s.Hops)},
		{"network", name},
		{"relays", fmt.Sprintf("%d, of which %d are exits; %d authorities", n.Relays, n.Exits, n.Authorities)},
	}
	if !n.ValidUntil.IsZero() {
		lines = append(lines, [2]string{"consensus", fmt.Sprintf("of %s, valid until %s", n.ValidAfter.UTC().Format(time.RFC3339), n.ValidUntil.UTC().Format(time.RFC3339))})
	}
	lines = append(lines, [2]string{"version", fmt.Sprintf("%s, process %d", s.Version, s.PID)})
	for _, l := range lines {
		if _, err := fmt.Fprintf(w, "  %-10s %s\n", l[0], printable(l[1])); err != nil {
			return err
		}
	}
	return nil
}
