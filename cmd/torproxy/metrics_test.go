package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"torproxy/dirauth"
	"torproxy/proxy"
	"torproxy/proxy/frontdoor"
	"torproxy/relay"
	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// answered is what a handler of metrics answers.
func answered(h http.Handler) string {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

var (
	seriesLike = regexp.MustCompile(`^([a-z_]+)(?:\{((?:[a-z]+="[^"\\]*",?)+)\})? [0-9.e+-]+$`)
	rowLike    = regexp.MustCompile("(?m)^\\| `(torproxy_[a-z_]+)` \\| ([^|]*)\\|")
)

// rows are the names in METRICS.md that begin so, with their labels.
func rows(t *testing.T, prefix string) map[string]string {
	t.Helper()
	page, err := os.ReadFile("METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, row := range rowLike.FindAllStringSubmatch(string(page), -1) {
		if strings.HasPrefix(row[1], prefix) {
			all[row[1]] = strings.NewReplacer("`", "", " ", "").Replace(row[2])
		}
	}
	if len(all) == 0 {
		t.Fatalf("METRICS.md has nothing of %s", prefix)
	}
	return all
}

// documented checks that METRICS.md has exactly the metrics of an answer, with their labels and the values of
// those.
func documented(t *testing.T, prefix, text string) {
	t.Helper()
	page, _ := os.ReadFile("METRICS.md")
	want := rows(t, prefix)
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "torproxy_") {
			continue
		}
		m := seriesLike.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("bad line %q", line)
			continue
		}
		if !strings.HasPrefix(m[1], prefix) {
			continue
		}
		seen[m[1]] = true
		var labels []string
		for pair := range strings.SplitSeq(m[2], ",") {
			name, value, _ := strings.Cut(pair, "=")
			labels = append(labels, name)
			if value = strings.Trim(value, `"`); name != "relay" && name != "" && name != "version" && !strings.Contains(string(page), "`"+value+"`") {
				t.Errorf("%s: METRICS.md does not know %s=%q", m[1], name, value)
			}
		}
		if got := strings.Join(labels, ","); got != want[m[1]] {
			t.Errorf("%s has the labels %s, METRICS.md says %s", m[1], got, want[m[1]])
		}
		if strings.HasSuffix(m[1], "_total") != strings.Contains(text, "# TYPE "+m[1]+" counter\n") {
			t.Errorf("%s has the wrong type", m[1])
		}
	}
	for name := range want {
		if !seen[name] {
			t.Errorf("%s is in METRICS.md, but not in the answer", name)
		}
	}
}

func TestRelayMetricsAreDocumented(t *testing.T) {
	stats := relay.Stats{
		Answered: map[wire.Status]uint64{wire.StatusReady: 3}, Reset: map[wire.ResetCode]uint64{wire.ResetCreate: 4}, CellsInward: 1 << 60,
		Streams: map[relay.StreamCount]uint64{
			{Kind: wire.KindTCP}: 5, {Kind: wire.KindHTTP, Reason: wire.ReasonDNS}: 6, {Kind: 0, Reason: wire.ReasonUnsupported}: 7, {Kind: wire.KindDirectory, Reason: wire.ReasonUnsupported}: 8,
		},
		Dials: map[wire.Reason]uint64{wire.ReasonTimeout: 9},
	}
	stats.Now.Circuits = 10
	text := answered(metricsHandler("relay", func(s samples) {
		s.gauge("torproxy_relay_in_consensus", 1, "relay", "alice")
		collectRelay(s, "alice", stats)
		collectRelay(s, "ben", relay.Stats{})
	}))
	documented(t, "torproxy_relay_", text)
	documented(t, "torproxy_build_", text)
	for _, want := range []string{
		`torproxy_relay_circuits{relay="alice"} 10`, `torproxy_relay_circuits{relay="ben"} 0`,
		`torproxy_relay_creates_answered_total{relay="alice",status="ready"} 3`, `torproxy_relay_creates_reset_total{relay="alice",code="create"} 4`,
		`torproxy_relay_streams_total{relay="alice",kind="http",reason="dns"} 6`, `torproxy_relay_streams_total{relay="alice",kind="other",reason="unsupported"} 15`,
		`torproxy_relay_dials_total{relay="alice",reason="timeout"} 9`, `torproxy_relay_dials_total{relay="ben",reason="none"} 0`,
		`torproxy_relay_cells_total{relay="alice",direction="inward"} 1152921504606846976`, "process_",
	} {
		says(t, text, want)
	}
	for reason := range wire.ReasonShutdown + 1 {
		if reasonLabels[reason] == "" {
			t.Errorf("%v has no label", reason)
		}
	}
	for status := wire.Status(1); status.Valid(); status++ {
		if statusLabels[status] == "" {
			t.Errorf("%v has no label", status)
		}
	}
}

func TestDirauthMetricsAreDocumented(t *testing.T) {
	stats := dirauth.Stats{
		Consensuses: 1, Failed: 2, Said: map[dirauth.Word]uint64{dirauth.WordVote: 3}, Heard: map[dirauth.Word]uint64{dirauth.WordEcho: 4}, Proofs: 5,
		Answered: 6, Measured: 7, Registrations: map[directory.Result]uint64{directory.Added: 8, directory.Known: 9, directory.Refused: 10},
	}
	text := answered(metricsHandler("dirauth", func(s samples) {
		for _, name := range []string{"relays", "voters", "valid_until_seconds"} { // of a consensus
			s.gauge("torproxy_dirauth_consensus_"+name, 1)
		}
		collectDirauth(s, stats)
	}))
	documented(t, "torproxy_dirauth_", text)
	for _, want := range []string{
		`torproxy_dirauth_rounds_total{result="none"} 2`, `torproxy_dirauth_words_total{word="echo",way="heard"} 4`,
		`torproxy_dirauth_registrations_total{result="known"} 9`, "torproxy_dirauth_proofs_total 5",
	} {
		says(t, text, want)
	}
}

func TestClientMetricsAreDocumented(t *testing.T) {
	stats := proxy.Stats{
		Circuits: 5, Spares: 2, Building: 1, Built: 6, Failed: map[proxy.Failure]int64{proxy.FailureGivenUp: 7}, In: 1 << 60, Build80: 1500 * time.Millisecond,
		Dials: map[string]int64{proxy.DialConnected: 8, proxy.DialNoCircuit: 9, wire.ReasonDNS.String(): 10},
	}
	text := answered(metricsHandler("client", func(s samples) {
		s.gauge("torproxy_client_bootstrap_percent", 100)
		collectConsensus(s, &netdoc.Consensus{ValidUntil: 1500})
		collectCircuits(s, stats)
		collectDoor(s, frontdoor.Stats{Tunnels: 1, Forwarded: 2, Failed: 3, PushesUsed: 4, PushesMissed: 5, PushesRefused: 6, PushesUnused: 7, PushesHeld: 8, PushBytesHeld: 9, PushBytesUsed: 10, PushBytesWasted: 11})
	}))
	documented(t, "torproxy_client_", text)
	for _, want := range []string{
		`torproxy_client_circuits{state="used"} 3`, `torproxy_client_circuits_failed_total{cause="given_up"} 7`, `torproxy_client_circuit_build_seconds{quantile="0.8"} 1.5`,
		`torproxy_client_connections_total{outcome="connected"} 8`, `torproxy_client_connections_total{outcome="dns"} 10`, `torproxy_client_bytes_total{direction="in"} 1152921504606846976`,
		`torproxy_client_http_requests_total{kind="forwarded"} 2`, `torproxy_client_pushes_total{result="missed"} 5`, `torproxy_client_push_bytes_total{result="wasted"} 11`,
		"torproxy_client_consensus_valid_until_seconds 1.5", "torproxy_client_pushes_held 8", "torproxy_client_push_held_bytes 9",
	} {
		says(t, text, want)
	}
	collectConsensus(samples{}, nil)
}

// The port has one page, for those who ask by an address, and ends with its context.
func TestMetricsPort(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	var a metricsAddress
	if err := a.Set(":0"); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	l, err := listenMetrics(t.Context(), a, log)
	if err != nil || !strings.HasPrefix(l.shown, "127.0.0.1:") {
		t.Fatal(err, l)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serveMetrics(ctx, l, metricsHandler("relay", func(samples) {})) }()
	client := direct()
	for _, c := range []struct {
		method, path, host string
		status             int
	}{
		{"GET", "/metrics", "", 200}, {"HEAD", "/metrics", "localhost:1", 200}, {"GET", "/metrics", "[::1]", 200},
		{"GET", "/metrics", "evil.test", 421}, {"GET", "/metrics", "127.0.0.1.evil.test:80", 421}, {"GET", "/", "", 404}, {"POST", "/metrics", "", 405},
	} {
		req, _ := http.NewRequest(c.method, "http://"+l.shown+c.path, nil)
		req.Host = c.host
		answer, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != c.status || c.status == 200 && c.method == "GET" && !strings.Contains(string(text), `torproxy_build_info{role="relay",version="`) {
			t.Errorf("%+v: %s\n%.300s", c, answer.Status, text)
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	l, _ = listenMetrics(t.Context(), a, log)
	l.Close()
	if err := serveMetrics(t.Context(), l, nil); err == nil {
		t.Error("a listener that is closed was served")
	}
}

func TestMetricsAddress(t *testing.T) {
	for in, want := range map[string]string{"9101": "127.0.0.1:9101", ":9101": "127.0.0.1:9101", "0.0.0.0:1": "0.0.0.0:1", "[::1]:1": "[::1]:1", "localhost:1": "127.0.0.1:1"} {
		var a metricsAddress
		if err := a.Set(in); err != nil || a.String() != want {
			t.Errorf("%s: %s, %v", in, a.String(), err)
		}
	}
	for _, bad := range []string{"", "x", "example.com:1", "127.0.0.1", "66000", "unix:/x"} {
		var a metricsAddress
		if err := a.Set(bad); err == nil {
			t.Errorf("%q is taken as %v", bad, &a)
		}
	}
	if got := series("x", []string{"a", "b", "c", `d"`}); got != `x{a="b",c="d\""}` {
		t.Error(got)
	}
}
