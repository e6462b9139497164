package frontdoor

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pushingExit is what Dial leads to in these tests. For the page http://page.test/ it pushes what the test
// wants, and then answers; every other request it answers with "itself".
type pushingExit struct {
	t     *testing.T
	push  func(r Request) // what to do before the page is answered
	asked []string        // request lines that arrived, of pages too
	heads []string
}

func (e *pushingExit) dial(_ context.Context, r Request) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		head, err := readHead(bufio.NewReader(far))
		if err != nil {
			return
		}
		line, _, _ := strings.Cut(head, "\r\n")
		e.asked, e.heads = append(e.asked, r.Target+" "+line), append(e.heads, head)
		if r.Pushed != nil && e.push != nil {
			e.push(r)
		}
		io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nitself")
		io.Copy(io.Discard, far)
	}()
	return near, nil
}

// pushed pushes a stream for r and returns the exit's end of it.
func pushed(r Request) net.Conn {
	near, far := net.Pipe()
	r.Pushed(near)
	return far
}

// write writes to a pushed stream; \n stands for CRLF. It fails when the front door has ended the stream.
func write(c net.Conn, text string) error {
	_, err := io.WriteString(c, strings.ReplaceAll(text, "\n", "\r\n"))
	return err
}

const pushedReply = "HTTP/1.1 200 OK\nContent-Length: 6\n\npushed"

// whole pushes a stream with everything in it, and ends it.
func whole(r Request, text string) {
	c := pushed(r)
	go func() {
		defer c.Close()
		write(c, text)
	}()
}

// browser is a client connection on which one request follows another.
type browser struct {
	t  *testing.T
	in *bufio.Reader
	c  net.Conn
}

func (p *pipes) browser(t *testing.T) *browser {
	in, c := p.dial("")
	return &browser{t, in, c}
}

// get asks for a URL and returns the answer's body.
func (b *browser) get(url, headers string) string {
	b.t.Helper()
	go io.WriteString(b.c, strings.ReplaceAll("GET "+url+" HTTP/1.1\nHost: x\n"+headers+"\n", "\n", "\r\n"))
	r, err := http.ReadResponse(b.in, nil)
	if err != nil {
		b.t.Fatalf("%s: %v", url, err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Fatalf("%s: %v", url, err)
	}
	return string(body)
}

// page asks for the page as browsers do.
func (b *browser) page() { b.t.Helper(); b.get("http://page.test/", asPage) }

const asPage = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\n"

// withPushes runs a front door whose exit pushes, in virtual time.
func withPushes(t *testing.T, push func(r Request), test func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes)) {
	t.Helper()
	e := &pushingExit{push: push}
	serveInBubble(t, Config{Dial: e.dial, Prefetch: true}, func(t *testing.T, p *pipes, server *Server, stop func() time.Duration) {
		e.t = t
		b := p.browser(t)
		test(t, e, b, server, p)
		b.c.Close()
		if d := stop(); d > time.Second {
			t.Errorf("Serve took %v to return", d)
		}
		synctest.Wait()
		s := server.Stats()
		if s.PushesUsed+s.PushesMissed+s.PushesRefused+s.PushesUnused == 0 || s.PushesHeld != 0 || s.PushBytesHeld != 0 {
			t.Errorf("in the end: %+v", s)
		}
	})
}
