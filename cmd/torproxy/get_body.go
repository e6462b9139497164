package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"unicode"
	"unicode/utf8"
)

// sniffed is how much of a body is looked at before any of it goes to a terminal.
const sniffed = 512

// deliver prints the body, says what happened, and opens what the reply asks for.
func (g *getting) deliver(ctx context.Context, answer *http.Response) error {
	body := &counter{Reader: answer.Body}
	asked, err := g.asked(answer, body)
	if err == nil {
		err = g.print(answer, body, asked.list)
	}
	g.tell(ctx, answer, body.n)
	if err != nil {
		return err
	}
	if answer.StatusCode >= 400 {
		return g.failedStatus(answer)
	}
	return g.open(ctx, asked)
}

// print writes the body to stdout. read is what has been read of it already.
func (g *getting) print(answer *http.Response, body io.Reader, read []byte) error {
	var err error
	from := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(read), body), 32<<10)
	if !g.output.stdout.terminal {
		_, err = io.Copy(g.output.stdout, from)
	} else if head, _ := from.Peek(sniffed); isBinary(head) {
		return &failure{
			code: codeStatus, what: fmt.Sprintf("the page is not text (%s), and was not sent to the terminal", printable(contentType(answer))),
			advice: "send it to a file: torproxy get URL > FILE",
		}
	} else {
		err = copyText(g.output.stdout, from)
	}
	if err != nil {
		return &failure{code: codeStatus, err: err, what: fmt.Sprintf("the page broke off: %s", printable(systemError(err).Error()))}
	}
	return nil
}

// failedStatus is an answer that is none to be glad of.
func (g *getting) failedStatus(answer *http.Response) error {
	f := &failure{code: codeStatus, what: fmt.Sprintf("%s answered %s", g.url.Host, printable(answer.Status))}
	if answer.StatusCode == http.StatusUnauthorized && g.login.user == "" {
		f.advice = "say with --user who you are; the password is then asked for"
	}
	return f
}

// isBinary reports whether a body's beginning is not text.
func isBinary(head []byte) bool {
	if bytes.IndexByte(head, 0) >= 0 {
		return true
	}
	for utf8.FullRune(head) { // the last one may be cut off
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n == 1 {
			return true
		}
		head = head[n:]
	}
	return false
}

// copyText copies text to a terminal, without what a terminal would obey: escape sequences could write
// anywhere, in anybody's name.
func copyText(w io.Writer, from *bufio.Reader) error {
	to := bufio.NewWriter(w)
	last := '\n'
	for {
		r, _, err := from.ReadRune()
		if err != nil {
			if last != '\n' {
				to.WriteByte('\n')
			}
			if flushed := to.Flush(); err == io.EOF {
				err = flushed
			}
			return err
		}
		if unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' {
			r = utf8.RuneError
		}
		to.WriteRune(r)
		last = r
		if from.Buffered() == 0 { // what comes slowly is shown as it comes
			if err := to.Flush(); err != nil {
				return err
			}
		}
	}
}

// counter counts what is read through it.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}
