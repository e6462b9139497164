package relay

import (
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/iotest"
)

// TestChunker reads a chunked body with buffers of many sizes: what is decoded is what was put in.
func TestChunker(t *testing.T) {
	body := strings.Repeat("0123456789", 20000)
	trailer := http.Header{"X-Sum": {"1", "2"}, "Via": {"x"}, "Host": {"y"}, "X-Cut": {"a\r\nb: c"}}
	for _, size := range []int{chunkFrame + 1, 100, maxChunk, maxChunk + chunkFrame, maxChunk + chunkFrame + 1, 1 << 20} {
		c := &chunker{body: iotest.DataErrReader(strings.NewReader(body)), trailer: trailer}
		var wire strings.Builder
		if _, err := io.CopyBuffer(struct{ io.Writer }{&wire}, c, make([]byte, size)); err != nil {
			t.Errorf("buffer of %d: %v", size, err)
		}
		chunks, ok := strings.CutSuffix(wire.String(), "X-Sum: 1\r\nX-Sum: 2\r\n\r\n")
		got, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(chunks)))
		if !ok || err != nil || string(got) != body {
			t.Errorf("buffer of %d: %d bytes of %d, %v, trailer: %v", size, len(got), len(body), err, ok)
		}
	}
	if _, err := (&chunker{}).Read(make([]byte, chunkFrame)); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("no room: %v", err)
	}
	broken := errors.New("broken")
	c := &chunker{body: io.MultiReader(strings.NewReader("yes"), iotest.ErrReader(broken))}
	if got, err := io.ReadAll(c); err != broken || string(got) != "0003\r\nyes\r\n" {
		t.Errorf("a broken body gives %q, %v", got, err)
	}
}
