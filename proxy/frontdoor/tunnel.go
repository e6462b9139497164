package frontdoor

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
)

// hijack takes the client's connection over from net/http. What the client sent behind its request is in
// the server's buffer, not in the connection: the returned connection reads it first. After that it reads
// past the buffer, whose own source cancels the request's context at the first EOF, that is, at a half close.
func hijack(w http.ResponseWriter) (*taken, error) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		c.Close()
		return nil, err
	}
	return &taken{clientConn: c.(*clientConn), early: early}, nil
}

// taken is a hijacked connection.
type taken struct {
	*clientConn
	early []byte // not read yet
}

func (c *taken) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.clientConn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// tunnel carries bytes both ways until both directions have ended, one of the ends failed, or ctx ended,
// then closes both connections. The end of one direction is passed on as such. There is no idle time-out:
// an ssh session may be silent for hours; the client's TCP keep-alive and the circuit's own find dead ends.
func tunnel(ctx context.Context, client, stream net.Conn) {
	defer client.Close()
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() {
		abort(client)
		stream.Close()
	})
	defer stop()

	up := make(chan struct{})
	go func() {
		defer close(up)
		if readErr, _ := pump(stream, client); readErr != nil {
			stream.Close() // the client is gone
		}
		// When the stream takes no more, its other direction says why: there may be an answer under way.
	}()
	if readErr, writeErr := pump(client, stream); readErr != nil || writeErr != nil {
		abort(client) // a cut-off answer must not look like a whole one
		stream.Close()
	}
	<-up
}

// pump copies src to dst until src ends, and then ends dst's direction. It returns src's failure and
// dst's; both are nil after an orderly end.
func pump(dst, src net.Conn) (readErr, writeErr error) {
	buf := buffers.Get()
	defer buffers.Put(buf)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return nil, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil, closeWrite(dst)
		}
		if err != nil {
			return err, nil
		}
	}
}

// closeWrite ends one direction of c, or both if c cannot do that.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

type lingerer interface{ SetLinger(sec int) error }

// abort closes c so that its peer sees a failure (TCP: RST) and no orderly end.
func abort(c net.Conn) {
	if l, ok := c.(lingerer); ok {
		l.SetLinger(0)
	}
	c.Close()
}

// bufferPool lends buffers of 32 KiB to tunnels and to httputil.ReverseProxy.
type bufferPool struct{ pool sync.Pool }

var buffers bufferPool

const bufferSize = 32 << 10

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferSize)
}

func (b *bufferPool) Put(buf []byte) { b.pool.Put((*[bufferSize]byte)(buf)) }
