package directory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const (
	zstdCoding = "zstd" // RFC 8878, as a content coding
	// maxWindow bounds what a decoder holds besides what it gives out; RFC 9659 has the same bound.
	maxWindow = 8 << 20
)

// errContent is an answer whose content coding is unknown or broken.
var errContent = errors.New("directory: content that does not decode")

// smallBody is what is not worth the tables of the better level, some 5 MB.
const smallBody = 128 << 10

// compress returns raw as one zstd frame. The encoder is made for the one use: a document is compressed once
// a round, and an encoder that is kept holds up to 20 MB.
func compress(raw []byte) []byte {
	level, window := zstd.SpeedBetterCompression, maxWindow
	if len(raw) < smallBody {
		level, window = zstd.SpeedFastest, smallBody
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(level),
		zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are wrong, whatever raw is
	}
	return e.EncodeAll(raw, nil)
}

// decompress returns at most limit bytes out of zstd frames; more are ErrTooLarge.
func decompress(packed []byte, limit int64) ([]byte, error) {
	d, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errContent, err)
	}
	defer d.Close()
	raw, err := io.ReadAll(io.LimitReader(d, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errContent, err)
	case int64(len(raw)) > limit:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	return raw, nil
}

// acceptsZstd reports whether a request's Accept-Encoding names zstd without refusing it.
func acceptsZstd(h http.Header) bool {
	for part := range strings.SplitSeq(h.Get("Accept-Encoding"), ",") {
		coding, quality, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.TrimSpace(coding) == zstdCoding {
			return strings.Trim(strings.TrimSpace(quality), "q=0.") != "" || quality == ""
		}
	}
	return false
}
