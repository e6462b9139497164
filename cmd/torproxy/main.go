// Command torproxy sends connections through several relays, so that no single one sees both who connects
// and where to. Without a command it is the client: a SOCKS5 port, an HTTP port, and, if it is given no
// network, a whole private network in its own process to try it out on.
//
//	root.go        the command line, and what becomes of an error     one file per command below it
//	client.go      the client's run, step by step
//	listen.go      its two ports; taken.go, who has a port that is taken
//	requests.go    what a program asks, as the proxy is asked: with the flags, and what its user name says (username.go)
//	backend.go     what the front door shows of the proxy
//	report.go      what is said, to a person (person.go, screen.go) or to a program (events.go)
//	failure.go     an error as a person is told it
//
// For whoever uses a client that runs, by asking at its front door (api.go):
//
//	status.go      is it ready; why.go, what became of a request
//	get.go         get a page: get_proxy.go, get_login.go, get_body.go, get_tell.go and get_link.go in this order
//	open.go        open a page in a browser that has no way past it; LINKS.md says why
//	echo.go        a destination to try all that on
//
// For whoever runs a network, with OPERATORS.md beside this file as its manual:
//
//	network.go     make a network's files; network_show.go, look at it
//	dirauth.go     an authority's run; passphrase.go, for its key
//	relay.go       one or several relays' run; relay_member.go, what one of them tells and reads again
//	metrics.go     what they tell Prometheus, with relay_metrics.go and dirauth_metrics.go; METRICS.md has the names
//	role.go        what both have in common; notify.go and systemd.go for their supervisor
//
// Exit codes: 0 done, which for the client is being stopped by SIGINT or SIGTERM; 1 failed; 2 wrong usage:
// a command line that no machine and no network could carry out. A network file that is missing or invalid
// and a port that is taken are therefore 1, a port that is no number is 2.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// ballastSize is of memory that is never touched, and so never the machine's, but counts when the collector decides
// that the heap has doubled. A client or a relay holds some megabytes and, at full speed, makes garbage of as much
// many times a second: each collection is then for tens of megabytes of it instead (proxy/PERFORMANCE.md).
const ballastSize = 32 << 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal finds the system's default and ends the process at once
	ballast := make([]byte, ballastSize)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	runtime.KeepAlive(ballast)
	os.Exit(code)
}
