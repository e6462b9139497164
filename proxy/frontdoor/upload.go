package frontdoor

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync/atomic"
	"time"
)

const (
	continueTimeout = time.Second            // how long a body waits for "100 Continue", as curl waits
	uploadLinger    = 500 * time.Millisecond // for the rest of an upload when the answer is complete; then its connection is closed
)

// upload is the body of a client's request. It is read in a goroutine of its own, as an answer may come
// before its end; that goroutine has ended when finish returns, for net/http wants no reader behind its
// handler's end.
//
// An answer that begins before whole is true must end the client's connection. With full duplex net/http does
// not see to that: it would take the rest of a body that nobody has read for the next request, and a web
// page, which writes bodies, would get past the guard.
type upload struct {
	io.ReadCloser
	client *http.ResponseController
	whole  atomic.Bool   // it has been read to its end
	done   chan struct{} // closed when the goroutine has ended; nil: it never began
	broke  chan error    // of size 1: the client is gone, or has sent what is no body
}

func newUpload(body io.ReadCloser, c *http.ResponseController) *upload {
	return &upload{ReadCloser: body, client: c, broke: make(chan error, 1)}
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if err == io.EOF {
		u.whole.Store(true)
	}
	return n, err
}

// send starts to write the body behind the request's head. It waits for proceed if that is not nil, and
// sends nothing if that says false. failed is called when the client is to blame that there is no more.
func (u *upload) send(w io.Writer, out *http.Request, proceed <-chan bool, failed func()) {
	u.done = make(chan struct{})
	trailer := trailerNames(out) // those that were announced; the body's end may bring others
	go func() {
		defer close(u.done)
		if proceed != nil && !awaitContinue(proceed) {
			return
		}
		if err := u.copy(w, out, trailer); err != nil {
			u.broke <- err
			failed()
		}
	}()
}

// blame is why there is no answer: the client's own failure, if it has failed, else err.
func (u *upload) blame(err error) error {
	select {
	case broke := <-u.broke:
		return fmt.Errorf("the request's body could not be read: %w", broke)
	default:
		return err
	}
}

// awaitContinue waits until the destination wants the body, has answered without it, or is silent: then
// the body is sent all the same.
func awaitContinue(proceed <-chan bool) bool {
	timeout := time.NewTimer(continueTimeout)
	defer timeout.Stop()
	select {
	case wanted := <-proceed:
		return wanted
	case <-timeout.C:
		return true
	}
}

// copy writes the body, each piece when it has come. A failure to write is not an error: the answer, if
// there is one, says why.
func (u *upload) copy(w io.Writer, out *http.Request, trailer []string) error {
	buf := buffers.Get()
	defer buffers.Put(buf)
	body := bufio.NewWriter(w)
	chunked := out.ContentLength < 0
	var to io.Writer = body
	if chunked {
		to = httputil.NewChunkedWriter(body)
	}
	for {
		n, err := out.Body.Read(buf)
		if n > 0 {
			to.Write(buf[:n])
			if body.Flush() != nil {
				return nil
			}
		}
		if err == io.EOF && chunked {
			io.WriteString(body, "0\r\n")
			for _, name := range trailer {
				http.Header{name: out.Trailer[name]}.Write(body)
			}
			io.WriteString(body, "\r\n")
			body.Flush()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// finish ends the goroutine: reading goes on for a moment only.
func (u *upload) finish() {
	if u.done == nil {
		return
	}
	select {
	case <-u.done:
		return
	default:
	}
	u.client.SetReadDeadline(time.Now().Add(uploadLinger))
	<-u.done
}

// trailerNames are the fields that may follow the body, in order.
func trailerNames(out *http.Request) (names []string) {
	for name := range out.Trailer {
		if passes(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
