package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"torproxy/cmd/torproxy/internal/browser"
)

// openOptions are the flags of open.
type openOptions struct {
	http    listenAddress
	browser string
}

func newOpen(out *output) *cobra.Command {
	var o openOptions
	cmd := &cobra.Command{
		Use:   "open URL",
		Short: "Open a page in a browser that has no way past the proxy",
		Long: "Start an installed browser (Chromium, Chrome, Edge or Firefox) that reaches nothing but the running client,\n" +
			"with a fresh profile that is removed when it ends. Your own browser would give you away: it has your\n" +
			"cookies and logins, looks names up by itself, and connects directly. This command ends with the browser.\n\n" +
			"Without --browser the first usable one of $BROWSER is taken, a list of commands separated by colons, of\n" +
			"which only the program counts; and else one that is installed.",
		Example: "  torproxy open http://example.com/",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return wrongUsage(cmd.CommandPath(), "name one link: torproxy open http://example.com/")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkDoor(cmd, o.http); err != nil {
				return err
			}
			link, err := browser.ParseLink(args[0])
			if err != nil {
				return wrongUsage(cmd.CommandPath(), err.Error())
			}
			return runOpen(cmd.Context(), o, link, out)
		},
	}
	cmd.Flags().SortFlags = false
	addDoorFlag(cmd, &o.http)
	addBrowserFlag(cmd, &o.browser)
	return cmd
}

// addBrowserFlag adds --browser.
func addBrowserFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "browser", "", "the browser's `PATH`, or its name (default: $BROWSER, then one that is installed)")
}

// runOpen opens a link through a client that is there, and waits for the browser's end.
func runOpen(ctx context.Context, o openOptions, link browser.Link, out *output) error {
	s, err := newAPI(o.http).status(ctx)
	if err != nil {
		return err
	}
	if !s.Ready() {
		out.reporter().warning(fmt.Sprintf("torproxy is not ready: it is at %d percent, %s; the page waits for it", s.Bootstrap.Percent, printable(s.Bootstrap.Summary)))
	}
	proxy, err := netip.ParseAddrPort(reachable(o.http.address))
	if err != nil {
		return err
	}
	w, err := browser.Start(ctx, browser.Config{Proxy: proxy, Program: o.browser}, link)
	if err != nil {
		return explainBrowser(link, err)
	}
	fmt.Fprintf(out.stderr, "%s opens %s\n", w.Program.Path, link)
	if err := w.Wait(); err != nil {
		return explainBrowser(link, err)
	}
	return nil
}

// explainBrowser is what is told of a browser that could not be started or has failed.
func explainBrowser(link browser.Link, err error) *failure {
	f := &failure{code: codeLink, err: err, what: fmt.Sprintf("%s was not opened: %v", link, err)}
	if errors.Is(err, browser.ErrNoBrowser) {
		f.advice = "install one of them, or say with --browser where it is"
	}
	if _, ended := errors.AsType[*browser.EndError](err); !ended {
		return f
	}
	headless := runtime.GOOS == "linux" && os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == ""
	switch {
	case headless:
		f.cause = "there is no display here: neither DISPLAY nor WAYLAND_DISPLAY is set"
		f.advice = "run it on your desktop"
	case os.Geteuid() == 0:
		f.cause, f.advice = "browsers do not run as root", "run it as an ordinary user"
	}
	return f
}
