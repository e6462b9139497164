package frontdoor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
)

// maxReplyHead is how many bytes a reply's head may have, together with all interim replies before it.
const maxReplyHead = 1 << 20

// exchange is one request and its reply over a stream that carries nothing else. When the request's context
// ends, so does the stream.
type exchange struct {
	stream  net.Conn
	in      *bufio.Reader // of counted
	counted counted
	release func() bool // the stream from the context
	proceed chan bool   // of size 1: whether to send the body; nil: the destination is not asked
}

// newExchange takes stream over.
func newExchange(ctx context.Context, stream net.Conn) *exchange {
	x := &exchange{stream: stream, counted: counted{r: stream, left: maxReplyHead}}
	x.in = bufio.NewReader(&x.counted)
	x.release = context.AfterFunc(ctx, func() { stream.Close() })
	return x
}

// run sends the request and reads the reply up to its body, whose Close ends the exchange, as end does.
func (x *exchange) run(out *http.Request, j *journey) (*http.Response, error) {
	// When the stream is over already, reading says why.
	if _, err := x.stream.Write(requestHead(out, j)); err == nil && out.Body != nil {
		if strings.EqualFold(out.Header.Get("Expect"), "100-continue") {
			x.proceed = make(chan bool, 1)
		}
		j.upload.send(x.stream, out, x.proceed, func() { x.stream.Close() })
	}
	reply, err := x.reply(out)
	if err != nil && out.Body != nil {
		x.decide(false)
		err = j.upload.blame(err)
	}
	return reply, err
}

// silent reports whether not a byte has been answered, and that not because the destination hung up.
func (x *exchange) silent() bool { return !x.counted.any && !x.counted.ended }

// end closes the stream, if it is still open.
func (x *exchange) end() error {
	x.release()
	return x.stream.Close()
}

// decide says whether the body shall be sent; only the first word counts.
func (x *exchange) decide(wanted bool) {
	select {
	case x.proceed <- wanted:
	default:
	}
}

// requestHead is the request up to its body, in origin form (RFC 9112 section 3.2.1).
func requestHead(out *http.Request, j *journey) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", out.Method, j.path, j.target.authority())
	if agent := out.Header.Get("User-Agent"); agent != "" {
		http.Header{"User-Agent": {agent}}.Write(&b)
	}
	switch n := out.ContentLength; {
	case out.Body != nil && n > 0:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", n)
	case out.Body != nil:
		b.WriteString("Transfer-Encoding: chunked\r\n")
		if names := trailerNames(out); len(names) > 0 {
			b.WriteString("Trailer: " + strings.Join(names, ", ") + "\r\n")
		}
	case out.Method == http.MethodPost || out.Method == http.MethodPut || out.Method == http.MethodPatch:
		b.WriteString("Content-Length: 0\r\n") // RFC 9110 section 8.6: these should say it
	}
	if j.page != nil && j.wanted.HTTP {
		b.WriteString("Torproxy-Prefetch: page\r\n")
	}
	out.Header.WriteSubset(&b, writtenFields)
	b.WriteString("\r\n")
	return b.Bytes()
}

// writtenFields are those that requestHead writes itself.
var writtenFields = map[string]bool{"Host": true, "User-Agent": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true}

// reply reads up to the body of the last reply, and passes interim ones on.
func (x *exchange) reply(out *http.Request) (*http.Response, error) {
	for {
		reply, err := http.ReadResponse(x.in, out)
		if err != nil {
			return nil, x.counted.explain(err)
		}
		if reply.StatusCode < 100 {
			return nil, errors.New("the status of the reply is none")
		}
		if reply.StatusCode == http.StatusSwitchingProtocols && !answersUpgrade(out, reply) {
			return nil, errUnasked101
		}
		if reply.StatusCode/100 != 1 || reply.StatusCode == http.StatusSwitchingProtocols {
			x.decide(false)
			x.counted.left = -1
			reply.Body = x.body(reply)
			return reply, nil
		}
		if reply.StatusCode == http.StatusContinue {
			x.decide(true)
		}
		if trace := httptrace.ContextClientTrace(out.Context()); trace != nil && trace.Got1xxResponse != nil {
			stripReply(reply.Header)
			if err := trace.Got1xxResponse(reply.StatusCode, textproto.MIMEHeader(reply.Header)); err != nil {
				return nil, err
			}
		}
	}
}

// errUnasked101: behind a 101 the client's connection is a pipe to the destination. One that nobody has asked
// for would get the client's next requests, for whatever host they are.
var errUnasked101 = errors.New("the destination went over to another protocol, which it was not asked to")

// answersUpgrade reports whether a 101 goes over to what the request has named.
func answersUpgrade(out *http.Request, reply *http.Response) bool {
	wanted := out.Header.Get("Upgrade")
	return wanted != "" && strings.EqualFold(wanted, reply.Header.Get("Upgrade"))
}

// body is the reply's body, or, after 101, the connection.
func (x *exchange) body(reply *http.Response) io.ReadCloser {
	if reply.StatusCode == http.StatusSwitchingProtocols {
		return &switched{x}
	}
	return &replyBody{Reader: reply.Body, end: sync.OnceValue(x.end)}
}

// replyBody is a reply's body. To close it ends the exchange, and reads nothing more.
type replyBody struct {
	io.Reader
	end func() error
}

func (b *replyBody) Close() error { return b.end() }

// switched is a stream after 101: bytes both ways.
type switched struct{ x *exchange }

func (s *switched) Read(p []byte) (int, error)  { return s.x.in.Read(p) }
func (s *switched) Write(p []byte) (int, error) { return s.x.stream.Write(p) }
func (s *switched) CloseWrite() error           { return closeWrite(s.x.stream) }
func (s *switched) Close() error                { return s.x.end() }

// counted reads at most left bytes, or without limit if that is negative.
type counted struct {
	r     io.Reader
	left  int
	any   bool // has been read
	ended bool // in an orderly way
	over  bool // there would have been more
}

func (c *counted) Read(p []byte) (int, error) {
	if c.left == 0 {
		c.over = true
		return 0, io.ErrUnexpectedEOF
	}
	if c.left > 0 {
		p = p[:min(len(p), c.left)]
	}
	n, err := c.r.Read(p)
	c.any, c.ended = c.any || n > 0, err == io.EOF
	if c.left > 0 {
		c.left -= n
	}
	return n, err
}

// explain names the limit, if that is why a head could not be read.
func (c *counted) explain(err error) error {
	if c.over {
		return fmt.Errorf("the reply's header is longer than %d bytes", maxReplyHead)
	}
	return err
}
