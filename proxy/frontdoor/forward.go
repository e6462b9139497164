package frontdoor

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"

	"torproxy/wire"
)

// forwarder sends absolute-form requests on (RFC 9112 section 3.2.2): the exit makes them. Path, query and
// body arrive as the client wrote them; what was meant for this hop, or would tell of it or of the client, does
// not (RFC 9110 section 7.6.1; fields.go). Header names come out in Go's spelling and order all the same: of
// the ways through the proxy only CONNECT and SOCKS hide what speaks here.
//
//  1. forward       what is wanted, for whom
//  2. rewrite       the request without what must not pass
//  3. RoundTrip     a reply that was pushed (pushes.go), else a stream, and over it
//  4. exchange.go   the request's head, its body beside it (upload.go), the reply
//  5. cleanReply    the reply without what must not pass; the links that it asks to open
//
// net/http/httputil's ReverseProxy carries the rest: interim replies, trailers, upgrades, the copying.
type forwarder struct {
	door   *door
	proxy  *httputil.ReverseProxy
	pushes *pushes
}

// journey is what one request carries through ReverseProxy.
type journey struct {
	target   target
	path     string // with the query, as it stands in the request line; or "*"
	identity uint64 // of this moment; what comes later may belong to another
	wanted   Request
	page     *page   // a browser will show the reply, and its links may be opened; nil: not so
	shown    bool    // a browser will show the reply
	opens    bool    // who asks opens links itself, or asks its user
	upload   *upload // nil: no body
	pushed   bool    // the reply was
}

// name is what the reply would be pushed as.
func (j *journey) name() pushName {
	return pushName{j.identity, j.wanted.Isolation, j.target.String(), j.path}
}

type journeyKey struct{}

// journeyOf returns the journey of a request that ReverseProxy has made.
func journeyOf(out *http.Request) *journey { return out.Context().Value(journeyKey{}).(*journey) }

func newForwarder(d *door, p *pushes) *forwarder {
	f := &forwarder{door: d, pushes: p}
	f.proxy = &httputil.ReverseProxy{
		Transport:      f,
		Rewrite:        rewrite,
		ModifyResponse: f.cleanReply,
		ErrorHandler:   f.fail,
		FlushInterval:  -1, // what the destination sends arrives when it sends it
		BufferPool:     &buffers,
		ErrorLog:       slog.NewLogLogger(d.Log.Handler(), slog.LevelDebug),
	}
	return f
}

// forward serves a request in absolute form.
func (d *door) forward(w http.ResponseWriter, r *http.Request) {
	d.counts.forwarded.Add(1)
	j, fail := d.plan(r)
	if fail != nil {
		d.refuse(w, r, fail)
		return
	}
	c := http.NewResponseController(w)
	// Without full duplex net/http would read the rest of an upload itself as soon as the answer begins.
	c.EnableFullDuplex()
	r = r.WithContext(context.WithValue(r.Context(), journeyKey{}, j))
	if r.ContentLength != 0 {
		j.upload = newUpload(r.Body, c)
		defer j.upload.finish()
		r.Body = j.upload
	}
	d.forwarder.proxy.ServeHTTP(verbatim{w, j.upload}, r)
}

// plan judges everything about a request that can be judged before it is sent.
func (d *door) plan(r *http.Request) (*journey, *failure) {
	t, fail := d.forwardTarget(r.URL)
	if fail != nil {
		return nil, fail
	}
	j := &journey{target: t, path: exactPath(r), identity: d.forwarder.pushes.now(), wanted: Request{Target: t.String(), HTTP: exitMakes(r)}}
	j.opens = r.Header.Get(openField) == opensItself
	if j.wanted.Isolation, j.wanted.User, fail = d.isolation(r); fail != nil {
		return nil, fail
	}
	if j.shown = isPage(r); j.shown && d.Prefetch && worthPrefetch(r) {
		j.page = d.forwarder.pushes.newPage(j.name())
		j.wanted.Pushed = j.page.take
	}
	return j, nil
}

// exitMakes reports whether a request is one that exits make: they take an upgrade to WebSocket and to
// nothing else, so with others the request goes through a plain stream.
func exitMakes(r *http.Request) bool {
	upgrade := upgradeOf(r)
	return upgrade == "" || strings.EqualFold(upgrade, "websocket")
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

// rewrite makes the outgoing request's header. ReverseProxy has removed the hop-by-hop headers, and put back TE
// and what an upgrade needs.
func rewrite(p *httputil.ProxyRequest) {
	upgrade := upgradeOf(p.In)
	strip(p.Out.Header)
	if upgrade != "" {
		p.Out.Header.Set("Connection", "Upgrade")
		p.Out.Header.Set("Upgrade", upgrade)
	}
	p.Out.Trailer = p.In.Trailer // not a copy: net/http fills it in at the body's end
}

// upgradeOf is what a request asks to go over to, "" if it does not: it must say so in Connection (RFC 9110
// section 7.8), and have no body, which would still be on its way when the connection changes hands.
func upgradeOf(r *http.Request) string {
	if !slices.Contains(tokens(r.Header["Connection"]), "upgrade") || r.ContentLength != 0 {
		return ""
	}
	return r.Header.Get("Upgrade")
}

// exactPath is the path and query as they stand in the request line; package url would escape them anew.
func exactPath(r *http.Request) string {
	_, path, _ := strings.Cut(r.RequestURI, "://")
	if begin := strings.IndexAny(path, "/?"); begin >= 0 {
		path = path[begin:]
	} else if path = ""; r.Method == http.MethodOptions {
		return "*" // RFC 9112 section 3.2.4
	}
	if !strings.HasPrefix(path, "/") {
		return "/" + path
	}
	return path
}

// What exits take of a request's head (relay/HTTP.md), in bytes and lines. A larger one goes through a plain
// stream from the start: exits that refuse it are not to be blamed.
const (
	exitHead   = 32 << 10
	exitFields = 256
)

// maxAttempts is how many streams one request is sent over: Dial ends the attempts itself, after three
// circuits, for the exit's making of the request and once more for a plain stream.
const maxAttempts = 6

// RoundTrip implements http.RoundTripper for ReverseProxy. A GET or HEAD without body to which not a byte of
// an answer has come is sent again, for as long as Dial knows another circuit that may do better.
func (f *forwarder) RoundTrip(out *http.Request) (*http.Response, error) {
	j, ctx := journeyOf(out), out.Context()
	if reply := f.pushes.reply(ctx, j, out); reply != nil {
		j.pushed = true
		return reply, nil
	}
	if head := requestHead(out, j); len(head) > exitHead || bytes.Count(head, []byte("\n")) > exitFields {
		j.wanted.HTTP = false // no exit would take it
	}
	for attempt := 1; ; attempt++ {
		stream, err := f.door.dial(ctx, j.wanted)
		if err != nil && j.wanted.HTTP && repeatable(out) && reasonOf(err) == wire.ReasonUnsupported {
			j.wanted.HTTP, j.wanted.After = false, nil // an exit that makes no requests, or not such ones
			continue
		}
		if err != nil {
			return nil, err
		}
		x := newExchange(ctx, stream)
		reply, err := x.run(out, j)
		if err == nil {
			return reply, nil
		}
		x.end()
		if attempt == maxAttempts || ctx.Err() != nil || !repeatable(out) || !x.silent() {
			return nil, err
		}
		j.wanted.After = stream
	}
}

// repeatable reports whether a request may reach its destination twice.
func repeatable(out *http.Request) bool {
	return (out.Method == http.MethodGet || out.Method == http.MethodHead) && out.Body == nil && out.Header["Upgrade"] == nil
}

// errProxyAuth: only we could ask the client for credentials of ours, and a browser would ask its user.
var errProxyAuth = errors.New("the destination answered 407, as if it were the proxy")

// openField marks a link in a reply of an exit. In a request of a client it is for the front door alone:
// whoever sends opensItself reads for itself what a reply asks to open, and nobody else need be asked.
const (
	openField   = "Torproxy-Open"
	opensItself = "self"
)

// maxOpens is how many links one reply may ask to open.
const maxOpens = 8

// cleanReply takes what is between the client and its proxy, and between the proxy and its exits, out of a
// reply. Links that a browser follows itself are none of ours.
func (f *forwarder) cleanReply(r *http.Response) error {
	if r.StatusCode == http.StatusProxyAuthRequired {
		return errProxyAuth
	}
	j := journeyOf(r.Request)
	if asked := r.Header.Values(openField); j.wanted.HTTP && !j.pushed && !j.shown && !j.opens && !ofPage(r.Request) {
		for _, link := range asked[:min(len(asked), maxOpens)] {
			if err := f.door.links.ask(link, j.target.String()); err != nil {
				f.door.Log.LogAttrs(r.Request.Context(), slog.LevelDebug, "a reply asks to open what cannot be opened", slog.Any("err", err))
			}
		}
	}
	f.pushes.delivered.note(j.name(), r.Request, r)
	stripReply(r.Header)
	return nil
}

// ofPage reports whether a page in a browser may be behind a request, and not a person or a program of
// theirs: no picture of an advertisement asks a person anything. A page can keep back where it is, but
// hardly what the browser is called.
func ofPage(r *http.Request) bool {
	for name := range r.Header {
		if name == "Referer" || name == "Origin" || strings.HasPrefix(name, "Sec-Fetch-") {
			return true
		}
	}
	return strings.HasPrefix(r.Header.Get("User-Agent"), "Mozilla/")
}

// fail answers a request that got no answer.
func (f *forwarder) fail(w http.ResponseWriter, out *http.Request, err error) {
	f.door.refuse(w, out, f.door.dialFailure(out, journeyOf(out).target, err))
}

// verbatim is the client's ResponseWriter without net/http's guess at a missing Content-Type, with the end of
// the connection where an answer overtakes its upload, and with a Hijack that loses no early bytes of an
// upgraded connection.
type verbatim struct {
	http.ResponseWriter
	upload *upload // nil: none
}

func (v verbatim) Unwrap() http.ResponseWriter { return v.ResponseWriter }

func (v verbatim) WriteHeader(status int) {
	if h := v.Header(); status >= 200 {
		if h["Content-Type"] == nil {
			h["Content-Type"] = nil
		}
		if v.upload != nil && !v.upload.whole.Load() {
			h.Set("Connection", "close")
		}
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
