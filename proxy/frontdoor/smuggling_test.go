package frontdoor

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
)

// Requests that two parsers may cut in two different ways are refused, or sent on in the one form that the
// front door has understood. In both cases a destination never sees "GET /smuggled".
func TestSmuggling(t *testing.T) {
	const get = "GET http://web.test/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	post := func(headers, body string) string {
		return "POST http://web.test/first HTTP/1.1\r\nHost: web.test\r\n" + headers + "\r\n" + body
	}
	for name, test := range map[string]struct {
		request string
		status  int    // 0: whatever, as long as nothing is smuggled
		arrives string // in the head, if it is sent on
		never   string // in the head
	}{
		"two different lengths":        {post("Content-Length: 5\r\nContent-Length: 60\r\n", "hello"+get), 400, "", ""},
		"two equal lengths":            {post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), 200, "\r\nContent-Length: 5\r\n", "Content-Length: 5\r\nContent-Length"},
		"a list of lengths":            {post("Content-Length: 5, 6\r\n", "hello"), 400, "", ""},
		"a length with a sign":         {post("Content-Length: +5\r\n", "hello"), 400, "", ""},
		"a hexadecimal length":         {post("Content-Length: 0x5\r\n", "hello"), 400, "", ""},
		"an empty length":              {post("Content-Length:\r\n", "hello"), 400, "", ""},
		"length and chunked":           {post("Content-Length: 60\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), 200, "\r\nTransfer-Encoding: chunked\r\n", "Content-Length"},
		"an unknown encoding":          {post("Transfer-Encoding: xchunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), 501, "", ""},
		"two encodings":                {post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 501, "", ""},
		"space before the colon":       {post("Content-Length : 5\r\n", "hello"), 400, "", ""},
		"space before a TE's colon":    {post("Content-Length: 5\r\nTransfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400, "", ""},
		"space before a name":          {"POST http://web.test/first HTTP/1.1\r\n Host: web.test\r\n\r\n", 400, "", ""},
		"a folded header":              {post("X-Fold: a\r\n\tContent-Length: 9\r\n", ""), 200, "X-Fold: a Content-Length: 9\r\n", "\nContent-Length: 9"},
		"NUL in a value":               {post("X: a\x00b\r\n", ""), 400, "", ""},
		"CR in a value":                {post("X: a\rContent-Length: 5\r\n", ""), 400, "", ""},
		"two hosts":                    {post("Host: other.test\r\n", ""), 400, "", ""},
		"lines with bare LF":           {"POST http://web.test/first HTTP/1.1\nHost: web.test\nContent-Length: 5\n\nhello", 200, "\r\nContent-Length: 5\r\n", "\n\n"},
		"bare LF in a chunk":           {post("Transfer-Encoding: chunked\r\n", "5\nhello\r\n0\r\n\r\n"), 0, "", ""},
		"a bad chunk size":             {post("Transfer-Encoding: chunked\r\n", "5x\r\nhello\r\n0\r\n\r\n"), 0, "", ""},
		"a bad chunk extension":        {post("Transfer-Encoding: chunked\r\n", "5;\nGET /smuggled HTTP/1.1\r\nhello\r\n0\r\n\r\n"), 0, "", ""},
		"a huge chunk size":            {post("Transfer-Encoding: chunked\r\n", "10000000000000005\r\nhello\r\n0\r\n\r\n"), 0, "", ""},
		"a chunk longer than said":     {post("Transfer-Encoding: chunked\r\n", "5\r\nhelloGET /smuggled HTTP/1.1\r\n\r\n0\r\n\r\n"), 0, "", ""},
		"a length named by Connection": {post("Connection: Content-Length\r\nContent-Length: 5\r\n", "hello"), 200, "\r\nContent-Length: 5\r\n", "Connection:"},
		"HTTP/1.0 with chunked":        {strings.Replace(post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), "HTTP/1.1", "HTTP/1.0", 1), 0, "", ""},
		"an absolute URL with space":   {"GET http://web.test/first HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "", ""},
		"LF in the URL":                {"GET http://web.test/first\nX: y HTTP/1.1\r\nHost: x\r\n\r\n", 400, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			seen := make(chan string, 8)
			f.origin("web.test:80", func(c net.Conn) {
				all := &strings.Builder{}
				in := bufio.NewReader(io.TeeReader(c, all))
				head, err := readHead(in)
				if err == nil && strings.Contains(head, "Length: 5\r\n") {
					in.Discard(5)
				}
				if strings.Contains(head, "chunked") {
					readUntil(in, "0\r\n\r\n")
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				io.Copy(io.Discard, in)
				seen <- all.String()
			})
			c := f.connect()
			io.WriteString(c.Conn, test.request)
			if r, body := c.answer("POST"); r.StatusCode != test.status && test.status != 0 {
				t.Errorf("%s %q", r.Status, body)
			}
			c.Close()
			f.stop()
			if len(f.network.dialled()) == 0 {
				if test.arrives != "" {
					t.Error("nothing arrived")
				}
				return
			}
			all := <-seen
			head, _, _ := strings.Cut(all, "\r\n\r\n")
			head += "\r\n"
			if !strings.Contains(head, test.arrives) || test.never != "" && strings.Contains(head, test.never) {
				t.Errorf("arrived: %q", all)
			}
			if strings.Contains(all, "\r\nGET /smuggled") {
				t.Errorf("smuggled: %q", all)
			}
		})
	}
}

// What is left of a body is never taken for a request to the front door: a web page writes bodies, and would
// get past the guard.
func TestSmugglingToTheFrontDoor(t *testing.T) {
	const evil = "POST /api/newnym HTTP/1.1\nHost: SELF\n\n"
	head := "POST http://web.test/ HTTP/1.1\nHost: web.test\n"
	for name, request := range map[string]string{
		"behind a bad chunk":     head + "Transfer-Encoding: chunked\n\nzz\n" + evil,
		"behind a long chunk":    head + "Transfer-Encoding: chunked\n\n1\nabc\n" + evil,
		"behind a bad trailer":   head + "Transfer-Encoding: chunked\n\n0\nno trailer\n\n" + evil,
		"in an unread body":      head + "Content-Length: 1000\n\n" + strings.Repeat(evil, 10),
		"behind a bad chunk, no": strings.Replace(head, "web", "no", 2) + "Transfer-Encoding: chunked\n\nzz\n" + evil,
		"in a body for nobody":   strings.Replace(head, "web", "no", 2) + "Content-Length: 1000\n\n" + strings.Repeat(evil, 10),
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			f.origin("web.test:80", func(c net.Conn) { // answers at once, and reads nothing
				readHead(bufio.NewReaderSize(c, 16))
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				io.Copy(io.Discard, c)
			})
			c := f.send(request)
			r, _ := c.answer("POST")
			if !r.Close {
				t.Errorf("%s, and the connection goes on", r.Status)
			}
			// The rest of the body comes later, when the answer is complete.
			c.send(strings.ReplaceAll(evil, "SELF", f.addr))
			c.Conn.(*net.TCPConn).CloseWrite()
			if rest := c.rest(); rest != "" {
				t.Errorf("a second answer: %q", rest)
			}
			if n := f.client.newIdentities(); n != 0 {
				t.Errorf("%d new identities", n)
			}
		})
	}
}

// readUntil reads until what was read ends in tail.
func readUntil(in *bufio.Reader, tail string) {
	var got string
	for !strings.HasSuffix(got, tail) {
		b, err := in.ReadByte()
		if err != nil {
			return
		}
		got += string(b)
	}
}

func TestLongHeads(t *testing.T) {
	f := start(t)
	f.recorder("web.test:80", emptyOK)
	r, _ := f.do("GET http://web.test/ HTTP/1.1\nHost: x\nX: " + strings.Repeat("x", maxHeaderBytes-1000) + "\n\n")
	wantStatus(t, r, 200)
	c := f.send("GET http://web.test/ HTTP/1.1\nHost: x\nX: " + strings.Repeat("x", 2*maxHeaderBytes))
	if r := c.head("GET"); r.StatusCode != 431 {
		t.Errorf("%s", r.Status)
	}
}

// Other protocols on this port get an answer or an end, and nothing else happens.
func TestOtherProtocols(t *testing.T) {
	f := start(t)
	for _, hello := range []string{"\x05\x01\x00", "\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "\x16\x03\x01\x02\x00\x01", "SSH-2.0-x\r\n", "\r\n\r\n", "GET /\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		c := f.connect()
		io.WriteString(c.Conn, hello)
		c.Conn.(*net.TCPConn).CloseWrite()
		if got := c.rest(); got != "" && !strings.HasPrefix(got, "HTTP/1.") {
			t.Errorf("%q: %q", hello, got)
		}
	}
	if got := f.network.dialled(); len(got) != 0 {
		t.Errorf("dialled %q", got)
	}
}
