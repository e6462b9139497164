package directory

import (
	"net/http"
	"strconv"

	"torproxy/wire/netdoc"
)

// ConsensusHandler serves the newest consensus at ConsensusPath. Authorities use it, and every relay as a
// mirror of what its Follower holds. latest may return nil, for none yet; it is called once per request.
func ConsensusHandler(latest func() *netdoc.Consensus) http.Handler {
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
		tag := etag(c)
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		raw := c.Raw()
		w.Header().Set("Content-Type", ContentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		w.Write(raw)
	})
}

// etag names a consensus by the digest of what was signed: two copies with different sets of signatures
// are the same document.
func etag(c *netdoc.Consensus) string { return `"` + c.Digest().String() + `"` }
