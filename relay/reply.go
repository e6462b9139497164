package relay

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"torproxy/wire"
	"torproxy/wire/mux"
)

// reply sends a destination's reply, whose header has been stripped, down a stream: its head, its body as it
// comes, FIN. The caller closes the body and the stream; reason says what went wrong with either.
func reply(st *mux.Stream, resp *http.Response, method string) (reason wire.Reason) {
	if resp.StatusCode < 200 || resp.StatusCode > 999 {
		return wire.ReasonReset
	}
	body := io.Reader(resp.Body)
	if !frame(resp, method) {
		body = &chunker{body: body, trailer: resp.Trailer}
	}
	st.Connect() // the destination has answered
	if _, err := st.Write(appendHead(nil, resp.StatusCode, resp.Status, resp.Header)); err != nil {
		return wire.ReasonReset
	}
	if _, err := st.ReadFrom(body); err != nil {
		return wire.ReasonReset // cut short: FIN would say that this was all
	}
	st.CloseWrite()
	return 0
}

// frame writes the fields that say where the body ends; sized is false when it is to be chunked. What the
// destination wrote was read by net/http; a body that ended with its connection is chunked here.
func frame(resp *http.Response, method string) (sized bool) {
	switch {
	case resp.StatusCode == http.StatusNoContent, resp.StatusCode == http.StatusNotModified:
		return true
	case method == http.MethodHead:
		if resp.ContentLength >= 0 {
			resp.Header.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
		}
		return true
	case resp.ContentLength >= 0:
		resp.Header.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
		return true
	}
	resp.Header.Set("Transfer-Encoding", "chunked")
	var announced []string
	for name := range resp.Trailer {
		if mayTrail(name) {
			announced = append(announced, name)
		}
	}
	if len(announced) > 0 {
		slices.Sort(announced)
		resp.Header.Set("Trailer", strings.Join(announced, ", "))
	}
	return false
}

// appendHead appends a status line, header lines in the order of their names, and the empty line. status is
// the destination's "CODE phrase", of which the phrase is kept.
func appendHead(b []byte, code int, status string, header http.Header) []byte {
	_, phrase, ok := strings.Cut(status, " ")
	if !ok || !isFieldValue(phrase) {
		phrase = http.StatusText(code)
	}
	b = fmt.Appendf(b, "HTTP/1.1 %d %s\r\n", code, phrase)
	return append(appendFields(b, header, isToken), "\r\n"...)
}

// appendFields appends the lines of those fields whose names are wanted. net/http has refused most of what
// could be read in two ways; a value that could end its line is left out all the same.
func appendFields(b []byte, header http.Header, wanted func(name string) bool) []byte {
	names := make([]string, 0, len(header))
	for name := range header {
		if wanted(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range header[name] {
			if isFieldValue(value) {
				b = fmt.Appendf(b, "%s: %s\r\n", name, value)
			}
		}
	}
	return b
}

// chunker gives a body in chunks (RFC 9112, section 7.1), one for each read, with the trailer that has come
// when it ends.
type chunker struct {
	body    io.Reader
	trailer http.Header
	last    []byte // what is left of the end
	ended   bool
}

// chunkFrame is what stands around a chunk: four digits of its length, and two line ends.
const chunkFrame = len("0000\r\n") + len("\r\n")

// maxChunk is what four digits can say.
const maxChunk = 0xffff

// Read needs room for a chunk of a few bytes; mux gives it.
func (c *chunker) Read(p []byte) (int, error) {
	if c.ended {
		n := copy(p, c.last)
		if c.last = c.last[n:]; n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
	if len(p) <= chunkFrame {
		return 0, io.ErrShortBuffer
	}
	room := p[len("0000\r\n") : min(len(p), maxChunk+chunkFrame)-len("\r\n")]
	n, err := c.body.Read(room)
	if err == io.EOF {
		c.ended, err = true, nil
		c.last = append(appendFields([]byte("0\r\n"), c.trailer, func(name string) bool { return isToken(name) && mayTrail(name) }), "\r\n"...)
		if n == 0 {
			return c.Read(p)
		}
	}
	if n == 0 {
		return 0, err
	}
	copy(p, fmt.Appendf(p[:0:0], "%04x\r\n", n))
	copy(p[len("0000\r\n")+n:], "\r\n")
	return n + chunkFrame, err
}
