package socks

import (
	"errors"
	"fmt"
	"io"
)

var (
	errSOCKS4  = errors.New("socks: the client speaks SOCKS4")
	errHTTP    = errors.New("socks: the client speaks HTTP")
	errTLS     = errors.New("socks: the client speaks TLS")
	errUnknown = errors.New("socks: the client speaks neither SOCKS5 nor anything known")
)

// maxMethod is the longest HTTP method that is recognised.
const maxMethod = 16

// socks4Rejected is "request rejected or failed", 0x5B; port and address mean nothing.
const socks4Rejected = "\x00\x5b\x00\x00\x00\x00\x00\x00"

// tlsUnexpected is a fatal alert, "unexpected message" (RFC 8446 section 6): all that can be said to a TLS
// client without a certificate. Programs show it instead of a connection that just ended.
const tlsUnexpected = "\x15\x03\x03\x00\x02\x02\x0a"

// httpBody is for the person whose program is set up wrongly; %s is the front door's address.
const httpBody = `This is a SOCKS5 port; it is no HTTP proxy.
For HTTP use the front door, a port of its own: curl -x http://%s URL
Or tell the program to speak SOCKS5 to this one (curl --socks5-hostname, or a proxy URL that starts with socks5h://).
`

// answerForeign ends a connection that did not begin with SOCKS version 5: SOCKS4, HTTP and TLS get an
// answer that their client shows, everything else is closed without one.
func (c *client) answerForeign(first byte) error {
	switch {
	case first == 4:
		c.answer(socks4Rejected)
		return errSOCKS4
	case first == 0x16: // the record type of a ClientHello
		c.answer(tlsUnexpected)
		return errTLS
	case c.isHTTP(first):
		body := fmt.Sprintf(httpBody, c.cfg.FrontDoor)
		c.answer(fmt.Sprintf("HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain; charset=utf-8\r\n"+
			"Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body))
		return errHTTP
	default:
		return errUnknown
	}
}

// answer sends a last message.
func (c *client) answer(s string) {
	if _, err := io.WriteString(c.Conn, s); err == nil {
		c.lingerOut()
	}
}

// isHTTP reads on, as long as it can be the method of an HTTP request: capital letters, then a space.
// SSH, for one, also begins with capitals.
func (c *client) isHTTP(first byte) bool {
	b := [1]byte{first}
	for range maxMethod {
		if b[0] < 'A' || b[0] > 'Z' {
			return false
		}
		if _, err := io.ReadFull(c.Conn, b[:]); err != nil {
			return false
		}
		if b[0] == ' ' {
			return true
		}
	}
	return false
}
