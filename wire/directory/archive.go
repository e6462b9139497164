package directory

import (
	"net/http"
	"strconv"
	"sync"

	"torproxy/wire/netdoc"
)

// Bounds of what a server keeps to make differences to.
const (
	archiveDocuments = 16
	archiveBytes     = 64 << 20
)

// archive is the consensus that a server gives out, and the last ones, to which it makes differences. It is
// safe for concurrent use.
type archive struct {
	mu      sync.Mutex
	recent  []*edition // oldest first
	serving *served    // the last of recent
}

// edition is a consensus as bytes.
type edition struct {
	validAfter int64
	digest     netdoc.Digest
	raw        []byte
}

// served is the newest edition in every form that it is asked for; none is made before that, and none twice.
type served struct {
	edition
	whole       func() *body
	differences map[netdoc.Digest]func() *body
}

// body is an answer, plain and compressed.
type body struct{ plain, packed []byte }

func newBody(raw []byte) *body { return &body{plain: raw, packed: compress(raw)} }

// add makes c the newest edition, unless it is that or older.
func (a *archive) add(c *netdoc.Consensus) *served {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.serving != nil && c.ValidAfter <= a.serving.validAfter {
		return a.serving
	}
	newest := &edition{validAfter: c.ValidAfter, digest: c.Digest(), raw: c.Raw()}
	s := &served{edition: *newest, differences: map[netdoc.Digest]func() *body{}}
	s.whole = sync.OnceValue(func() *body { return newBody(s.raw) })
	a.recent = append(a.recent, newest)
	a.trim()
	for _, old := range a.recent[:len(a.recent)-1] {
		s.differences[old.digest] = sync.OnceValue(func() *body { return difference(old, newest) })
	}
	a.serving = s
	return s
}

// trim drops the oldest editions beyond the bounds; the newest always stays.
func (a *archive) trim() {
	size := 0
	for i := len(a.recent) - 1; i >= 0; i-- {
		size += len(a.recent[i].raw)
		if n := len(a.recent) - i; n > 1 && (n > archiveDocuments || size > archiveBytes) {
			a.recent = append([]*edition(nil), a.recent[i+1:]...)
			return
		}
	}
}

// difference returns nil if there is none that is shorter than the document.
func difference(from, to *edition) *body {
	raw, err := netdoc.Difference(from.raw, to.raw)
	if err != nil || len(raw) >= len(to.raw) {
		return nil
	}
	return newBody(raw)
}

// answer picks what a request gets: a difference to the consensus that it names, or the whole document.
func (s *served) answer(from string) *body {
	if digest, err := netdoc.ParseDigest(from); err == nil {
		if made, ok := s.differences[digest]; ok {
			if b := made(); b != nil {
				return b
			}
		}
	}
	return s.whole()
}

// ServeHTTP answers GET for the newest edition.
func (s *served) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tag := quoted(s.digest)
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	b := s.answer(r.URL.Query().Get("from"))
	raw := b.plain
	w.Header().Set("Content-Type", ContentType)
	if acceptsZstd(r.Header) {
		raw = b.packed
		w.Header().Set("Content-Encoding", zstdCoding)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.Write(raw)
}

// quoted writes a digest as an ETag.
func quoted(d netdoc.Digest) string { return `"` + d.String() + `"` }

// consensusFrom is the path that asks for a difference to a consensus.
func consensusFrom(c *netdoc.Consensus) string { return ConsensusPath + "?from=" + c.Digest().String() }
