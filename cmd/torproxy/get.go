package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"torproxy/cmd/torproxy/internal/browser"
)

// Getting a page:
//
//  1. ask         through the client's front door                                  get.go, get_proxy.go
//  2. follow      redirections, on the same site only
//  3. login       answer a challenge, asking for the password at most three times  get_login.go
//  4. deliver     the body, to stdout                                              get_body.go
//  5. tell        what happened, to stderr: the status, the circuit, the times     get_tell.go
//  6. open        the page that the reply asks for, if --open says so              get_link.go

const (
	maxRedirects = 10
	maxRequests  = 20 // redirections, challenges and answers together
)

// getOptions are the flags of get.
type getOptions struct {
	openOptions
	user         string
	passwordFile string
	open         bool
}

func newGet(out *output) *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get URL",
		Short: "Get a page through the running client",
		Long: "Get a page through the running client: the body goes to stdout, and what happened to stderr.\n\n" +
			"With --user the password is asked for when the site wants one, on the terminal and without showing it, and\n" +
			"again if it was wrong, three times. It is proved by HTTP Digest and never sent, except by Basic over https://:\n" +
			"over http:// the exit would read it. Passwords go to the site of URL only; redirections to other sites are\n" +
			"not followed.\n\n" +
			"Exit code 1 if there was no answer, or one with a status of 400 and above, or a redirection elsewhere.",
		Example: "  torproxy get http://example.com/\n" +
			"  torproxy get --user ann https://example.com/private > page.html",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return wrongUsage(cmd.CommandPath(), "name one page: torproxy get http://example.com/")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkDoor(cmd, o.http); err != nil {
				return err
			}
			link, err := browser.ParseLink(args[0])
			if err == nil && o.passwordFile != "" && o.user == "" {
				err = errors.New("--password-file is whose password? Say it with --user")
			}
			if err != nil {
				return wrongUsage(cmd.CommandPath(), err.Error())
			}
			ask := &passphrases{ctx: cmd.Context(), flag: "password-file", file: o.passwordFile, in: cmd.InOrStdin(), out: out.stderr}
			return runGet(cmd.Context(), o, link, ask, out)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.user, "user", "", "log in as `NAME` if the site asks for it")
	f.StringVar(&o.passwordFile, "password-file", "", "the password is the first line of `FILE`; - is stdin")
	f.BoolVar(&o.open, "open", false, "open the page that the reply asks for, as torproxy open does")
	addBrowserFlag(cmd, &o.browser)
	addDoorFlag(cmd, &o.http)
	f.BoolVarP(&out.quiet, "quiet", "q", false, "print nothing but the body and errors")
	cmd.RegisterFlagCompletionFunc("user", cobra.NoFileCompletions)
	return cmd
}

// getting is one run of get.
type getting struct {
	options   getOptions
	output    *output
	api       *api
	transport *http.Transport
	site      site
	login     *login

	url       *url.URL // to be asked for
	redirects int
	started   time.Time // when the first request began
	began     time.Time // when the last one did
	headed    time.Time // when its answer's head was there
}

func runGet(ctx context.Context, o getOptions, link browser.Link, ask *passphrases, out *output) error {
	u, err := url.Parse(link.String())
	if err != nil {
		return err
	}
	u.Fragment = ""
	door := newAPI(o.http)
	g := &getting{options: o, output: out, api: door, transport: newTransport(door.at), site: siteOf(u), url: u, started: time.Now()}
	g.login = &login{user: o.user, ask: ask, say: out}
	defer g.transport.CloseIdleConnections()
	for range maxRequests {
		answer, err := g.ask(ctx)
		if err != nil {
			return g.explain(err)
		}
		again, err := g.react(ctx, answer)
		if !again {
			answer.Body.Close()
			return err
		}
		discard(answer.Body)
	}
	return &failure{code: codeStatus, what: fmt.Sprintf("%s was not got: %d requests did not lead to it", link, maxRequests), cause: "the site asks for more and more"}
}

// ask asks for the page.
func (g *getting) ask(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "*/*")
	if g.options.open {
		req.Header.Set("Accept", uriList+", */*;q=0.9")
	}
	req.Header.Set("User-Agent", "") // none is sent: it would tell what is used here
	if g.url.Scheme == "http" {      // else the site would read it
		req.Header.Set("Torproxy-Open", "self") // step 6: nobody else need be asked
	}
	if proof := g.login.authorization(g.url); proof != "" {
		req.Header.Set("Authorization", proof)
	}
	g.began = time.Now()
	answer, err := g.transport.RoundTrip(req)
	g.headed = time.Now()
	return answer, err
}

// react does what an answer wants; true: the next request is ready.
func (g *getting) react(ctx context.Context, answer *http.Response) (again bool, err error) {
	switch {
	case isProxyFailure(g.url, answer):
		return false, g.proxyFailed(answer)
	case answer.StatusCode == http.StatusUnauthorized && g.login.user != "":
		return g.login.challenged(g.url, answer)
	}
	next, err := redirection(answer, g.url)
	if err == nil && next != nil {
		if err = g.follow(next); err == nil {
			return true, nil
		}
	}
	return false, errors.Join(g.deliver(ctx, answer), err)
}

// redirection is where an answer leads on to; nil: nowhere.
func redirection(answer *http.Response, from *url.URL) (*url.URL, error) {
	switch answer.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	to, err := from.Parse(answer.Header.Get("Location"))
	if err == nil {
		_, err = browser.ParseLink(to.String())
	}
	if err != nil || answer.Header.Get("Location") == "" {
		return nil, &failure{code: codeStatus, err: err, what: "the site leads on to an address that cannot be followed"}
	}
	to.Fragment = ""
	return to, nil
}

// follow makes a redirection the next request.
func (g *getting) follow(to *url.URL) error {
	g.redirects++
	switch {
	case g.redirects > maxRedirects:
		return &failure{code: codeStatus, what: fmt.Sprintf("the site leads on and on: more than %d times", maxRedirects)}
	case !g.site.has(to):
		return &failure{
			code: codeStatus, what: "the page is at another site: " + printable(to.String()),
			advice: "if that is where you want to go: torproxy get " + printable(to.String()),
		}
	}
	g.url = to
	g.say("it is at %s", printable(to.String()))
	return nil
}

// say says one line of what happens.
func (g *getting) say(format string, args ...any) {
	if !g.output.quiet {
		fmt.Fprintf(g.output.stderr, format+"\n", args...)
	}
}

// site is where a URL leads: the only place that passwords go to and redirections are followed on.
type site struct{ scheme, host, port string }

func siteOf(u *url.URL) site {
	s := site{scheme: u.Scheme, host: strings.ToLower(u.Hostname()), port: u.Port()}
	if s.port == "" {
		s.port = defaultPorts[u.Scheme]
	}
	return s
}

var defaultPorts = map[string]string{"http": "80", "https": "443"}

// has reports whether a URL belongs to the site: the same, or its https where it had http.
func (s site) has(u *url.URL) bool {
	other := siteOf(u)
	upgraded := site{scheme: "https", host: s.host, port: "443"}
	return other == s || s.scheme == "http" && s.port == "80" && other == upgraded
}

// target is what a site is asked for by at the front door.
func (s site) target() string { return net.JoinHostPort(s.host, s.port) }
