package relay

import (
	"io"
	"net/http"
	"strings"

	"torproxy/wire"
)

// switchProtocols makes the stream a byte pipe after 101 (RFC 9110, section 15.2.2): to WebSocket, for that
// is the only protocol that a request may ask for.
func (x *exchange) switchProtocols(resp *http.Response) wire.Reason {
	conn := x.conn.Load()
	if conn == nil || !x.req.upgrade || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		resp.Body.Close()
		return wire.ReasonReset
	}
	conn.pipe()
	whole := &upgraded{webConn: conn, body: resp.Body}
	defer whole.Close()
	strip(resp.Header)
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	x.stream.Connect()
	if _, err := x.stream.Write(appendHead(nil, resp.StatusCode, resp.Status, resp.Header)); err != nil {
		return wire.ReasonReset
	}
	p := &pipe{st: x.stream, in: x.in}
	x.stream.OnDone(p.clientGone)
	x.hop.relay.carry(p, whole)
	return 0
}

// upgraded is a connection some of whose bytes net/http has read already.
type upgraded struct {
	*webConn
	body io.Reader
}

func (u *upgraded) Read(p []byte) (int, error) { return u.body.Read(p) }
