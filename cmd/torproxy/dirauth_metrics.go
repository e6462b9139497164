package main

import (
	"torproxy/dirauth"
	"torproxy/wire/directory"
)

// registrationLabels are the labels of what becomes of a descriptor.
var registrationLabels = map[directory.Result]string{
	directory.Added: "added", directory.Known: "known", directory.Refused: "refused",
}

// collect adds what the authority counts.
func (a *authority) collect(s samples) {
	if c := a.role.Consensus(); c != nil {
		s.gauge("torproxy_dirauth_consensus_relays", float64(len(c.Relays)))
		s.gauge("torproxy_dirauth_consensus_voters", float64(len(c.Voters)))
		s.gauge("torproxy_dirauth_consensus_valid_until_seconds", float64(c.ValidUntil)/1000)
	}
	collectDirauth(s, a.role.Stats())
}

func collectDirauth(s samples, stats dirauth.Stats) {
	s.gauge("torproxy_dirauth_relays_known", float64(stats.Now.Known))
	s.gauge("torproxy_dirauth_relays_running", float64(stats.Now.Running))
	s.counter("torproxy_dirauth_rounds_total", stats.Consensuses, "result", "consensus")
	s.counter("torproxy_dirauth_rounds_total", stats.Failed, "result", "none")
	for _, w := range []dirauth.Word{dirauth.WordVote, dirauth.WordEcho, dirauth.WordSignature} {
		s.counter("torproxy_dirauth_words_total", stats.Said[w], "word", w.String(), "way", "said")
		s.counter("torproxy_dirauth_words_total", stats.Heard[w], "word", w.String(), "way", "heard")
		s.counter("torproxy_dirauth_words_total", stats.Refused[w], "word", w.String(), "way", "refused")
	}
	s.counter("torproxy_dirauth_proofs_total", stats.Proofs)
	s.counter("torproxy_dirauth_probes_total", stats.Answered, "result", "answered")
	s.counter("torproxy_dirauth_probes_total", stats.Silent, "result", "silent")
	s.counter("torproxy_dirauth_measurements_total", stats.Measured, "result", "measured")
	s.counter("torproxy_dirauth_measurements_total", stats.Unmeasured, "result", "none")
	for r, n := range stats.Registrations {
		s.counter("torproxy_dirauth_registrations_total", n, "result", label(registrationLabels, r))
	}
}
