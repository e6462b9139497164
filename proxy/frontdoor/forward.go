package frontdoor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// Limits of connections to destinations. One that is kept idle holds a stream of a circuit.
const (
	maxIdle            = 64
	maxIdlePerTarget   = 8
	idleUpstream       = 30 * time.Second
	continueTimeout    = time.Second // how long a body waits for "100 Continue", as curl waits
	maxResponseHeaders = 1 << 20     // bytes
)

// forwarder sends absolute-form requests on (RFC 9112 section 3.2.2). Target, path, query and body arrive
// as the client wrote them; what was meant for this hop, or would tell of it, does not (RFC 9110 section
// 7.6.1). Header names come out in Go's spelling and order all the same: of the ways through the
// proxy only CONNECT and SOCKS hide what speaks here.
type forwarder struct {
	door      *door
	transport *http.Transport
	proxy     *httputil.ReverseProxy
	identity  atomic.Uint64 // counts new identities; part of every pool key
}

// journey is what one request carries through ReverseProxy and Transport to forwarder.dial.
type journey struct {
	request context.Context // the client's: Transport detaches the one that it dials with
	target  target
	wanted  Request
}

type journeyKey struct{}

func newForwarder(d *door) *forwarder {
	f := &forwarder{door: d}
	f.transport = &http.Transport{
		Proxy:                  nil, // never one from the environment
		DialContext:            f.dial,
		DisableCompression:     true, // else Go asks for gzip and unpacks it
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdlePerTarget,
		IdleConnTimeout:        idleUpstream,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: maxResponseHeaders,
	}
	f.proxy = &httputil.ReverseProxy{
		Transport:      f.transport,
		Rewrite:        f.rewrite,
		ModifyResponse: cleanResponse,
		ErrorHandler:   f.fail,
		FlushInterval:  -1, // what the destination sends arrives when it sends it
		BufferPool:     &buffers,
		ErrorLog:       slog.NewLogLogger(d.Log.Handler(), slog.LevelDebug),
	}
	return f
}

// forward serves a request in absolute form.
func (d *door) forward(w http.ResponseWriter, r *http.Request) {
	t, fail := d.forwardTarget(r.URL)
	if fail != nil {
		d.refuse(w, r, fail)
		return
	}
	wanted := Request{Target: t.String()}
	if wanted.Isolation, wanted.User, fail = d.isolation(r); fail != nil {
		d.refuse(w, r, fail)
		return
	}
	// Without full duplex net/http would read the rest of an upload itself as soon as the answer begins.
	http.NewResponseController(w).EnableFullDuplex()
	j := &journey{request: r.Context(), target: t, wanted: wanted}
	d.forwarder.proxy.ServeHTTP(verbatim{w}, r.WithContext(context.WithValue(r.Context(), journeyKey{}, j)))
}

// forwardTarget judges the URL of an absolute-form request.
func (d *door) forwardTarget(u *url.URL) (target, *failure) {
	switch {
	case u.Scheme == "https":
		return target{}, &failure{
			status: http.StatusBadRequest, kind: "http_request_error",
			what:   "the proxy does not fetch https:// pages itself",
			cause:  "it would have to read what TLS is there to hide; this program asked for that in place of a tunnel",
			advice: "make the program use CONNECT for https (curl and browsers do), or SOCKS5",
		}
	case u.Scheme != "http" || u.Opaque != "":
		return target{}, badRequest("the proxy fetches http:// URLs only", fmt.Errorf("this one begins with %.20q", u.Scheme+":"))
	case u.User != nil: // RFC 9110 section 4.2.4; whoever meant to log in sends Authorization
		return target{}, badRequest("the URL is not usable", errors.New("it has a user name before the host"))
	}
	t, err := parseTarget(u.Host, 80)
	if err != nil {
		return target{}, badRequest("the URL is not usable", err)
	}
	if d.ours(t) {
		return target{}, refuseOwn(t)
	}
	return t, nil
}

// rewrite makes the outgoing request. ReverseProxy has removed the hop-by-hop headers, Forwarded and three
// of X-Forwarded-*; it has also cut the query at whatever it cannot parse, and put TE back.
func (f *forwarder) rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	exactPath(p.Out.URL, p.In)
	for name := range p.Out.Header {
		if name == "Te" || name == "Via" || strings.HasPrefix(name, "Proxy-") || strings.HasPrefix(name, "X-Forwarded-") {
			delete(p.Out.Header, name)
		}
	}
	p.Out.Trailer = p.In.Trailer // not a copy: net/http fills it in at the body's end
	// The pool of idle connections goes by the URL's host, and only by that: the real one is in the Host
	// header and in the journey.
	p.Out.URL.Host = f.poolKey(p.In.Context().Value(journeyKey{}).(*journey))
}

// exactPath makes u's path come out as it stands in the request line: url.URL escapes anew what it would
// have escaped in the first place.
func exactPath(u *url.URL, in *http.Request) {
	_, path, _ := strings.Cut(in.RequestURI, "://")
	path, query, _ := strings.Cut(path, "?")
	if slash := strings.IndexByte(path, '/'); slash >= 0 {
		path = path[slash:]
	} else if path = ""; in.Method == http.MethodOptions && query == "" {
		path = "*" // RFC 9112 section 3.2.4
	}
	if path == "" || path == u.EscapedPath() {
		return
	}
	u.Opaque = path
	if strings.HasPrefix(path, "//") {
		// url.URL would put "http:" before this. Absolute form says the same in a way that
		// every server must accept.
		u.Opaque = "//" + in.Host + path
	}
}

// poolKey names the connections that a request may use: those to the same target, for the same isolation
// key, since the same new identity.
func (f *forwarder) poolKey(j *journey) string {
	return fmt.Sprintf("%d.%s.%x", f.identity.Load(), j.wanted.Isolation, j.wanted.Target)
}

// renew makes all connections so far useless for later requests.
func (f *forwarder) renew() {
	f.identity.Add(1)
	f.transport.CloseIdleConnections()
}

// close ends the idle connections, and those that become idle.
func (f *forwarder) close() { f.transport.CloseIdleConnections() }

// dial is Transport's. It gives up when the client does: nobody else waits for this connection.
func (f *forwarder) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if !f.door.begin() {
		return nil, net.ErrClosed
	}
	defer f.door.running.Done()
	j := ctx.Value(journeyKey{}).(*journey)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(j.request, cancel)()
	return f.door.dial(ctx, j.wanted)
}

// errProxyAuth: only we could ask the client for credentials of ours, and a browser would ask its user.
var errProxyAuth = errors.New("the destination answered 407, as if it were the proxy")

// cleanResponse takes what is between the client and its proxy out of a destination's answer.
func cleanResponse(r *http.Response) error {
	if r.StatusCode == http.StatusProxyAuthRequired {
		return errProxyAuth
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "Proxy-") {
			delete(r.Header, name)
		}
	}
	return nil
}

// fail answers a request that got no answer.
func (f *forwarder) fail(w http.ResponseWriter, r *http.Request, err error) {
	j := r.Context().Value(journeyKey{}).(*journey)
	f.door.refuse(w, r, f.door.dialFailure(j.target, err))
}

// verbatim is the client's ResponseWriter without net/http's guess at a missing Content-Type, and with a
// Hijack that loses no early bytes of an upgraded connection.
type verbatim struct{ http.ResponseWriter }

func (v verbatim) Unwrap() http.ResponseWriter { return v.ResponseWriter }

func (v verbatim) WriteHeader(status int) {
	if h := v.Header(); status >= 200 && h["Content-Type"] == nil {
		h["Content-Type"] = nil
	}
	v.ResponseWriter.WriteHeader(status)
}

func (v verbatim) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, err := hijack(v.ResponseWriter)
	if err != nil {
		return nil, nil, err
	}
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}
