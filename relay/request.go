package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"

	"torproxy/wire"
)

// request is the HTTP request of one stream, as the client's front door sent it (RFC 9112). It is read
// strictly: whatever two programs could read in two ways is refused, although the front door sends nothing
// of the kind and each stream carries one request only. A client need not be a front door.
type request struct {
	method  string
	target  string      // the path and query, byte for byte; or *
	host    string      // the Host header
	header  http.Header // what goes on to the destination
	length  int64       // of the body; -1: chunked
	trailer http.Header // the names that the client announced, in a chunked request
	upgrade bool        // to WebSocket

	// navigation says that a browser loads a page to show: it follows by itself what the reply asks it to.
	navigation bool

	// prefetch says that the reply will be shown as a page, whose links the client wants opened.
	prefetch bool
}

// errRequest is what every malformed request wraps.
var errRequest = errors.New("relay: malformed request")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errRequest, fmt.Sprintf(format, args...))
}

// readRequest reads the head of a request for the destination authority (HOST:PORT). The body follows in r.
func readRequest(r *bufio.Reader, authority string) (*request, error) {
	head, err := readHead(r, maxRequestHead)
	if err != nil {
		return nil, err
	}
	line, rest, _ := bytes.Cut(head, crlf)
	q := &request{}
	if err := q.parseLine(string(line)); err != nil {
		return nil, err
	}
	if q.header, err = parseFields(rest); err != nil {
		return nil, err
	}
	if err := q.takeHost(authority); err != nil {
		return nil, err
	}
	if err := q.takeLength(); err != nil {
		return nil, err
	}
	return q, q.takeConnection()
}

var crlf = []byte("\r\n")

// readHead reads lines up to an empty one and returns them with their ends, without the empty one.
func readHead(r *bufio.Reader, limit int) ([]byte, error) {
	var head []byte
	for begins := true; ; {
		part, err := r.ReadSlice('\n')
		if len(head)+len(part) > limit {
			return nil, malformed("more than %d bytes of header", limit)
		}
		if begins && bytes.Equal(part, crlf) {
			return head, nil
		}
		head = append(head, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			begins = false
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case !bytes.HasSuffix(head, crlf):
			return nil, malformed("a line without a carriage return")
		default:
			begins = true
		}
	}
}

// parseLine reads the request line: METHOD SP target SP HTTP/1.1.
func (q *request) parseLine(line string) error {
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	switch {
	case !isToken(method) || len(method) > maxMethod:
		return malformed("method")
	case method == http.MethodConnect:
		return malformed("CONNECT is for streams of kind tcp")
	case version != "HTTP/1.1":
		return malformed("version")
	case target != "*" && !strings.HasPrefix(target, "/"):
		return malformed("target not in origin form")
	case target == "*" && method != http.MethodOptions:
		return malformed("target * without OPTIONS")
	case strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return malformed("target with a control character")
	}
	q.method, q.target = method, target
	return nil
}

// parseFields reads header lines (RFC 9112, section 5), each with its CRLF.
func parseFields(lines []byte) (http.Header, error) {
	h := http.Header{}
	for n := 0; len(lines) > 0; n++ {
		line, rest, ended := bytes.Cut(lines, crlf)
		name, value, found := strings.Cut(string(line), ":")
		value = strings.Trim(value, " \t")
		switch {
		case !ended || !found || !isToken(name): // also a folded line, and space before the colon
			return nil, malformed("header line")
		case !isFieldValue(value):
			return nil, malformed("control character in a header")
		case n == maxFields:
			return nil, malformed("more than %d header lines", maxFields)
		}
		h.Add(name, value)
		lines = rest
	}
	return h, nil
}

// takeHost checks that Host, once, is the destination that the stream was opened for.
func (q *request) takeHost(authority string) error {
	values := q.header["Host"]
	if len(values) != 1 || !isAuthority(values[0]) || !sameAuthority(values[0], authority) {
		return malformed("Host is not the destination of the stream")
	}
	q.host = values[0]
	delete(q.header, "Host")
	return nil
}

// takeLength reads how long the body is: Content-Length or chunked, never both, each once at most.
func (q *request) takeLength() error {
	lengths, codings := q.header["Content-Length"], q.header["Transfer-Encoding"]
	switch {
	case len(lengths)+len(codings) > 1:
		return malformed("the body's length is said more than once")
	case len(codings) == 1:
		if !strings.EqualFold(codings[0], "chunked") {
			return malformed("transfer coding")
		}
		q.length = -1
		return q.takeTrailer()
	case len(lengths) == 1:
		n, err := strconv.ParseInt(lengths[0], 10, 64)
		if err != nil || strings.Trim(lengths[0], "0123456789") != "" {
			return malformed("Content-Length")
		}
		q.length = n
	}
	return nil
}

// takeTrailer reads the names of the fields that will follow a chunked body.
func (q *request) takeTrailer() error {
	for name := range listed(q.header["Trailer"]) {
		if !isToken(name) {
			return malformed("Trailer")
		}
		if name = http.CanonicalHeaderKey(name); mayTrail(name) {
			if q.trailer == nil {
				q.trailer = http.Header{}
			}
			q.trailer[name] = nil
		}
	}
	return nil
}

// takeConnection reads what is meant for this hop, and removes it with all else that does not go on.
func (q *request) takeConnection() error {
	upgrade := q.header["Upgrade"]
	for name := range listed(q.header["Connection"]) {
		if strings.EqualFold(name, "upgrade") && len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") {
			q.upgrade = true
		}
	}
	if q.upgrade && (q.method != http.MethodGet || q.length != 0) {
		return malformed("upgrade of a request that is no GET or has a body")
	}
	q.navigation = q.header.Get("Sec-Fetch-Dest") == "document" || q.header.Get("Sec-Fetch-Mode") == "navigate"
	q.prefetch = q.header.Get(wire.HeaderPrefetch) == wire.PrefetchPage
	strip(q.header)
	return nil
}

// expects reports whether the client waits for 100 before it sends the body.
func (q *request) expects() bool {
	return strings.EqualFold(q.header.Get("Expect"), "100-continue")
}

// url is where net/http sends the request to; it writes the target as it came.
func (q *request) url(authority string) *url.URL {
	u := &url.URL{Scheme: "http", Host: authority}
	if !strings.HasPrefix(q.target, "//") {
		u.Opaque = q.target
		return u
	}
	// net/http would take what follows two slashes in Opaque for a host.
	path, query, marked := strings.Cut(q.target, "?")
	exact := *u
	exact.RawPath, exact.RawQuery, exact.ForceQuery = path, query, marked
	var err error
	if exact.Path, err = url.PathUnescape(path); err == nil && exact.RequestURI() == q.target {
		return &exact
	}
	u.Opaque = "//" + q.host + q.target // absolute form, which servers must take (RFC 9112, section 3.2.2)
	return u
}

// outgoing makes the request that goes to authority.
func (q *request) outgoing(ctx context.Context, authority string, body io.ReadCloser) *http.Request {
	if _, ok := q.header["User-Agent"]; !ok {
		q.header["User-Agent"] = nil // else net/http gives its own
	}
	if q.upgrade {
		q.header.Set("Connection", "Upgrade")
		q.header.Set("Upgrade", "websocket")
	}
	out := &http.Request{
		Method: q.method, URL: q.url(authority), Host: q.host, Header: q.header,
		Body: body, ContentLength: q.length, Trailer: q.trailer,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	return out.WithContext(ctx)
}

// body returns the request's body, which is read from r.
func (q *request) body(r *bufio.Reader) io.ReadCloser {
	switch q.length {
	case 0:
		return http.NoBody
	case -1:
		return &chunkedBody{chunks: httputil.NewChunkedReader(r), r: r, trailer: q.trailer}
	default:
		return &sizedBody{r: r, left: q.length}
	}
}

// sizedBody is a body of known length. The stream's end before the body's is an error.
type sizedBody struct {
	r    io.Reader
	left int64
}

func (b *sizedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	if b.left -= int64(n); err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close does nothing: the stream's end is what ends reading.
func (b *sizedBody) Close() error { return nil }

// chunkedBody is a chunked body with its trailer, of which it fills in what was announced.
type chunkedBody struct {
	chunks  io.Reader
	r       *bufio.Reader
	trailer http.Header
	err     error
}

func (b *chunkedBody) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err = b.chunks.Read(p)
	if err == io.EOF {
		if b.err = b.readTrailer(); b.err == nil {
			b.err = io.EOF
		}
		err = b.err
	}
	return n, err
}

func (b *chunkedBody) readTrailer() error {
	lines, err := readHead(b.r, maxTrailer)
	if err != nil {
		return err
	}
	fields, err := parseFields(lines)
	if err != nil {
		return err
	}
	for name := range b.trailer {
		b.trailer[name] = fields[name]
	}
	return nil
}

// Close does nothing: the stream's end is what ends reading.
func (b *chunkedBody) Close() error { return nil }
