package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"torproxy/wire"
)

const (
	requestTimeout = 30 * time.Second // one request, dial and body included: 2 MB at 100 kB/s with some to spare
	idleLifetime   = 20 * time.Second // a connection without a request: longer than a short round, shorter than a server keeps one
	maxHeader      = 8 << 10          // bytes of headers, either way
	maxMessage     = 200              // bytes of a server's reason that are kept
)

var (
	// ErrNotModified says that the server has nothing but what the caller named by its ETag.
	ErrNotModified = errors.New("directory: not modified")
	// ErrTooLarge says that the server's answer is longer than the caller allows.
	ErrTooLarge = errors.New("directory: answer too large")
	// ErrClosed is returned by requests on a closed Client.
	ErrClosed = errors.New("directory: client is closed")
)

// StatusError is an answer that is not a success.
type StatusError struct {
	Code    int    // HTTP status
	Message string // the server's reason: one line of printable ASCII, may be empty
}

func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("directory server answered %d", e.Code)
	}
	return fmt.Sprintf("directory server answered %d: %s", e.Code, e.Message)
}

// Dialer makes connections that are pinned to an identity. *link.Node is one.
type Dialer interface {
	DialDirectory(ctx context.Context, id wire.ID, addrs []netip.AddrPort) (*quic.Conn, error)
}

// Client asks directory servers. It keeps a connection per server for some seconds after the last request,
// and dials a server once however many requests wait. It is safe for concurrent use.
type Client struct {
	dialer    Dialer
	transport http3.Transport

	alive context.Context // ends with Close
	kill  context.CancelFunc
	dials sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	sessions map[wire.ID]*session // to take new requests
	open     map[*session]struct{}
}

// NewClient returns a Client that dials by d, most often a *link.Node. Close frees what it holds.
func NewClient(d Dialer) *Client {
	c := &Client{dialer: d, sessions: map[wire.ID]*session{}, open: map[*session]struct{}{}}
	c.transport = http3.Transport{
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // a limit in bytes must mean the bytes received; Fetch knows zstd itself
	}
	c.alive, c.kill = context.WithCancel(context.Background())
	return c
}

// Close ends every connection and every request, and waits for dials to end. It may be called again.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	for s := range c.open {
		c.endLocked(s)
	}
	c.mu.Unlock()
	c.kill()
	c.dials.Wait()
}

// Fetch gets a document of at most limit bytes, both as it comes, packed or not, and unpacked. With an etag of an earlier answer, ErrNotModified says that
// the document is still that one. Other errors: a *StatusError, ErrTooLarge, ErrClosed, ctx's error, or what
// kept the server from being reached. A request never lasts longer than 30 seconds.
func (c *Client) Fetch(ctx context.Context, from Peer, path, etag string, limit int64) (body []byte, newETag string, err error) {
	header := http.Header{"Accept-Encoding": {zstdCoding}}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	a, err := c.do(ctx, from, request{method: http.MethodGet, path: path, header: header, limit: limit})
	if err != nil {
		return nil, "", err
	}
	if a.status == http.StatusNotModified {
		return nil, etag, ErrNotModified
	}
	return a.body, a.etag, nil
}

// Post sends a document and returns the answer, of at most limit bytes. What is posted must bear being sent
// twice: a request that an old connection swallowed is repeated on a new one. Errors are those of Fetch.
func (c *Client) Post(ctx context.Context, to Peer, path string, body []byte, limit int64) (answer []byte, err error) {
	header := http.Header{"Content-Type": {ContentType}}
	a, err := c.do(ctx, to, request{method: http.MethodPost, path: path, header: header, body: body, limit: limit})
	return a.body, err
}

// request is what is asked, answer what came back.
type request struct {
	method, path string
	header       http.Header
	body         []byte
	limit        int64
}

type answer struct {
	status int
	etag   string
	body   []byte
}

// do makes one exchange. A kept connection may have died unnoticed: then a second attempt dials.
func (c *Client) do(ctx context.Context, peer Peer, r request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		s, kept, err := c.acquire(ctx, peer)
		if err != nil {
			return answer{}, err
		}
		a, err := exchange(ctx, s.conn, r)
		c.release(s, breaks(err))
		if err == nil || !breaks(err) || !kept || attempt == 2 || ctx.Err() != nil {
			return a, err
		}
	}
}

// breaks reports whether an error speaks against the connection it came from, and not only against the
// request.
func breaks(err error) bool {
	if _, ok := errors.AsType[*StatusError](err); ok {
		return false
	}
	return err != nil && !errors.Is(err, ErrTooLarge) && !errors.Is(err, errContent) && !errors.Is(err, context.Canceled)
}

// exchange sends a request and reads the whole answer.
func exchange(ctx context.Context, conn *http3.ClientConn, r request) (answer, error) {
	// The host is the same for all: the connection says who the server is.
	req, err := http.NewRequestWithContext(ctx, r.method, "https://directory"+r.path, bytes.NewReader(r.body))
	if err != nil {
		return answer{}, fmt.Errorf("directory: %w", err)
	}
	if r.method == http.MethodGet {
		req.Body, req.ContentLength = nil, 0
	}
	req.Header = r.header.Clone()
	req.Header["User-Agent"] = []string{""} // none: the software's name is nobody's business
	resp, err := conn.RoundTrip(req)
	if err != nil {
		return answer{}, fmt.Errorf("directory: %s %s: %w", r.method, r.path, err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, etag: resp.Header.Get("ETag")}
	switch {
	case a.status == http.StatusNotModified && r.header.Get("If-None-Match") != "":
		return a, nil
	case a.status != http.StatusOK:
		return answer{}, statusError(resp)
	}
	a.body, err = io.ReadAll(io.LimitReader(accounted{resp.Body, accountOf(ctx)}, r.limit+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return answer{}, ctx.Err()
	case err != nil:
		return answer{}, fmt.Errorf("directory: answer to %s %s: %w", r.method, r.path, err)
	case int64(len(a.body)) > r.limit:
		return answer{}, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, r.limit)
	}
	return r.unpack(a, resp.Header.Get("Content-Encoding"))
}

// unpack takes the content coding off an answer, which must be one that was asked for.
func (r *request) unpack(a answer, coding string) (answer, error) {
	switch {
	case coding == "":
		return a, nil
	case coding == zstdCoding && r.header.Get("Accept-Encoding") == zstdCoding:
		body, err := decompress(a.body, r.limit)
		a.body = body
		return a, err
	default:
		return answer{}, fmt.Errorf("%w: coding %.20q", errContent, coding)
	}
}

func statusError(resp *http.Response) error {
	// Whatever part of the reason arrives will do.
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	return &StatusError{Code: resp.StatusCode, Message: oneLine(string(text))}
}

// oneLine makes a stranger's text fit for a log: its first line, cut, without control characters or what
// is not ASCII.
func oneLine(text string) string {
	line := make([]byte, 0, maxMessage)
	for i := 0; i < len(text) && len(line) < maxMessage; i++ {
		b := text[i]
		switch {
		case b == '\n' || b == '\r':
			return string(line)
		case b < ' ' || b > '~':
			b = '?'
		}
		line = append(line, b)
	}
	return string(line)
}
