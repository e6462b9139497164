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
}

// reasons says what each END reason means to somebody who asked for a page; %s is HOST:PORT.
var reasons = map[wire.Reason]failure{
	wire.ReasonRefused: {502, "connection_refused", "%s refused the connection",
		"nothing listens on that port, or a firewall says so", "check the address and the port"},
	wire.ReasonHostUnreachable: {502, "destination_ip_unroutable", "%s is unreachable",
		"the exit has no route to that host, or the host is down", "try again later, or through another exit (POST /api/newnym)"},
	wire.ReasonNetUnreachable: {502, "destination_ip_unroutable", "the network of %s is unreachable",
		"the exit has no route to that network; many have no IPv6", "try another exit (POST /api/newnym), or the host's IPv4 address"},
	wire.ReasonDNS: {502, "dns_error", "the name in %s does not resolve",
		"it does not exist, or only on your own network: the exit looks names up, never this machine", "check the spelling"},
	wire.ReasonTimeout: {504, "connection_timeout", "%s did not answer in time",
		"the host is down, or a firewall swallows what is sent to it", "try again later, or through another exit (POST /api/newnym)"},
	wire.ReasonPolicy: {403, "destination_ip_prohibited", "no exit connects to %s",
		"the exits' policies do not allow that address or port; private addresses are reachable through no public exit",
		"use another port, or a relay whose exit policy accepts this one"},
	wire.ReasonReset: {502, "connection_terminated", "the connection to %s was cut",
		"the destination closed it at once, or does not speak HTTP on that port", "check the port, then try again"},
	wire.ReasonResourceLimit: {502, "connection_limit_reached", "the exit takes no more connections for %s",
		"too many streams are open at it", "close some, or try again shortly"},
	wire.ReasonShutdown: {502, "destination_unavailable", "the exit for %s is shutting down",
		"its operator stopped it", "try again: another exit will be used"},
}

// dialFailure says what became of a request to t.
func (d *door) dialFailure(t target, err error) *failure {
	f, known := reasons[reasonOf(err)]
	if !known {
		f = d.otherFailure(err)
	}
	f.what = fmt.Sprintf(f.what, t)
	return &f
}

// reasonOf is the END reason in an error's chain; a time-out of our own counts as one; 0 is anything else.
func reasonOf(err error) wire.Reason {
	var timeout net.Error
	if end, ok := errors.AsType[*wire.EndError](err); ok {
		return end.Reason
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return wire.ReasonTimeout
	}
	return 0
}

// otherFailure is for causes on this side of the exit.
func (d *door) otherFailure(err error) failure {
	f := failure{502, "destination_unavailable", "no connection to %s", plain(err.Error()),
		"try again; if that does not help, the circuits and their state are shown at http://" + d.addr.String() + "/"}
	if errors.Is(err, context.Canceled) {
		f.cause = "the client closed the connection, or its sending side, before there was an answer"
		f.advice = "keep the connection open until the answer is there"
	} else if boot := d.Backend.Status().Bootstrap; boot.Percent < 100 {
		f.cause = fmt.Sprintf("torproxy is still starting: %s, %d %% (%s)", plain(boot.Summary), boot.Percent, plain(err.Error()))
		f.advice = "wait until it is ready: torproxy status"
	}
	return f
}

// badRequest is for requests that are wrong whatever the network says.
func badRequest(what string, cause error) *failure {
	return &failure{http.StatusBadRequest, "http_request_error", what, plain(cause.Error()),
		"correct the request; the proxy takes CONNECT HOST:PORT and http:// URLs"}
}

// refuse writes f as the answer. Nothing of it is HTML or may be kept.
func (d *door) refuse(w http.ResponseWriter, r *http.Request, f *failure) {
	d.Log.LogAttrs(r.Context(), slog.LevelDebug, "request failed",
		slog.Int("status", f.status), slog.String("what", f.what), slog.String("cause", f.cause))
	h := w.Header()
	h.Set("Proxy-Status", "torproxy; error="+f.kind)
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

// plain makes foreign text fit for one line of an answer.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "..."
	}
	return strings.TrimRight(s, ". ")
}
