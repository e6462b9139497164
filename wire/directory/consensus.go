package directory

import (
	"net/http"

	"torproxy/wire/netdoc"
)

// ConsensusHandler serves the newest consensus at ConsensusPath, whole or as a difference to one that it
// served earlier. latest may return nil, for none yet; it is called once per request.
func ConsensusHandler(latest func() *netdoc.Consensus) http.Handler {
	return serveConsensus(&archive{}, latest)
}

func serveConsensus(a *archive, latest func() *netdoc.Consensus) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		c := latest()
		if c == nil {
			http.Error(w, "no consensus yet", http.StatusServiceUnavailable)
			return
		}
		a.add(c).ServeHTTP(w, r)
	})
}

// etag names a consensus by the digest of what was signed: two copies with different sets of signatures
// are the same document.
func etag(c *netdoc.Consensus) string { return quoted(c.Digest()) }
