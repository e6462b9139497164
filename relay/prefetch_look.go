package relay

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"iter"
	"net/http"
	"strings"
)

// look is a body that somebody else looks at on its way. Each piece is given to the reader first, and passes
// when the reader is done with it; so what the reader found is known before it. The reader is a coroutine
// that waits for nothing but the next piece, and is bounded in what it reads: it takes moments, not memory.
// One goroutine reads a look and stops it.
type look struct {
	io.ReadCloser        // what passes
	after         func() // called behind each piece

	rest  []byte // of the piece that the reader has not taken
	whole bool   // there are no more pieces
	next  func() (struct{}, bool)
	stop  func() // ends the reader, if it has not ended; to be called at the end
}

// newLook looks at a reply's body. read gets it decoded, maxLooked bytes at most, and may end early.
func newLook(resp *http.Response, read func(io.Reader)) *look {
	l := &look{ReadCloser: resp.Body}
	l.next, l.stop = iter.Pull(func(yield func(struct{}) bool) {
		// A fault of a parser ends what it was looking at, and not the relay.
		defer func() { recover() }()
		if r, err := decode(&pieces{look: l, yield: yield}, coding(resp)); err == nil {
			read(io.LimitReader(r, maxLooked))
		}
	})
	return l
}

func (l *look) Read(b []byte) (int, error) {
	n, err := l.ReadCloser.Read(b)
	if err != nil && err != io.EOF {
		l.stop()
		return n, err
	}
	l.rest, l.whole = b[:n], err == io.EOF
	l.next()
	l.rest = nil
	l.after()
	return n, err
}

// pieces is what the reader of a look reads.
type pieces struct {
	look  *look
	yield func(struct{}) bool
	over  bool // the look is
}

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.look.rest) == 0 {
		if p.look.whole {
			return 0, io.EOF
		}
		if p.over = p.over || !p.yield(struct{}{}); p.over {
			return 0, io.ErrUnexpectedEOF
		}
	}
	n := copy(b, p.look.rest)
	p.look.rest = p.look.rest[n:]
	return n, nil
}

// coding is a reply's content coding, in lower case; several are one that nobody knows.
func coding(resp *http.Response) string {
	return strings.ToLower(strings.TrimSpace(strings.Join(resp.Header["Content-Encoding"], ",")))
}

// canDecode reports whether a reply can be looked at. Browsers offer br and zstd to https only, of which the
// exit sees nothing.
func canDecode(resp *http.Response) bool {
	switch coding(resp) {
	case "", "identity", "gzip", "x-gzip", "deflate":
		return true
	}
	return false
}

// decode takes a content coding off (RFC 9110, section 8.4.1). It may read.
func decode(r io.Reader, coding string) (io.Reader, error) {
	switch coding {
	case "gzip", "x-gzip":
		return gzip.NewReader(r)
	case "deflate":
		in := bufio.NewReader(r)
		// It means zlib's format. As some servers send the bare one, browsers take both.
		if head, err := in.Peek(2); err == nil && head[0]&0xf == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
			return zlib.NewReader(in)
		}
		return flate.NewReader(in), nil
	default:
		return r, nil
	}
}
