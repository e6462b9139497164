package main

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"torproxy/proxy/frontdoor"
)

// person reports to a person: what to use goes to stdout, how things stand and what is wrong to stderr.
type person struct {
	stdout, stderr *screen
	quiet          bool // only what failed

	mu      sync.Mutex
	isReady bool   // ready has been told
	lost    bool   // and is no longer true
	console string // its URL, after ready
}

func (p *person) bootstrap(percent int, summary string) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	again := p.lost && percent == 100
	p.lost = p.isReady && percent < 100
	line := fmt.Sprintf("%3d%%  %s", percent, summary)
	switch {
	case !p.stderr.terminal:
		fmt.Fprintln(p.stderr, line)
	case percent < 100:
		p.stderr.rewrite(line)
	default:
		p.stderr.clear()
		if again {
			fmt.Fprintln(p.stderr, "ready again")
		}
	}
}

func (p *person) warning(message string) {
	if !p.quiet {
		fmt.Fprintf(p.stderr, "%s %s\n", p.stderr.paint(yellow, "warning:"), message)
	}
}

func (p *person) ready(at addresses) {
	if p.quiet {
		return
	}
	console := "http://" + reachable(at.http) + "/"
	p.mu.Lock()
	p.isReady, p.console = true, console
	p.mu.Unlock()
	fmt.Fprintf(p.stdout, `
%s

  SOCKS5     %s
  HTTP       %s
  console    %s

Try it:

  %s
  curl -x http://%s http://example.com/

Ctrl-C stops it.
`, p.stdout.paint(bold, "torproxy is ready."), at.socks, at.http, console, curlSOCKS(at.socks), reachable(at.http))
}

func (p *person) link(l frontdoor.Link) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	console := p.console
	p.mu.Unlock()
	fmt.Fprintf(p.stderr, "%s\n  answer at %s\n", p.describe(l), console)
}

// describe says what a reply asks for: the whole URL, with its host standing out.
func (p *person) describe(l frontdoor.Link) string {
	url := l.URL
	if scheme, rest, ok := strings.Cut(url, "://"+l.Host); ok {
		url = scheme + "://" + p.stderr.paint(bold, l.Host) + rest
	}
	return fmt.Sprintf("a reply of %s asks to open this link:\n  %s", printable(l.From), url)
}

func (p *person) failed(f *failure) {
	p.stderr.clear()
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s\n", p.stderr.paint(red, "error:"), f.what)
	if f.cause != "" {
		fmt.Fprintf(&text, "cause: %s\n", f.cause)
	}
	if f.advice != "" {
		fmt.Fprintf(&text, "to do: %s\n", f.advice)
	}
	fmt.Fprint(p.stderr, text.String())
}

func (p *person) stopped() {
	p.stderr.clear()
	if !p.quiet {
		fmt.Fprintln(p.stderr, "torproxy has stopped")
	}
}

// curlSOCKS is a line to copy that fetches a page through a SOCKS address, the name left to the proxy.
func curlSOCKS(addr string) string {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "curl -x socks5h://localhost" + path + " http://example.com/"
	}
	return "curl --socks5-hostname " + reachable(addr) + " http://example.com/"
}

// reachable is a bound address as a program on this machine writes it: one bound to every address is
// reached at loopback.
func reachable(bound string) string {
	a, err := netip.ParseAddrPort(bound)
	if err != nil || !a.Addr().IsUnspecified() {
		return bound
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port()).String()
}
