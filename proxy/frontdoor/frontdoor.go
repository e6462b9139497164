// Package frontdoor is the client's HTTP port. One listener, three kinds of request, told apart by their
// request line before anything else looks at them:
//
//	CONNECT example.com:443 HTTP/1.1          a byte pipe to the target         connect.go, tunnel.go
//	GET http://example.com/a?b HTTP/1.1       one request, which the exit makes forward.go, exchange.go, pushes.go
//	GET /api/status HTTP/1.1                  the front door itself             guard.go, api.go, events.go, page.go
//
// The way of a request:
//
//  1. listener.go   one of at most MaxConns connections
//  2. frontdoor.go  dispatch: no ServeMux, which would answer CONNECT with 404 and clean other sites' paths
//  3. target.go     what is wanted, in one canonical form, or 400
//  4. own.go        never a listener of this process, or 403
//  5. isolation.go  Proxy-Authorization becomes an opaque isolation key
//  6. Config.Dial   a stream through the network; failure.go says what became of it
//
// The package knows nothing of circuits: it dials through a function and shows what a Backend tells it.
package frontdoor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the listener. Times are wall-clock.
const (
	defaultMaxConns = 1024             // connections open at once; each costs two goroutines and some 50 KiB while it carries data
	headerTimeout   = 10 * time.Second // for a request's head, from its first byte: nobody holds a slot by writing slowly
	idleTimeout     = 2 * time.Minute  // between two requests of a connection; browsers give up at about the same time
	maxHeaderBytes  = 64 << 10         // of a request's head; net/http's own default is 1 MiB
	dialTimeout     = 2 * time.Minute  // for Dial, circuit building included; Dial's own limits are meant to be shorter
	answerTimeout   = 10 * time.Second // to read the body of, and to write the answer to, a request for the front door itself
)

// Config is what a Server needs. Dial and Backend are required; the rest may be left zero.
type Config struct {
	// Dial opens a stream. The context bounds only the dialling. The connection should have CloseWrite;
	// without it the end of one direction ends both.
	// A *wire.EndError in the error's chain decides the status that the client sees, and so does ErrUser. An
	// error there with a method ProxyStatus() string gives the details of the Proxy-Status header, which
	// a destination's own scripts can read. Called concurrently.
	Dial func(ctx context.Context, r Request) (net.Conn, error)

	// Backend is what the front door shows and steers. Called concurrently.
	Backend Backend

	// Own reports whether target, in the form that Dial gets, leads to a listener of this process: such a
	// request is refused. nil: only this listener's own address and localhost are known. Called concurrently.
	Own func(target string) bool

	// OpenLinks says what becomes of links that replies ask to open.
	OpenLinks OpenLinks

	// ParseLink judges such a link. It returns the URL as it is shown and opened, byte for byte, and its host
	// as it stands there. nil: no link is taken in.
	ParseLink func(raw string) (url, host string, err error)

	// Open opens one: it starts a browser whose only way out is this proxy, and returns when that runs; its
	// context ends with Serve. nil: links can be shown, but not opened.
	Open func(ctx context.Context, url string) error

	// LinkAsked is told of every link that now waits for its user's answer, and returns at once. nil: only
	// the console and the API show it.
	LinkAsked func(Link)

	// Prefetch lets exits open the links of pages, and push what they lead to.
	Prefetch bool

	// Optimistic answers CONNECT before the exit has: a round trip is saved, and a failure shows as a
	// connection that is cut.
	Optimistic bool

	// Metrics serves GET /metrics, behind the guard. nil: there is no such page.
	Metrics http.Handler

	// Log gets warnings, and at debug level one line per failed request. nil: nothing is logged.
	Log *slog.Logger

	// MaxConns is how many connections may be open at once; when they are, further ones wait in the
	// kernel's queue until one closes. 0: 1024.
	MaxConns int
}

// Request is what Dial is asked for.
type Request struct {
	// Target is a canonical HOST:PORT: lower case, addresses in their shortest form, IPv6 in brackets.
	Target string

	// Isolation keeps apart: requests of the same may share a circuit, of different ones never. "" is that
	// of requests without credentials.
	Isolation string

	// HTTP asks for a stream over which the exit makes an HTTP request: what is written is one HTTP/1.1
	// request in origin form, what is read the response. Such a stream, and every one with Early, is there
	// before the exit has answered; what becomes of it, reads tell.
	HTTP  bool
	Early bool

	// After is the stream of an earlier attempt at the same request, which ended without an answer. Dial
	// closes it, and goes on from there through another circuit; or returns why that attempt has failed if
	// another one would not help, or after a few.
	After net.Conn

	// Pushed takes the streams that the exit opens because of this one, and returns at once. nil: they are
	// refused.
	Pushed func(net.Conn)

	// User is the user name of the credentials, which may ask for more than to be kept apart; Dial refuses
	// what it does not understand with ErrUser.
	User string
}

// ErrUser is wrapped by Dial's error when the user name of the credentials asks for something that cannot
// be understood or done.
var ErrUser = errors.New("frontdoor: the user name is not usable")

// Server is the front door.
type Server struct {
	cfg   Config
	key   [32]byte // turns credentials into isolation keys; never leaves the process
	links *links

	pushes *pushes
	counts counts
}

// New returns a Server. It panics when Dial or Backend is missing.
func New(cfg Config) *Server {
	if cfg.Dial == nil || cfg.Backend == nil {
		panic("frontdoor: Config without Dial or Backend")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = defaultMaxConns
	}
	s := &Server{cfg: cfg, links: newLinks(&cfg)}
	s.pushes = newPushes(&s.counts)
	rand.Read(s.key[:])
	return s
}

// Links lists the links that replies ask to open, oldest first: those that wait for an answer, and the
// last ones that have got it.
func (s *Server) Links() []Link { return s.links.all() }

// LinksChanged returns a channel that is closed when one of them next changes, or a new one comes.
func (s *Server) LinksChanged() <-chan struct{} { return s.links.watch() }

// AnswerLink answers for the user whether a link shall be opened. It returns at once; what came of it is to be
// seen in Links. ErrNoLink: no such link waits for an answer (any more).
func (s *Server) AnswerLink(id string, open bool) error { return s.links.answer(id, open) }

// Serve answers requests on l, whose address must be IP:PORT, until ctx ends or l fails. It then closes l,
// every connection and every tunnel, waits for everything that it started, and returns nil after ctx ended,
// else the cause. A Server serves one listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	addr, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return fmt.Errorf("frontdoor: listener address %q is not IP:PORT", l.Addr())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	d := &door{Config: s.cfg, counts: &s.counts, key: s.key, links: s.links, addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())}
	d.forwarder = newForwarder(d, s.pushes)
	s.pushes.serve(d)
	defer d.links.serve(ctx)()
	return d.run(ctx, limitListener(l, s.cfg.MaxConns, s.cfg.Log))
}

// door is one Serve: a listener and what is reached through it.
type door struct {
	Config
	counts    *counts
	key       [32]byte
	addr      netip.AddrPort // of the listener, unmapped
	forwarder *forwarder
	links     *links
	watchers  atomic.Int32 // open /api/events

	running sync.WaitGroup // connections, handlers and dials
	mu      sync.Mutex
	closing bool // run waits for running: nothing that is not yet counted may start
}

// run serves l until ctx ends, and returns when nothing of the door is running any more.
func (d *door) run(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:                      d,
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnState:                    d.count,
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // OPTIONS * is guarded like every other request
		ErrorLog:                     slog.NewLogLogger(d.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	err := server.Serve(l)
	if !stop() {
		err = nil // ctx ended, and that is why
	}
	server.Close()
	d.forwarder.pushes.close()
	d.finish()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// begin counts something that no connection or handler holds open; it reports false when it must not start
// any more. The caller calls running.Done.
func (d *door) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closing {
		d.running.Add(1)
	}
	return !d.closing
}

// finish waits for everything that is counted.
func (d *door) finish() {
	d.mu.Lock()
	d.closing = true
	d.mu.Unlock()
	d.running.Wait()
}

// count follows a connection's life for run: until it is closed, or hijacked by a handler, which is
// counted too.
func (d *door) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		d.running.Add(1)
	case http.StateClosed, http.StateHijacked:
		d.running.Done()
	}
}

// ServeHTTP tells the three kinds of request apart.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.running.Add(1)
	defer d.running.Done()
	switch {
	case r.Method == http.MethodConnect:
		d.connect(w, r)
	case r.URL.IsAbs():
		d.forward(w, r)
	default:
		d.answer(w, r)
	}
}
