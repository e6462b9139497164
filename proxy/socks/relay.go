package socks

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"torproxy/wire"
)

// bufferSize is what one direction copies at a time when neither end can do better: a few cells' worth.
const bufferSize = 8 * wire.CellSize

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// target is the stream that Config.Dial returned, as go-socks5 is given it.
//
// go-socks5 relays with two goroutines, each an io.Copy and then a CloseWrite of what it wrote to, and
// closes both connections as soon as one io.Copy fails:
//
//	upload:   target.Write (what go-socks5 had read too much), client.WriteTo, target.CloseWrite
//	download: target.WriteTo, client.CloseWrite
//
// So these methods are where the bytes are really carried, and where a panic of the stream's own methods
// is caught, which otherwise would end the process.
type target struct {
	net.Conn
	client   *client
	relaying bool   // the client has been told; goroutine of serveConn only
	release  func() // ends the watch for the end of Serve

	// The upload goroutine's:
	writeErr error // the stream takes no more
	torn     bool  // the client's data broke off: it must not look like its end

	close func() error
}

func newTarget(c *client, conn net.Conn) *target {
	t := &target{Conn: conn, client: c}
	t.close = sync.OnceValue(func() (err error) {
		defer c.rescue(&err)
		return conn.Close()
	})
	t.release = onDone(c.ctx, func() { t.close() })
	return t
}

// LocalAddr is what go-socks5 puts into its reply; it must be a *net.TCPAddr with an address in it. The
// address the exit connected from is not known here, and not the client's business.
func (t *target) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero} }

// Close is called by go-socks5, once, at the end of all.
func (t *target) Close() error {
	t.release()
	return t.close()
}

// Write takes what had been read from the client together with its request. See client.WriteTo for the error.
func (t *target) Write(p []byte) (n int, err error) {
	defer t.client.rescue(&t.writeErr)
	if t.writeErr == nil {
		_, t.writeErr = t.Conn.Write(p)
	}
	return len(p), nil
}

// WriteTo is the download: it carries the stream to the client until the stream ends.
func (t *target) WriteTo(io.Writer) (n int64, err error) {
	c := t.client
	defer func() { c.torn.Store(err != nil) }()
	defer c.rescue(&err)
	c.SetWriteDeadline(time.Time{}) // it was for the reply
	n, rerr, werr := pump(c.Conn, t.Conn)
	return n, errors.Join(rerr, werr)
}

// CloseWrite ends the upload: the destination is told of the end of the client's data, unless that broke off.
func (t *target) CloseWrite() (err error) {
	defer t.client.relays.Done()
	defer func() {
		if err == errPanic { // the destination has not been told: nothing else might ever end the download
			t.close()
		}
	}()
	defer t.client.rescue(&err)
	if t.torn || t.writeErr != nil {
		return nil
	}
	return closeWrite(t.Conn, t.close)
}

// WriteTo is the upload: it carries what is held and then the client's data to the stream until the
// client's data end.
//
// A stream that takes no more is no error here, though it ends the upload: go-socks5 would close both
// sides at once, and an answer already on its way (an early 413, a refused login) would be lost. Such a stream ends
// the download soon by itself.
func (c *client) WriteTo(io.Writer) (n int64, err error) {
	t := c.target
	defer func() { t.torn = err != nil }()
	defer c.rescue(&err)
	if len(c.held) > 0 {
		t.Write(c.held)
		n, c.held = int64(len(c.held)), nil
	}
	switch {
	case t.writeErr != nil, c.readErr == io.EOF:
		return n, nil
	case c.readErr != nil:
		return n, c.readErr
	}
	m, rerr, werr := pump(t.Conn, c.Conn)
	t.writeErr = werr
	return n + m, rerr
}

// CloseWrite ends the download: the client is told of the end of the stream, unless that broke off.
func (c *client) CloseWrite() error {
	defer c.relays.Done()
	if c.torn.Load() {
		return nil
	}
	return closeWrite(c.Conn, c.Conn.Close)
}

// closeWrite half-closes a connection; one that cannot is closed, for its far end would wait for ever.
func closeWrite(conn net.Conn, closeAll func() error) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return closeAll()
}

// pump copies src to dst until src ends, by the cheapest way there is: inside the kernel between two
// sockets, by the methods of a stream that has them, else through a pooled buffer. It returns what ended
// the copying other than EOF: rerr if it was src, werr if it was dst. Between two sockets that cannot be told; it
// is rerr then.
func pump(dst, src net.Conn) (n int64, rerr, werr error) {
	in, out := &source{Reader: src}, &sink{Writer: dst}
	var err error
	writerTo, _ := src.(io.WriterTo)
	readerFrom, _ := dst.(io.ReaderFrom)
	switch {
	case isSocket(src) && isSocket(dst):
		n, err = io.Copy(dst, src)
	case writerTo != nil && !isSocket(src):
		n, err = writerTo.WriteTo(out)
	case readerFrom != nil && !isSocket(dst):
		n, err = readerFrom.ReadFrom(in)
		if in.err == nil {
			return n, nil, err
		}
	default:
		buf := buffers.Get().(*[bufferSize]byte)
		defer buffers.Put(buf)
		n, err = io.CopyBuffer(out, in, buf[:])
	}
	if out.err != nil {
		return n, nil, out.err
	}
	return n, err, nil
}

// isSocket reports whether the kernel can move a connection's bytes by itself. The WriteTo and ReadFrom of
// these, with anything but another socket, would allocate a buffer of 32 KiB.
func isSocket(c net.Conn) bool {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// source remembers that reading failed; it hides all methods but Read.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// sink remembers that writing failed; it hides all methods but Write.
type sink struct {
	io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}
