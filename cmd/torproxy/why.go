package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"torproxy/proxy/frontdoor"
)

func newWhy(out *output) *cobra.Command {
	var at listenAddress
	cmd := &cobra.Command{
		Use:   "why HOST",
		Short: "Say what became of the last requests to a host",
		Long: "Ask the running client what became of its last requests to a host: each step, how long it took, and which\n" +
			"relay said what. The client keeps this in memory only, for its last requests and until the next new\n" +
			"identity. HOST may also be HOST:PORT or a URL. Nothing known of it: exit code 1.",
		Example: "  torproxy why example.com",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return wrongUsage(cmd.CommandPath(), "name one host: torproxy why example.com")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkDoor(cmd, at); err != nil {
				return err
			}
			return runWhy(cmd.Context(), newAPI(at), out, hostOf(args[0]))
		},
	}
	cmd.Flags().SortFlags = false
	addDoorFlag(cmd, &at)
	cmd.Flags().BoolVar(&out.json, "json", false, "print the list as JSON, empty if nothing is known")
	return cmd
}

// hostOf is the host of what a person copies: a host, HOST:PORT or a URL.
func hostOf(s string) string {
	if u, err := url.Parse(s); err == nil && u.Host != "" {
		return u.Hostname()
	}
	if host, _, err := net.SplitHostPort(s); err == nil {
		return host
	}
	return strings.Trim(s, "[]")
}

func runWhy(ctx context.Context, a *api, out *output, host string) error {
	all, err := a.why(ctx, host)
	if err != nil {
		return err
	}
	if out.json {
		err := json.NewEncoder(out.stdout).Encode(frontdoor.List[frontdoor.Why](all))
		if err == nil && len(all) == 0 {
			err = errSaidNo
		}
		return err
	}
	if len(all) == 0 {
		return &failure{
			code: codeUnknown, what: fmt.Sprintf("nothing is known of %s", printable(host)),
			cause:  "nobody has asked for it through torproxy since it was started or since the last new identity, or that is many requests ago",
			advice: "try it, then ask again; is it the host that the program asked for?",
		}
	}
	for i, w := range all {
		if i > 0 {
			fmt.Fprintln(out.stdout)
		}
		if err := printWhy(out.stdout, w); err != nil {
			return err
		}
	}
	return nil
}

// printWhy prints one request: a sentence, and a table of its steps.
func printWhy(w io.Writer, a frontdoor.Why) error {
	fmt.Fprintf(w, "%s  %s  %s, %s (%s)\n", a.Began.Local().Format("15:04:05"), printable(a.Target), a.Outcome, took(a.TookMS), printable(a.Isolation))
	if a.Error != "" {
		fmt.Fprintf(w, "  %s\n", printable(a.Error))
	}
	if len(a.Path) > 0 {
		fmt.Fprintf(w, "  through %s\n", printable(strings.Join(a.Path, ", ")))
	}
	if len(a.Steps) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  STEP\tCIRCUIT\tWHO\tTIME\tRESULT")
	for _, s := range a.Steps {
		circuit := s.Circuit
		if circuit == "" {
			circuit = "-"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\n", printable(s.What), printable(circuit), printable(who(s)), took(s.TookMS), printable(s.Result))
	}
	return table.Flush()
}

// who is whose word a step's result is.
func who(s frontdoor.Step) string {
	switch {
	case s.Hop == 0:
		return "this machine"
	case s.Relay == "":
		return fmt.Sprintf("hop %d", s.Hop)
	}
	return fmt.Sprintf("hop %d, %s", s.Hop, s.Relay)
}

func took(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }
