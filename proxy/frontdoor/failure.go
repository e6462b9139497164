package frontdoor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"torproxy/wire"
)

// failure is an answer of the proxy's own in place of the destination's, written for a person.
type failure struct {
	status int    // HTTP status
	kind   string // error type of Proxy-Status, for programs (RFC 9209 section 2.3)
	what   string // what failed
	cause  string // what probably caused it
	advice string // what to do about it

	details string // of Proxy-Status, for programs; "": none
}

// reasons says what each END reason means to somebody who asked for a page; %s is HOST:PORT.
var reasons = map[wire.Reason]failure{
	wire.ReasonRefused: {status: 502, kind: "connection_refused", what: "%s refused the connection",
		cause: "nothing listens on that port, or a firewall says so", advice: "check the address and the port"},
	wire.ReasonHostUnreachable: {status: 502, kind: "destination_ip_unroutable", what: "%s is unreachable",
		cause: "the exit has no route to that host, or the host is down", advice: "try again later, or through another exit (POST /api/newnym)"},
	wire.ReasonNetUnreachable: {status: 502, kind: "destination_ip_unroutable", what: "the network of %s is unreachable",
		cause: "the exit has no route to that network; many have no IPv6", advice: "try another exit (POST /api/newnym), or the host's IPv4 address"},
	wire.ReasonDNS: {status: 502, kind: "dns_error", what: "the name in %s does not resolve",
		cause: "it does not exist, or only on your own network: the exit looks names up, never this machine", advice: "check the spelling"},
	wire.ReasonTimeout: {status: 504, kind: "connection_timeout", what: "%s did not answer in time",
		cause: "the host is down, or a firewall swallows what is sent to it", advice: "try again later, or through another exit (POST /api/newnym)"},
	wire.ReasonPolicy: {status: 403, kind: "destination_ip_prohibited", what: "no exit connects to %s",
		cause:  "the exits' policies do not allow that address or port; private addresses are reachable through no public exit",
		advice: "use another port, or a relay whose exit policy accepts this one"},
	wire.ReasonReset: {status: 502, kind: "connection_terminated", what: "the connection to %s was cut",
		cause: "the destination closed it at once, or does not speak HTTP on that port", advice: "check the port, then try again"},
	wire.ReasonResourceLimit: {status: 502, kind: "connection_limit_reached", what: "the exit takes no more connections for %s",
		cause: "too many streams are open at it", advice: "close some, or try again shortly"},
	wire.ReasonShutdown: {status: 502, kind: "destination_unavailable", what: "the exit for %s is shutting down",
		cause: "its operator stopped it", advice: "try again: another exit will be used"},
}

// dialFailure says what became of a request to t. The script of the page that asked may read the answer, so it
// has no relay's name in it, and for a page no address of ours.
func (d *door) dialFailure(r *http.Request, t target, err error) *failure {
	if errors.Is(err, ErrUser) {
		return badUser(err)
	}
	f, known := reasons[reasonOf(err)]
	if !known {
		f = d.otherFailure(r, err)
	}
	f.what = fmt.Sprintf(f.what, t)
	if end, ok := errors.AsType[*wire.EndError](err); ok && !end.Remote && end.Reason == wire.ReasonPolicy {
		f.cause = plain(err.Error()) // this side knows more than that: which exits there are, and why none will do
	}
	if told, ok := errors.AsType[interface {
		error
		ProxyStatus() string
	}](err); ok {
		f.details = told.ProxyStatus()
	}
	return &f
}

// reasonOf is the END reason in an error's chain; 0 is anything else. A time-out that no exit has told of is
// none: nobody has asked the destination yet, or it is not known what it said.
func reasonOf(err error) wire.Reason {
	end, ok := errors.AsType[*wire.EndError](err)
	if !ok || end.Reason == wire.ReasonTimeout && !end.Remote {
		return 0
	}
	return end.Reason
}

// late reports whether an error is a time-out.
func late(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout()
}

// otherFailure is for causes on this side of the exit. How far the start is it says in percent alone: the
// sentence that goes with it is for the user, and may name relays.
func (d *door) otherFailure(r *http.Request, err error) failure {
	f := failure{
		status: http.StatusBadGateway, kind: "destination_unavailable", what: "no connection to %s", cause: plain(err.Error()),
		advice: "try again; torproxy why HOST tells which relay said what",
	}
	if !ofPage(r) {
		f.advice += ", http://" + d.addr.String() + "/ shows the circuits"
	}
	if errors.Is(err, context.Canceled) {
		f.cause = "the client closed the connection, or its sending side, before there was an answer"
		f.advice = "keep the connection open until the answer is there"
	} else if boot := d.Backend.Status().Bootstrap; boot.Percent < 100 {
		f.cause = fmt.Sprintf("torproxy is still starting: %d %% (%s)", boot.Percent, plain(err.Error()))
		f.advice = "wait until it is ready: torproxy status"
	} else if late(err) {
		f.cause = "no circuit in time, or no answer from its exit (" + plain(err.Error()) + ")"
	}
	return f
}

// badRequest is for requests that are wrong whatever the network says.
func badRequest(what string, cause error) *failure {
	return &failure{
		status: http.StatusBadRequest, kind: "http_request_error", what: what, cause: plain(cause.Error()),
		advice: "correct the request; the proxy takes CONNECT HOST:PORT and http:// URLs",
	}
}

// refuse writes f as the answer. Nothing of it is HTML or may be kept.
func (d *door) refuse(w http.ResponseWriter, r *http.Request, f *failure) {
	d.counts.failed.Add(1)
	d.Log.LogAttrs(r.Context(), slog.LevelDebug, "request failed",
		slog.Int("status", f.status), slog.String("what", f.what), slog.String("cause", f.cause))
	h := w.Header()
	h.Set("Proxy-Status", f.proxyStatus())
	h.Set("Cache-Control", "no-store")
	if f.status == http.StatusProxyAuthRequired {
		h.Set("Proxy-Authenticate", `Basic realm="torproxy: any name and password"`)
	}
	if r.Method == http.MethodConnect {
		// What the client may have sent behind its CONNECT was meant for somebody else: it must not be
		// read as a request to us.
		h.Set("Connection", "close")
	}
	http.Error(w, fmt.Sprintf("torproxy: %s.\nProbable cause: %s.\nWhat to do: %s.", f.what, f.cause, f.advice), f.status)
}

// proxyStatus is the value of the Proxy-Status header (RFC 9209): the details are a structured field's
// string (RFC 9651 section 3.3.3).
func (f *failure) proxyStatus() string {
	if f.details == "" {
		return "torproxy; error=" + f.kind
	}
	details := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, f.details)
	return "torproxy; error=" + f.kind + `; details="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(details) + `"`
}

// plain makes foreign text fit for one line of an answer.
func plain(s string) string { return oneLine(s, 300) }

// oneLine makes foreign text fit for one line of so many bytes, and cuts what is longer.
func oneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strings.TrimRight(s, ". ")
}
