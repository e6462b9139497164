package directory

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"torproxy/wire/netdoc"
)

// ask makes a request of an archive's newest edition and returns the answer.
func ask(s http.Handler, path, encoding, tag string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept-Encoding", encoding)
	r.Header.Set("If-None-Match", tag)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestArchiveMakesDifferencesToTheLastEditions(t *testing.T) {
	n := testNetwork(4, time.Hour)
	var a archive
	var editions []*netdoc.Consensus
	for i := range archiveDocuments + 3 {
		relays := append(upTo(20), 30+i)
		c := parse(t, n, consensusOf(t, n, bubbleStart.Add(time.Duration(i)*time.Hour), relays...))
		editions = append(editions, c)
		a.add(c)
	}
	newest := editions[len(editions)-1]
	s := a.add(newest)
	if len(a.recent) != archiveDocuments || len(s.differences) != archiveDocuments-1 {
		t.Errorf("keeps %d documents, %d differences", len(a.recent), len(s.differences))
	}
	for i, old := range editions[:len(editions)-1] {
		for _, encoding := range []string{"", zstdCoding} {
			w := ask(s, consensusFrom(old), encoding, etag(old))
			body := w.Body.Bytes()
			if coding := w.Header().Get("Content-Encoding"); coding != encoding {
				t.Fatalf("coded as %q, asked for %q", coding, encoding)
			} else if coding != "" {
				var err error
				if body, err = decompress(body, netdoc.MaxConsensus); err != nil {
					t.Fatal(err)
				}
			}
			if kept := i >= 3; netdoc.IsDifference(body) != kept {
				t.Fatalf("edition %d: a difference: %v, want %v", i, !kept, kept)
			} else if kept {
				raw, err := netdoc.ApplyDifference(body, old)
				if err != nil || !bytes.Equal(raw, newest.Raw()) {
					t.Errorf("edition %d: %v", i, err)
				}
			} else if !bytes.Equal(body, newest.Raw()) {
				t.Error("neither a difference nor the document")
			}
		}
	}
	for name, from := range map[string]string{
		"none": "", "no digest": "?from=x", "an unknown one": "?from=" + netdoc.DigestOf(nil).String(), "itself": "?from=" + newest.Digest().String(),
	} {
		if w := ask(s, ConsensusPath+from, "", ""); !bytes.Equal(w.Body.Bytes(), newest.Raw()) {
			t.Errorf("%s: %d bytes in place of the document", name, w.Body.Len())
		}
	}
	if w := ask(s, consensusFrom(editions[5]), zstdCoding, etag(newest)); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("who has the newest gets %d, %d bytes", w.Code, w.Body.Len())
	}
}

// The archive's bytes are bounded, whatever the documents' size; the newest always stays.
func TestArchiveIsBoundedInBytes(t *testing.T) {
	var a archive
	for i := range 5 {
		a.recent = append(a.recent, &edition{digest: netdoc.Digest{byte(i)}, raw: make([]byte, archiveBytes/2)})
		a.trim()
	}
	if len(a.recent) != 2 || a.recent[1].digest[0] != 4 {
		t.Errorf("keeps %d documents of half the bound", len(a.recent))
	}
	a.recent = []*edition{{}, {raw: make([]byte, archiveBytes+1)}}
	if a.trim(); len(a.recent) != 1 || len(a.recent[0].raw) == 0 {
		t.Errorf("keeps %d documents when one is above the bound", len(a.recent))
	}
}

func TestAcceptsZstd(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": false, "zstd": true, "gzip, zstd": true, "zstd;q=0.5": true, "zstd;q=0": false, "zstd;q=0.000": false,
		"gzip;q=1.0,zstd; q=1": true, "zstdx": false, "*": false,
	} {
		if got := acceptsZstd(http.Header{"Accept-Encoding": {header}}); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}

// What unpacks to more than the limit is refused without being unpacked, what does not unpack is an error of
// the request alone, and a window above the bound is not made room for.
func TestPackedAnswersAreBounded(t *testing.T) {
	bomb, cut := compress(make([]byte, 64<<20)), compress(onionKey(1))
	body := map[string][]byte{
		"/good":   compress([]byte("good")),
		"/bomb":   bomb,
		"/cut":    cut[:len(cut)/2],
		"/noise":  []byte("noise"),
		"/window": {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x98, 0x01, 0x00, 0x00}, // a frame with a window of 512 MiB
	}
	s, c := loopback(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", zstdCoding)
		if r.URL.Path == "/other" {
			w.Header().Set("Content-Encoding", "br")
		}
		w.Write(body[r.URL.Path])
	}))
	for path, want := range map[string]error{
		"/good": nil, "/bomb": ErrTooLarge, "/cut": errContent, "/noise": errContent, "/window": errContent, "/other": errContent,
	} {
		got, _, err := c.Fetch(t.Context(), s.Peer, path, "", 1<<20)
		if !errors.Is(err, want) || err == nil && string(got) != "good" {
			t.Errorf("%s: %q, %v; want %v", path, got, err, want)
		}
	}
	if got := s.conns.Load(); got != 1 {
		t.Errorf("%d connections: a bad body is not the connection's fault", got)
	}
}

// What is larger than the window comes back as well.
func TestLargeDocumentsArePacked(t *testing.T) {
	large := make([]byte, maxWindow+maxWindow/2)
	for i := range large {
		large[i] = byte(i * i >> 7)
	}
	if got, err := decompress(compress(large), int64(len(large))); err != nil || !bytes.Equal(got, large) {
		t.Errorf("%d of %d bytes, %v", len(got), len(large), err)
	}
}

func FuzzDecompress(f *testing.F) {
	f.Add(compress([]byte("hello hello hello hello")))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, packed []byte) {
		if raw, err := decompress(packed, 1<<16); err == nil && len(raw) > 1<<16 {
			t.Errorf("%d bytes", len(raw))
		}
	})
}

// Over the wire: packed where it is asked for, then a difference, then keys from a mirror.
func TestMirrorOverLoopback(t *testing.T) {
	n := testNetwork(4, time.Hour)
	now := time.Now().Truncate(time.Hour)
	f := NewFollower(FollowerConfig{Network: n, LocalKey: func(r *netdoc.Relay) []byte {
		for i := range 64 {
			if key := onionKey(i); netdoc.DigestOf(key) == r.Key.Digest {
				return key
			}
		}
		return nil
	}})
	s, c := loopback(t, f.Mirror())
	first, second := consensusOf(t, n, now.Add(-time.Hour), upTo(20)...), consensusOf(t, n, now, upTo(21)...)
	if err := errors.Join(f.Offer(first), f.Offer(second)); err != nil {
		t.Fatal(err)
	}
	body, _, err := c.Fetch(t.Context(), s.Peer, ConsensusPath, "", netdoc.MaxConsensus)
	if err != nil || !bytes.Equal(body, second) {
		t.Errorf("the document: %d bytes, %v", len(body), err)
	}
	held := parse(t, n, first)
	body, _, err = c.Fetch(t.Context(), s.Peer, consensusFrom(held), etag(held), netdoc.MaxConsensus)
	if err != nil || !netdoc.IsDifference(body) {
		t.Fatalf("no difference: %v", err)
	}
	if raw, err := netdoc.ApplyDifference(body, held); err != nil || !bytes.Equal(raw, second) {
		t.Errorf("the difference: %v", err)
	}
	unknown := netdoc.DigestOf([]byte("unknown"))
	request := appendKeyRequest(nil, []netdoc.Digest{netdoc.DigestOf(onionKey(20)), unknown, netdoc.DigestOf(onionKey(3))})
	answer, err := c.Post(t.Context(), s.Peer, KeysPath, request, 3*netdoc.OnionKeySize)
	if err != nil || !bytes.Equal(answer, append(onionKey(20), onionKey(3)...)) {
		t.Errorf("keys: %d bytes, %v", len(answer), err)
	}
	for request, want := range map[string]int{"short": 400, string(make([]byte, keysPerRequest*digestSize+1)): 413} {
		_, err := c.Post(t.Context(), s.Peer, KeysPath, []byte(request), 10)
		if status, ok := errors.AsType[*StatusError](err); !ok || status.Code != want {
			t.Errorf("a request of %d bytes: %v", len(request), err)
		}
	}
	if _, _, err := c.Fetch(t.Context(), s.Peer, KeysPath, "", 10); err == nil {
		t.Error("GET of keys is answered")
	}
}
