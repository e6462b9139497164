package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"torproxy/proxy"
	"torproxy/proxy/frontdoor"
	"torproxy/wire"
)

// run is the program: it carries out a command line until it is done or ctx ends, and returns the exit
// code. It has waited for everything that it started. stdout and stderr may be terminals, which are
// treated as such.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &output{stdout: newScreen(stdout), stderr: newScreen(stderr)}
	root := newRoot(out)
	root.SetArgs(slices.Concat([]string{}, args)) // never nil, for which cobra would take os.Args
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errSaidNo) {
		return exitFailed
	}
	// A flag before --json that is wrong ends the parsing before --json is seen.
	out.json = out.json || slices.Contains(args, "--json")
	f := failureOf(err)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		f = &failure{code: codeFailed, what: "interrupted", err: err}
	}
	out.reporter().failed(f)
	return f.exit()
}

// newRoot returns the command line: the client, with the other commands below it.
func newRoot(out *output) *cobra.Command {
	o := defaultOptions()
	root := &cobra.Command{
		Use:   "torproxy",
		Short: "Connections through several relays, none of which sees both ends",
		Long: "torproxy sends connections through several relays, so that no single one sees both who connects and\n" +
			"where to. Programs reach it by SOCKS5 or as an HTTP proxy. Without --network it starts a private\n" +
			"network on this machine: for trying out, no anonymity.",
		Example: "  torproxy --hops 5\n" +
			"  curl --socks5-hostname 127.0.0.1:9050 http://example.com/\n" +
			"  curl -x http://127.0.0.1:8118 http://example.com/",
		Version:           version(),
		Args:              noArguments,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out.verbose > 0 && out.quiet {
				return wrongUsage(cmd.CommandPath(), "-v and -q contradict each other")
			}
			if err := o.check(); err != nil {
				return wrongUsage(cmd.CommandPath(), err.Error())
			}
			return runClient(cmd.Context(), o, cmd.InOrStdin(), out)
		},
	}
	root.SetVersionTemplate(versionLine())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return wrongUsage(cmd.CommandPath(), err.Error())
	})
	addClientFlags(root, &o, out)
	root.SetHelpCommand(newHelp(root))
	root.AddCommand(newGet(out), newOpen(out), newStatus(out), newWhy(out), newEcho(out))
	root.AddCommand(newRelay(out), newDirauth(out), newNetwork(out), newCompletion(root), newVersion())
	return root
}

// defaultOptions are the client's without a flag.
func defaultOptions() options {
	return options{
		hops:  proxy.DefaultHops,
		socks: listenAddress{network: "tcp", address: "127.0.0.1:9050"},
		http:  listenAddress{network: "tcp", address: "127.0.0.1:8118", tcpOnly: true},

		prefetch: true, openLinks: openLinks(frontdoor.Ask),
	}
}

func addClientFlags(root *cobra.Command, o *options, out *output) {
	f := root.Flags()
	f.SortFlags = false
	f.Var(&o.hops, "hops", "relays that every connection goes through, 1 to 8")
	f.Var(&o.socks, "socks", "listen for SOCKS5 on `ADDRESS`: IP:PORT (port 0 picks a free one) or unix:/path")
	f.Var(&o.http, "http", "listen as an HTTP proxy on `ADDRESS`; its own page shows what goes on")
	f.Var(&o.network, "network", "the network to use, as described by `FILE` (default: a private one on this machine)")
	f.Var(&o.dataDir, "data-dir", "keep guards and the last consensus in `DIR`: to enter the network by the same relays at the next start, and to be ready sooner")
	f.Var(isolateBy{&o.isolateDest}, "isolate", "keep connections to different hosts on different circuits, too")
	f.BoolVar(&o.optimistic, "optimistic", false, "tell programs that they are connected before the exit has answered: faster, but failures come without a reason")
	f.Var(&o.prefetch, "prefetch", "let exits open the links of http:// pages that a browser asks for, so that all is there sooner")
	f.Var(&o.openLinks, "open-links", "what to do when a reply asks to open a link; it opens in a browser that has no way past the proxy")
	f.StringVar(&o.browser, "browser", "", "that browser's `PATH`, or its name (default: $BROWSER, then one that is installed)")
	f.Var(relayList{&o.relays.exit}, "exit", "leave only by `RELAY`, a nickname or an ID (several with commas); it sets you apart from others")
	f.Var(relayList{&o.relays.exclude}, "exclude", "never use `RELAY`; several with commas")
	f.BoolVar(&out.json, "json", false, "print events on stdout, one JSON object per line")
	f.CountVarP(&out.verbose, "verbose", "v", "log what happens; -vv also destinations and addresses``") // takes no value, and `` says so
	f.BoolVarP(&out.quiet, "quiet", "q", false, "print nothing but errors")
	f.BoolP("help", "h", false, "print this")
	f.Bool("version", false, "print the version")
	root.RegisterFlagCompletionFunc("hops", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var all []cobra.Completion
		for n := 1; n <= wire.MaxHops; n++ {
			all = append(all, strconv.Itoa(n))
		}
		return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	})
	root.RegisterFlagCompletionFunc("socks", cobra.NoFileCompletions)
	root.RegisterFlagCompletionFunc("http", cobra.NoFileCompletions)
	root.RegisterFlagCompletionFunc("isolate", cobra.FixedCompletions([]cobra.Completion{"dest"}, cobra.ShellCompDirectiveNoFileComp))
	root.RegisterFlagCompletionFunc("prefetch", cobra.FixedCompletions([]cobra.Completion{"on", "off"}, cobra.ShellCompDirectiveNoFileComp))
	root.RegisterFlagCompletionFunc("open-links", cobra.FixedCompletions([]cobra.Completion{"ask", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	root.RegisterFlagCompletionFunc("exit", cobra.NoFileCompletions)
	root.RegisterFlagCompletionFunc("exclude", cobra.NoFileCompletions)
	root.MarkFlagFilename("network", "json")
	root.MarkFlagDirname("data-dir")
}

// noArguments accepts none; a word in a command's place may be a command's name misspelt.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasSubCommands() {
		return wrongUsage(cmd.CommandPath(), fmt.Sprintf("%s takes no argument, but was given %q", cmd.CommandPath(), args[0]))
	}
	f := wrongUsage(cmd.CommandPath(), fmt.Sprintf("there is no command %q", args[0]))
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		f.advice = fmt.Sprintf("did you mean %s %s? %s", cmd.CommandPath(), near[0], f.advice)
	}
	return f
}

// newHelp is cobra's help command, except that an unknown command is an error.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Print the help of a command",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			for _, c := range root.Commands() {
				if c.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			topic, rest, err := root.Find(args)
			if err != nil {
				return wrongUsage(root.CommandPath(), err.Error())
			}
			if len(rest) > 0 {
				return noArguments(topic, rest)
			}
			topic.InitDefaultHelpFlag()
			return topic.Help()
		},
	}
}
