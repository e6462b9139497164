package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"torproxy/cmd/torproxy/internal/echo"
	"torproxy/cmd/torproxy/internal/state"
)

const (
	defaultEcho = "127.0.0.1:7777"
	guest       = "guest" // who may log in if nobody else was named
)

// echoOptions are the flags of echo.
type echoOptions struct {
	listen   listenAddress
	auth     string
	authFile string
	made     bool // neither was given
}

func newEcho(out *output) *cobra.Command {
	o := echoOptions{listen: listenAddress{network: "tcp", address: defaultEcho, tcpOnly: true}}
	cmd := &cobra.Command{
		Use:   "echo",
		Short: "Run a destination to try: it shows what arrives",
		Long: "Run a small web server that answers with what it was sent and what it could learn of who sent it. /secret is\n" +
			"behind a password, which HTTP Digest with SHA-256 proves without sending it; /open asks the client to open\n" +
			"a page. Without --auth and --auth-file it makes a password and prints it.\n\n" +
			"The client's private network reaches it on this machine; another network's exits do not reach 127.0.0.1.",
		Example: "  torproxy echo\n" +
			"  curl -x http://127.0.0.1:8118 http://127.0.0.1:7777/\n" +
			"  torproxy get --user guest http://127.0.0.1:7777/secret",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.made = !cmd.Flags().Changed("auth") && o.authFile == ""
			if o.auth != "" && o.authFile != "" {
				return wrongUsage(cmd.CommandPath(), "--auth and --auth-file contradict each other")
			}
			return runEcho(cmd, o, out)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&o.listen, "listen", "listen on `ADDRESS`, IP:PORT (port 0 picks a free one)")
	f.StringVar(&o.auth, "auth", "", "who may see /secret, `USER:PASSWORD`; other users of this machine can read it here")
	f.StringVar(&o.authFile, "auth-file", "", "the same, the first line of `FILE`")
	f.CountVarP(&out.verbose, "verbose", "v", "log every request, with addresses and paths``")
	f.BoolVarP(&out.quiet, "quiet", "q", false, "print nothing but errors")
	cmd.RegisterFlagCompletionFunc("listen", cobra.NoFileCompletions)
	cmd.RegisterFlagCompletionFunc("auth", cobra.NoFileCompletions)
	return cmd
}

// credential reads who may see /secret. shown is what is printed of it: only what was made here. Its errors
// show nothing of what was given.
func (o *echoOptions) credential(command string) (c echo.Credential, shown string, err error) {
	flag, text := "auth", o.auth
	switch {
	case o.authFile != "":
		flag = "auth-file"
		data, err := state.ReadBounded(o.authFile, maxPassphrase)
		if err != nil {
			return c, "", &failure{code: codeState, err: err, what: fmt.Sprintf("cannot read the password (--auth-file): %v", err)}
		}
		text, _, _ = strings.Cut(string(data), "\n")
		text = strings.TrimSuffix(text, "\r")
	case o.made:
		text = guest + ":" + rand.Text()
		shown = text
	}
	if c, err = echo.ParseCredential(text); err != nil {
		return c, "", wrongUsage(command, fmt.Sprintf("--%s: %v", flag, err))
	}
	return c, shown, nil
}

func runEcho(cmd *cobra.Command, o echoOptions, out *output) error {
	credential, shown, err := o.credential(cmd.CommandPath())
	if err != nil {
		return err
	}
	l, err := listen(cmd.Context(), "listen", o.listen)
	if err != nil {
		f, ok := errors.AsType[*failure](err)
		if ok && f.code == codeTaken {
			f.cause, f.advice = "another program listens there", "choose another port with --listen; port 0 picks a free one"
		}
		return err
	}
	defer l.Close()
	if l.exposed() {
		out.reporter().warning(fmt.Sprintf("--listen %s: anyone who can reach this address can use it", l.shown))
	}
	if !out.quiet {
		printEcho(out, l.shown, shown)
	}
	if err := serveEcho(cmd.Context(), l, credential, out); err != nil {
		return fmt.Errorf("the port has failed: %w", err)
	}
	l.Close()
	out.reporter().stopped()
	return nil
}

func serveEcho(ctx context.Context, l net.Listener, c echo.Credential, out *output) error {
	return echo.New(echo.Config{Credential: c, Log: out.roleLog()}).Serve(ctx, l)
}

// printEcho says where it is and what to try.
func printEcho(out *output, at, credential string) {
	url := "http://" + reachable(at)
	fmt.Fprintf(out.stdout, "%s %s\n", out.stdout.paint(bold, "listens on"), at)
	user := "NAME"
	if name, password, made := strings.Cut(credential, ":"); made {
		user = name
		fmt.Fprintf(out.stdout, "  user       %s\n  password   %s\n", name, password)
	}
	fmt.Fprintf(out.stdout, `
Try it, through the client:

  torproxy get %[1]s/
  torproxy get --user %[2]s %[1]s/secret
  torproxy get --open %[1]s/open
  torproxy open %[1]s/

Ctrl-C stops it.
`, url, user)
}
