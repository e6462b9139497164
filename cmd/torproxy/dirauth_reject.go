package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"torproxy/cmd/torproxy/internal/state"
	"torproxy/dirauth"
	"torproxy/wire"
)

// newDirauthReject is the command that shuts a relay out. It only writes the rejection file: the authority
// may run, and its store is not opened.
func newDirauthReject() *cobra.Command {
	var dir string
	r := dirauth.Rejection{}
	cmd := &cobra.Command{
		Use:   "reject ID --dir DIR",
		Short: "Shut a relay out, or forbid it to be an exit",
		Long: "Note in DIR/rejected.txt that a relay is not wanted. A running authority reads the file in every round and\n" +
			"on SIGHUP, and from then on refuses the relay and votes without it. To take the word back, delete its line.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return wrongUsage(cmd.CommandPath(), "say which relay: its ID, 64 hex digits")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := wire.ParseID(args[0])
			if err != nil {
				return wrongUsage(cmd.CommandPath(), fmt.Sprintf("%.80q is not a relay's ID: 64 lower-case hex digits", args[0]))
			}
			if dir == "" {
				return wrongUsage(cmd.CommandPath(), "the authority's directory is missing: --dir DIR")
			}
			r.ID = id
			return reject(cmd, dir, r)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&dir, "dir", "", "the authority's `DIR`")
	f.StringVar(&r.Reason, "reason", "", "`TEXT` of one line that the relay is told")
	f.BoolVar(&r.BadExit, "bad-exit", false, "the relay may stay, but not as the last hop")
	cmd.MarkFlagDirname("dir")
	return cmd
}

func reject(cmd *cobra.Command, dir string, r dirauth.Rejection) error {
	if _, err := os.Stat(filepath.Join(dir, networkName)); err != nil {
		return &failure{
			code: codeState, err: err, what: fmt.Sprintf("%s is not an authority's directory: %v", dir, err),
			cause: "its name is misspelt, or the network was not made yet", advice: "torproxy network new makes it",
		}
	}
	name := filepath.Join(dir, rejectionsName)
	lock, err := state.WaitLock(name + ".lock") // two of these at once must not lose a word
	if err != nil {
		return &failure{code: codeState, err: err, what: fmt.Sprintf("not written: %v", err)}
	}
	defer lock.Close()
	if err := dirauth.Reject(name, r); err != nil {
		return &failure{code: codeState, err: err, what: fmt.Sprintf("not written: %v", err)}
	}
	what := "rejected"
	if r.BadExit {
		what = "no exit any more"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "relay %s is %s: %s\n", r.ID.Short(), what, name)
	return nil
}
