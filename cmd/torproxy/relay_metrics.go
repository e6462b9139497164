package main

import (
	"torproxy/relay"
	"torproxy/wire"
)

// The labels of what relays count, a contract like the metrics' names. A kind or reason without one is "other".
var (
	statusLabels = map[wire.Status]string{
		wire.StatusForwarded: "forwarded", wire.StatusReady: "ready", wire.StatusUnknownNext: "unknown_next", wire.StatusNextUnreachable: "next_unreachable",
		wire.StatusNextTimeout: "next_timeout", wire.StatusNextReset: "next_reset", wire.StatusOverloaded: "overloaded", wire.StatusRefused: "refused",
	}
	resetLabels = map[wire.ResetCode]string{
		wire.ResetDestroyed: "destroyed", wire.ResetCreate: "create", wire.ResetOverloaded: "overloaded", wire.ResetViolation: "violation",
	}
	kindLabels = map[wire.Kind]string{
		wire.KindTCP: "tcp", wire.KindHTTP: "http", wire.KindEcho: "echo", wire.KindResolve: "resolve",
	}
	reasonLabels = map[wire.Reason]string{
		0: "none", wire.ReasonDone: "done", wire.ReasonPolicy: "policy", wire.ReasonDNS: "dns", wire.ReasonRefused: "refused",
		wire.ReasonNetUnreachable: "net_unreachable", wire.ReasonHostUnreachable: "host_unreachable", wire.ReasonTimeout: "timeout",
		wire.ReasonReset: "reset", wire.ReasonResourceLimit: "resource_limit", wire.ReasonUnsupported: "unsupported", wire.ReasonInternal: "internal", wire.ReasonShutdown: "shutdown",
	}
)

// label is a code's label.
func label[C comparable](labels map[C]string, code C) string {
	if l, ok := labels[code]; ok {
		return l
	}
	return "other"
}

// collect adds what the relays of this process count.
func (r *relays) collect(s samples) {
	for _, m := range r.members {
		listed := 0.0
		if c := m.relay.Consensus(); c != nil {
			if _, ok := c.Relay(m.relay.ID()); ok {
				listed = 1
			}
		}
		s.gauge("torproxy_relay_in_consensus", listed, "relay", m.name)
		collectRelay(s, m.name, m.relay.Stats())
	}
}

func collectRelay(s samples, name string, stats relay.Stats) {
	own := func(labels ...string) []string { return append([]string{"relay", name}, labels...) }
	s.gauge("torproxy_relay_circuits", float64(stats.Now.Circuits), own()...)
	s.gauge("torproxy_relay_creates_waiting", float64(stats.Now.Peeling), own()...)
	s.gauge("torproxy_relay_exit_connections", float64(stats.Now.Connections), own()...)
	s.gauge("torproxy_relay_exit_lookups", float64(stats.Now.Lookups), own()...)
	s.gauge("torproxy_relay_exit_unread_bytes", float64(stats.Now.Unread), own()...)
	s.counter("torproxy_relay_cells_total", stats.CellsOutward, own("direction", "outward")...)
	s.counter("torproxy_relay_cells_total", stats.CellsInward, own("direction", "inward")...)
	for status, name := range statusLabels {
		s.counter("torproxy_relay_creates_answered_total", stats.Answered[status], own("status", name)...)
	}
	for code, name := range resetLabels {
		s.counter("torproxy_relay_creates_reset_total", stats.Reset[code], own("code", name)...)
	}
	for reason, name := range reasonLabels {
		s.counter("torproxy_relay_dials_total", stats.Dials[reason], own("reason", name)...)
	}
	for count, n := range stats.Streams {
		s.counter("torproxy_relay_streams_total", n, own("kind", label(kindLabels, count.Kind), "reason", label(reasonLabels, count.Reason))...)
	}
}
