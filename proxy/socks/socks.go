// Package socks is the SOCKS5 front of the client (RFC 1928, RFC 1929): it turns connections of programs
// on this machine into calls of one dial function. github.com/armon/go-socks5 speaks the protocol; this
// package owns everything around it that a proxy for anonymity has to get right.
//
// What passes on one connection, client's bytes on the left:
//
//	greeting  05 | n | method * n                               -> 05 | method
//	login     01 | n | user | n | password      (method 02)     -> 01 | 00
//	request   05 | command | 00 | type | address | port 2       -> 05 | reply | 00 | type | address | port 2
//	then, if the command was CONNECT, bytes both ways; each side may end its half first.
//
// The flow, in the order of the files:
//
//  1. serve.go accepts, at most Config.MaxConns at a time, and ends everything when the context ends.
//  2. client.go looks at the first byte, reads the greeting, and hands the connection to a socks5.Server
//     of its own: all state of a connection is in its client value, nothing in maps or contexts.
//  3. foreign.go answers what is not SOCKS5.
//  4. dial.go checks the request (destination.go), watches the client while Config.Dial runs, and turns
//     its error into a reply (reply.go).
//  5. lookup.go does the same for Tor's RESOLVE and RESOLVE_PTR with Config.Resolve and ResolveAddr; that
//     reply is the end.
//  6. relay.go carries the bytes.
//
// Names are never resolved here: they go to Config.Dial and Config.Resolve as they came. BIND, UDP
// ASSOCIATE and unknown commands are answered with reply 7: no packet ever leaves for them.
package socks

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Defaults of Config.
const (
	DefaultMaxConns         = 1024
	DefaultHandshakeTimeout = 5 * time.Second
	DefaultFrontDoor        = "127.0.0.1:8118"
)

// Request is what a client asks for.
type Request struct {
	// Target is HOST:PORT for Dial. HOST is a name of 1 to 255 letters, digits, hyphens, underscores and
	// dots, in lower case, or an IP address in its canonical form, IPv6 in brackets and never with a zone.
	// PORT is 1 to 65535. For Resolve it is such a name alone, for ResolveAddr such an address, without brackets.
	Target string

	// User and Password are what the client logged in with: any bytes, at most 255 each, both empty if it
	// did not. They authorise nothing; streams with different ones are to be kept apart.
	User, Password string

	// Client is the far end of the accepted connection.
	Client net.Addr
}

// Format prints the request without its credentials, whatever the verb.
func (r Request) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "{Target:%s User:%s Password:%s Client:%v}", r.Target, redacted(r.User), redacted(r.Password), r.Client)
}

// LogValue is the request without its credentials. It has the target: for debug level only.
func (r Request) LogValue() slog.Value {
	return slog.GroupValue(slog.String("target", r.Target),
		slog.String("user", redacted(r.User)), slog.String("password", redacted(r.Password)))
}

func redacted(secret string) string {
	if secret == "" {
		return "(none)"
	}
	return "(redacted)"
}

// Config is what a Server needs. Only Dial is required.
type Config struct {
	// Dial opens a stream to r.Target. It is called at most once per connection, from many goroutines.
	// ctx ends when the client hangs up or Serve is stopped, and Dial must then return soon; once Dial has
	// returned, ctx means nothing to the stream. An error that wraps a *wire.EndError chooses the client's
	// reply, any other is reply 1.
	//
	// The connection should have CloseWrite() error, else the end of the client's data closes it whole.
	// WriteTo and ReadFrom are used where it has them. Its Close must end blocked reads and writes; the
	// server calls it exactly once.
	//
	// A stream that may still turn out to be none, because the exit has not answered yet, is fine: the
	// client is told "succeeded" all the same, and a Read that then fails resets its connection.
	Dial func(ctx context.Context, r Request) (net.Conn, error)

	// Resolve asks for the addresses of a name, and ResolveAddr for the name of an address, for Tor's
	// commands RESOLVE and RESOLVE_PTR. Context and errors are as with Dial; no addresses or an empty name
	// is reply 4. Nil: the command is not supported.
	Resolve     func(ctx context.Context, r Request) ([]netip.Addr, error)
	ResolveAddr func(ctx context.Context, r Request) (string, error)

	// Login judges what a client logged in with. An error refuses it, which the client is told (RFC 1929
	// status 1), and is logged as a warning: it must not quote what it is about. Nil: every login is good.
	Login func(user, password string) error

	// Log gets no destination, client address or error of Dial above debug level, and never credentials.
	// Nil: nothing is logged.
	Log *slog.Logger

	// MaxConns is how many connections one call of Serve has open at most. When it is reached, Serve stops
	// accepting: further clients wait, unanswered, in the listener's queue until a connection ends. Zero or less: 1024.
	MaxConns int

	// HandshakeTimeout is the time from accept to the end of the client's request, and again for the
	// client to take the reply. Dial has no limit here but its own. Zero or less: 5 s.
	HandshakeTimeout time.Duration

	// FrontDoor is the address of the HTTP proxy that a client speaking HTTP to this port is told of.
	// Empty: 127.0.0.1:8118.
	FrontDoor string
}

// Server serves SOCKS5 on any number of listeners. Its methods may be called concurrently.
type Server struct {
	cfg     Config
	full    seldom // warns of MaxConns
	refused seldom // warns of logins
}

// New returns a server; it starts nothing.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = DefaultHandshakeTimeout
	}
	cfg.FrontDoor = cmp.Or(cfg.FrontDoor, DefaultFrontDoor)
	return &Server{cfg: cfg}
}
