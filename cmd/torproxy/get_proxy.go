package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Limits of a request. Times are wall-clock.
const (
	connectTimeout = 5 * time.Second // to the client, which is near
	stallTimeout   = 3 * time.Minute // for the next byte: the front door itself waits two minutes for a circuit
	tlsTimeout     = time.Minute     // for the site's TLS handshake, through all relays
	maxHead        = 1 << 20         // bytes of an answer's head
	maxDiscard     = 64 << 10        // bytes of a body that nobody wants, to use the connection again
	maxText        = 4 << 10         // bytes of what the proxy says
)

// newTransport returns what sends requests to the front door: http:// ones whole, for https:// it is asked
// for a connection, in which TLS goes to the site itself.
func newTransport(door string) *http.Transport {
	var dialer net.Dialer
	return &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: door}),
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, &doorError{err}
			}
			return &patientConn{conn}, nil
		},
		OnProxyConnectResponse: connectAnswered,
		ResponseHeaderTimeout:  stallTimeout,
		TLSHandshakeTimeout:    tlsTimeout,
		MaxResponseHeaderBytes: maxHead,
		DisableCompression:     true, // the body is wanted as it is
		ForceAttemptHTTP2:      true,
	}
}

// doorError says that the front door itself could not be reached.
type doorError struct{ err error }

func (e *doorError) Error() string { return e.err.Error() }
func (e *doorError) Unwrap() error { return e.err }

// patientConn gives up when the next byte takes too long.
type patientConn struct{ net.Conn }

func (c *patientConn) Read(p []byte) (int, error) {
	c.SetReadDeadline(time.Now().Add(stallTimeout))
	return c.Conn.Read(p)
}

func (c *patientConn) Write(p []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(stallTimeout))
	return c.Conn.Write(p)
}

// connectAnswered looks at the front door's answer to CONNECT.
func connectAnswered(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return failureAtProxy(answer)
}

// isProxyFailure reports whether an answer is the front door's own, in place of the site's (RFC 9209). It lets
// no site say so over http; over https, in a tunnel, every site can say what it likes.
func isProxyFailure(from *url.URL, answer *http.Response) bool {
	return from.Scheme == "http" && strings.HasPrefix(answer.Header.Get("Proxy-Status"), "torproxy;") && answer.StatusCode >= 400
}

// failureAtProxy is what the front door says of a request that has failed: up to three sentences.
func failureAtProxy(answer *http.Response) *failure {
	f := &failure{code: codeStatus, what: "the proxy answered " + printable(answer.Status)}
	text, _ := io.ReadAll(io.LimitReader(answer.Body, maxText))
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(printable(strings.TrimSpace(line)), ".")
		if s, ok := strings.CutPrefix(line, "torproxy: "); ok {
			f.what = s
		} else if s, ok := strings.CutPrefix(line, "Probable cause: "); ok {
			f.cause = s
		} else if s, ok := strings.CutPrefix(line, "What to do: "); ok {
			f.advice = s
		}
	}
	if said := printable(answer.Header.Get("Proxy-Status")); said != "" {
		f.what += " (Proxy-Status: " + said + ")"
	}
	return f
}

// proxyFailed tells of a request that the proxy could not carry out.
func (g *getting) proxyFailed(answer *http.Response) error {
	f := failureAtProxy(answer)
	g.hint(f)
	return f
}

// hint says where more is known.
func (g *getting) hint(f *failure) {
	more := "torproxy why " + g.url.Hostname() + " says which relay said what"
	if f.advice == "" {
		f.advice = more
	} else {
		f.advice += "; " + more
	}
}

// explain is what is told of a request that has no answer.
func (g *getting) explain(err error) error {
	if f, ok := errors.AsType[*failure](err); ok { // of connectAnswered
		g.hint(f)
		return f
	}
	if e, ok := errors.AsType[*doorError](err); ok {
		return g.api.noClient(e.err)
	}
	f := &failure{code: codeStatus, err: err, what: fmt.Sprintf("no answer from %s: %s", g.url.Host, printable(systemError(err).Error()))}
	if isCertificate(err) {
		f.what = fmt.Sprintf("%s does not prove that it is %s: %s", g.url.Host, g.url.Hostname(), printable(err.Error()))
		f.cause = "its certificate is not in order, or somebody between the exit and the site answers in its place"
		f.advice = "try another exit: torproxy's new identity, POST /api/newnym"
		return f
	}
	g.hint(f)
	return f
}

func isCertificate(err error) bool {
	_, wrapped := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	return wrapped || unknown || name
}

// discard reads the rest of a body, if it is short, and closes it.
func discard(body io.ReadCloser) {
	io.CopyN(io.Discard, body, maxDiscard)
	body.Close()
}
