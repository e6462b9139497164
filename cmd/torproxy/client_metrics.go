package main

import (
	"torproxy/proxy"
	"torproxy/proxy/frontdoor"
	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// failureLabels and dialLabels are the labels of what a client counts, besides those of an exit's reasons.
var (
	failureLabels = map[proxy.Failure]string{
		proxy.FailureLink: "link", proxy.FailureTimeout: "timeout", proxy.FailureUnreachable: "unreachable", proxy.FailureBehind: "behind",
		proxy.FailureRefused: "refused", proxy.FailureBroken: "broken", proxy.FailureViolation: "violation", proxy.FailureGivenUp: "given_up",
	}
	dialLabels = map[string]string{
		proxy.DialConnected: "connected", proxy.DialNoCircuit: "no_circuit", proxy.DialGivenUp: "given_up",
	}
)

// collect adds what the client counts.
func (c *client) collect(s samples) {
	s.gauge("torproxy_client_bootstrap_percent", float64(c.proxy.Progress().Percent))
	collectConsensus(s, c.proxy.Consensus())
	collectCircuits(s, c.proxy.Stats())
	collectDoor(s, c.door.Stats())
}

// collectConsensus adds nothing before the first consensus.
func collectConsensus(s samples, doc *netdoc.Consensus) {
	if doc != nil {
		s.gauge("torproxy_client_consensus_relays", float64(len(doc.Relays)))
		s.gauge("torproxy_client_consensus_valid_until_seconds", float64(doc.ValidUntil)/1000)
	}
}

func collectCircuits(s samples, p proxy.Stats) {
	s.gauge("torproxy_client_circuits", float64(p.Circuits-p.Spares), "state", "used")
	s.gauge("torproxy_client_circuits", float64(p.Spares), "state", "spare")
	s.gauge("torproxy_client_circuits", float64(p.Building), "state", "building")
	s.gauge("torproxy_client_streams", float64(p.Streams))
	s.counter("torproxy_client_circuits_built_total", uint64(p.Built))
	for failure, name := range failureLabels {
		s.counter("torproxy_client_circuits_failed_total", uint64(p.Failed[failure]), "cause", name)
	}
	s.gauge("torproxy_client_circuit_build_seconds", p.BuildMedian.Seconds(), "quantile", "0.5")
	s.gauge("torproxy_client_circuit_build_seconds", p.Build80.Seconds(), "quantile", "0.8")
	s.gauge("torproxy_client_circuit_build_seconds", p.Build95.Seconds(), "quantile", "0.95")
	for outcome, name := range dialLabels {
		s.counter("torproxy_client_connections_total", uint64(p.Dials[outcome]), "outcome", name)
	}
	for reason, name := range reasonLabels {
		if reason != 0 && reason != wire.ReasonDone {
			s.counter("torproxy_client_connections_total", uint64(p.Dials[reason.String()]), "outcome", name)
		}
	}
	s.counter("torproxy_client_bytes_total", uint64(p.In), "direction", "in")
	s.counter("torproxy_client_bytes_total", uint64(p.Out), "direction", "out")
}

func collectDoor(s samples, d frontdoor.Stats) {
	s.counter("torproxy_client_http_requests_total", uint64(d.Tunnels), "kind", "tunnel")
	s.counter("torproxy_client_http_requests_total", uint64(d.Forwarded), "kind", "forwarded")
	s.counter("torproxy_client_http_failures_total", uint64(d.Failed))
	for result, n := range map[string]int64{"used": d.PushesUsed, "missed": d.PushesMissed, "refused": d.PushesRefused, "unused": d.PushesUnused, "known": d.PushesKnown} {
		s.counter("torproxy_client_pushes_total", uint64(n), "result", result)
	}
	s.gauge("torproxy_client_pushes_held", float64(d.PushesHeld))
	s.gauge("torproxy_client_push_held_bytes", float64(d.PushBytesHeld))
	s.counter("torproxy_client_push_bytes_total", uint64(d.PushBytesUsed), "result", "used")
	s.counter("torproxy_client_push_bytes_total", uint64(d.PushBytesWasted), "result", "wasted")
}
