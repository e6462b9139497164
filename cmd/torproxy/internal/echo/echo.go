// Package echo is a destination to try torproxy on: a small web server that shows its caller what it was
// sent and what it could learn from that.
//
//	/          and any other path: the request as it arrived, and what it gives away    reply.go, telltale.go
//	/secret    behind a challenge: HTTP Digest with SHA-256 (RFC 7616)                   secret.go
//	/open      asks the client to open a page                                            open.go
//
// A request for /secret:
//
//  1. param.go   the Authorization header, read strictly
//  2. digest.go  is it an answer to a challenge of ours at all
//  3. brake.go   after nine wrong answers in a minute, every answer of that user name waits its turn
//  4. digest.go  is it right, in constant time
//  5. nonce.go   was the challenge made here, lately, and not answered so before
//  6. secret.go  the page, or a new challenge
package echo

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// Limits of the server. Times are wall-clock.
const (
	maxConns       = 256 // further ones wait in the kernel's queue
	maxHeaderBytes = 64 << 10
	maxBody        = 64 << 10         // of a request's body is read and shown
	headTimeout    = 10 * time.Second // for a request's head
	readTimeout    = 30 * time.Second // for the whole request
	answerTimeout  = 30 * time.Second // for an answer, besides what the brake takes
	idleTimeout    = time.Minute
	graceTime      = 500 * time.Millisecond // for answers that are under way when it stops
)

// Config is what a Server needs.
type Config struct {
	// Credential opens /secret.
	Credential Credential

	// Log gets a line per request at debug level: with paths and addresses, but never with a user name or
	// anything of an Authorization header. nil: nothing is logged.
	Log *slog.Logger
}

// Server is the destination. It may be used as a handler, concurrently, or by Serve.
type Server struct {
	log    *slog.Logger
	key    Credential
	nonces *nonces
	brake  *brake
	now    func() time.Time
}

// New returns a Server.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var key [32]byte
	rand.Read(key[:])
	return &Server{log: cfg.Log, key: cfg.Credential, nonces: newNonces(key), brake: newBrake(), now: time.Now}
}

// Serve answers requests on l until ctx ends or l fails. It closes l and every connection, and returns nil
// after ctx ended, else the cause.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      answerTimeout + maxPatience,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTime)
		defer cancel()
		server.Shutdown(grace)
		server.Close()
	})
	err := server.Serve(netutil.LimitListener(l, maxConns))
	if !stop() {
		<-ended
		return nil
	}
	server.Close() // the listener has failed
	return err
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	logged := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	switch r.URL.Path {
	case "/secret":
		s.secret(logged, r)
	case "/open":
		s.open(logged, r)
	case "/opened":
		s.opened(logged, r)
	default:
		s.echo(logged, r)
	}
	s.log.Debug("answered", "from", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "status", logged.status)
}

// statusWriter notes the status for the log.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
