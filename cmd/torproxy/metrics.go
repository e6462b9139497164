package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"
)

// Metrics for Prometheus, of every role (METRICS.md has the names). They are exact and of this moment, and
// tell nothing of anybody.

// samples collects the values of one answer. Labels are pairs of a name and a value.
type samples struct{ set *metrics.Set }

// counter adds to one that only rises. Its name ends in _total.
func (s samples) counter(name string, value uint64, labels ...string) {
	s.set.GetOrCreateCounter(series(name, labels)).Add(int(value))
}

// gauge adds one that rises and falls.
func (s samples) gauge(name string, value float64, labels ...string) {
	s.set.GetOrCreateGauge(series(name, labels), nil).Set(value)
}

// series is a name with its labels.
func series(name string, labels []string) string {
	if len(labels) == 0 {
		return name
	}
	pairs := make([]string, 0, len(labels)/2)
	for i := 0; i < len(labels); i += 2 {
		pairs = append(pairs, labels[i]+"="+strconv.Quote(labels[i+1]))
	}
	return name + "{" + strings.Join(pairs, ",") + "}"
}

// metricsHandler answers with what collect adds, and with the process's own figures. collect may be called
// concurrently.
func metricsHandler(role string, collect func(samples)) http.Handler {
	metrics.ExposeMetadata(true) // of what kind each metric is
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := samples{metrics.NewSet()}
		s.gauge("torproxy_build_info", 1, "role", role, "version", version())
		collect(s)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.set.WritePrometheus(w)
		metrics.WriteProcessMetrics(w)
	})
}

// Limits of a role's metrics port. It answers from memory.
const (
	metricsTimeout  = 10 * time.Second
	metricsHead     = 8 << 10 // bytes
	metricsIdle     = time.Minute
	metricsGrace    = 500 * time.Millisecond // for answers that are under way when it stops
	maxScrapers     = 16                     // connections; further ones wait
	metricsPath     = "/metrics"
	metricsLoopback = "127.0.0.1"
)

// metricsAddress is the value of --metrics: IP:PORT, or a port of 127.0.0.1. "": there are none.
type metricsAddress struct{ listenAddress }

func (a *metricsAddress) String() string { return a.address }

// Set implements pflag.Value.
func (a *metricsAddress) Set(s string) error {
	if s = strings.TrimPrefix(s, ":"); !strings.Contains(s, ":") {
		s = net.JoinHostPort(metricsLoopback, s)
	}
	a.tcpOnly = true
	return a.listenAddress.Set(s)
}

// addMetricsFlag adds --metrics.
func addMetricsFlag(cmd *cobra.Command, a *metricsAddress) {
	cmd.Flags().Var(a, "metrics", "answer Prometheus at http://`ADDRESS`/metrics, a port of 127.0.0.1 or IP:PORT")
	cmd.RegisterFlagCompletionFunc("metrics", cobra.NoFileCompletions)
}

// listenMetrics opens the port of --metrics; nil: there is none. Its errors are failures.
func listenMetrics(ctx context.Context, a metricsAddress, log *slog.Logger) (*listener, error) {
	if a.address == "" {
		return nil, nil
	}
	l, err := listen(ctx, "metrics", a.listenAddress)
	if err != nil {
		if f, ok := errors.AsType[*failure](err); ok && f.code == codeTaken {
			f.cause = "another program listens there"
			f.advice = "choose another port with --metrics; port 0 picks a free one"
		}
		return nil, err
	}
	log.Info("metrics", "at", "http://"+reachable(l.shown)+metricsPath)
	if l.exposed() {
		log.Warn("anyone who can reach the metrics' address can read them", "address", l.shown)
	}
	return l, nil
}

// serveMetrics answers on l until ctx ends. nil: it waits for that.
func serveMetrics(ctx context.Context, l *listener, metrics http.Handler) error {
	if l == nil {
		<-ctx.Done()
		return nil
	}
	server := &http.Server{
		Handler:           ownNameOnly(l, metrics),
		ReadHeaderTimeout: metricsTimeout,
		ReadTimeout:       metricsTimeout,
		WriteTimeout:      metricsTimeout,
		IdleTimeout:       metricsIdle,
		MaxHeaderBytes:    metricsHead,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), metricsGrace)
		defer cancel()
		server.Shutdown(grace)
		server.Close()
	})
	err := server.Serve(netutil.LimitListener(l, maxScrapers))
	if !stop() {
		<-ended
		return nil
	}
	server.Close()
	return fmt.Errorf("the metrics' port has failed: %w", err)
}

// ownNameOnly serves GET /metrics. On loopback it answers to an address or localhost only: a page in
// the operator's browser could reach it by a name of its own that leads to 127.0.0.1.
func ownNameOnly(l *listener, metrics http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		switch {
		case !l.exposed() && !isAddress(r.Host):
			http.Error(w, "ask by this machine's address", http.StatusMisdirectedRequest)
		case r.URL.Path != metricsPath:
			http.Error(w, "there is only "+metricsPath, http.StatusNotFound)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
		default:
			metrics.ServeHTTP(w, r)
		}
	})
}

// isAddress reports whether a Host header has an address, or localhost.
func isAddress(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}
