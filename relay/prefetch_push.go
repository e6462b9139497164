package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"torproxy/relay/pagelinks"
	"torproxy/wire"
	"torproxy/wire/mux"
)

// push is one link that is opened: a stream down the circuit, and the request whose reply it carries.
type push struct {
	page    *prefetch
	link    pageLink
	stream  *mux.Stream
	request *request
	cancel  context.CancelFunc
}

// run serves the push until its end. When the client ends the stream, the request is given up.
func (p *push) run() {
	defer p.page.leave()
	defer p.stream.Close()
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(p.page.ctx)
	defer p.cancel()
	p.stream.OnDone(p.cancel)
	if reason := p.serve(ctx); reason != 0 {
		p.stream.End(reason)
	}
}

// serve promises the reply, and sends it. The client that gets END in its place asks itself, as it would have.
func (p *push) serve(ctx context.Context) wire.Reason {
	if _, err := p.stream.Write(p.promise()); err != nil {
		return wire.ReasonReset
	}
	if !p.page.fetches.take(ctx, urgency(p.link.Kind)) {
		return wire.ReasonDone
	}
	resp, reason := p.fetch(ctx)
	p.page.fetches.leave()
	if resp == nil {
		return reason
	}
	defer resp.Body.Close()
	strip(resp.Header)
	if !mayKeep(resp) || !p.page.admit(resp) {
		return wire.ReasonDone
	}
	if p.isSheet(resp) {
		base := p.link.URL
		look := p.page.watchBody(resp, p.link.level+1, func(r io.Reader, found func(pagelinks.Link)) {
			if sheet, err := io.ReadAll(r); err == nil {
				pagelinks.CSS(sheet, base, found)
			}
		})
		defer look.stop()
	}
	return p.send(ctx, resp)
}

// send sends the reply in its turn.
func (p *push) send(ctx context.Context, resp *http.Response) wire.Reason {
	patient, cancel := context.WithTimeout(ctx, bodyPatience)
	defer cancel()
	if p.page.bodies.take(patient, urgency(p.link.Kind)) {
		defer p.page.bodies.leave()
	}
	return reply(p.stream, resp, http.MethodGet)
}

// isSheet reports whether the reply's own links are to be opened.
func (p *push) isSheet(resp *http.Response) bool {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return p.link.Kind == pagelinks.Style && p.link.level < maxLevels && err == nil && kind == "text/css" && canDecode(resp)
}

// promise is the request as the client gets it: in absolute form, with the fields that Vary may name.
func (p *push) promise() []byte {
	b := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n", spell(p.link.URL), p.request.host)
	return append(appendFields(b, p.request.header, isToken), "\r\n"...)
}

// fetch makes the request; resp is nil if it failed, for reason.
func (p *push) fetch(ctx context.Context) (resp *http.Response, reason wire.Reason) {
	target := authority(p.link.URL)
	if trace := p.page.hop.relay.cfg.Trace.Begin; trace != nil {
		trace(target)
	}
	late := time.AfterFunc(pushTimeout, p.cancel)
	resp, err := p.page.hop.web.roundTrip(p.request.outgoing(ctx, target, http.NoBody))
	inTime := late.Stop()
	var dialled *dialError
	switch {
	case err == nil && inTime:
		return resp, 0
	case err == nil:
		resp.Body.Close()
		return nil, wire.ReasonTimeout
	case errors.As(err, &dialled):
		return nil, dialled.reason
	case !inTime:
		return nil, wire.ReasonTimeout
	default:
		return nil, wire.ReasonReset
	}
}

// authority is HOST:PORT of a URL of http.
func authority(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// asker makes the requests for a page's links as the browser will that got the page, but without anything that
// says who asks: no cookie, no credentials, no Referer (the page's own host has seen the page's request, and
// others need not know).
type asker struct {
	page   *url.URL
	header http.Header // of the page's request
}

func newAsker(header http.Header, page *url.URL) asker {
	return asker{page, header.Clone()} // net/http may still read the page's own
}

// shared are the fields of a page's request that those for its links have too: what the browser is and what
// its user wishes.
var shared = [...]string{"User-Agent", "Accept-Language", "Accept-Encoding", "Dnt", "Sec-Gpc"}

func (a asker) request(l pagelinks.Link) *request {
	h := http.Header{"Accept": {a.accept(l.Kind)}}
	for _, name := range shared {
		if values := a.header[name]; values != nil {
			h[name] = values
		}
	}
	// Firefox says nothing of the page's origin where it is the link's own.
	if own := strings.EqualFold(authority(l.URL), authority(a.page)); l.CORS && (a.chromium() || !own) {
		h["Origin"] = []string{"http://" + strings.TrimSuffix(strings.ToLower(a.page.Host), ":80")}
	}
	target := l.URL.RequestURI()
	return &request{method: http.MethodGet, target: target, host: l.URL.Host, header: h}
}

func (a asker) chromium() bool { return strings.Contains(a.header.Get("Accept"), "image/apng") }
func (a asker) firefox() bool  { return strings.Contains(a.header.Get("User-Agent"), " Firefox/") }

// accept is what a browser's Accept is for a kind of link. A server may choose the reply by it, and where it
// says so (Vary), only the very same value will do. The values were taken from Chromium 156 and Firefox 153.
func (a asker) accept(k pagelinks.Kind) string {
	switch {
	case k == pagelinks.Style:
		return "text/css,*/*;q=0.1"
	case k == pagelinks.Image && a.chromium():
		// It names the same new formats for a page as for an image.
		var formats []string
		for format := range listed(a.header["Accept"]) {
			if strings.HasPrefix(format, "image/") {
				formats = append(formats, format)
			}
		}
		return strings.Join(formats, ",") + ",image/svg+xml,image/*,*/*;q=0.8"
	case k == pagelinks.Image && a.firefox():
		return "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
	case k == pagelinks.Font && a.firefox():
		return "application/font-woff2;q=1.0,application/font-woff;q=0.9,*/*;q=0.8"
	default:
		return "*/*"
	}
}
