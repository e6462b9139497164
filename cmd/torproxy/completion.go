package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// shells write the completion script of each shell there is one for.
var shells = map[string]func(root *cobra.Command, w io.Writer) error{
	"bash": func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
	"zsh":  (*cobra.Command).GenZshCompletion,
	"fish": func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
}

func newCompletion(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:                   "completion bash|zsh|fish",
		Short:                 "Print the completion script for a shell",
		DisableFlagsInUseLine: true,
		Long: "Print a script that makes a shell complete torproxy's commands and flags. For the running shell:\n\n" +
			"  bash    source <(torproxy completion bash)\n" +
			"  zsh     source <(torproxy completion zsh)\n" +
			"  fish    torproxy completion fish | source\n\n" +
			"For all later ones put that line into ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish.",
		ValidArgs: []cobra.Completion{"bash", "zsh", "fish"},
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && shells[args[0]] != nil:
				return nil
			case len(args) == 1:
				return wrongUsage(cmd.CommandPath(), fmt.Sprintf("there is no completion for %q, only for bash, zsh and fish", args[0]))
			default:
				return wrongUsage(cmd.CommandPath(), "name one shell: torproxy completion bash|zsh|fish")
			}
		},
		RunE: func(cmd *cobra.Command, args []string) error { return shells[args[0]](root, cmd.OutOrStdout()) },
	}
}
