package frontdoor

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// connect serves CONNECT HOST:PORT (RFC 9110 section 9.3.6): dial first, so that a failure has a status,
// then take the connection over. A client that hangs up, or closes its sending side, before the answer
// gives up the dialling.
func (d *door) connect(w http.ResponseWriter, r *http.Request) {
	d.counts.tunnels.Add(1)
	t, wanted, fail := d.connectTarget(r)
	if fail != nil {
		d.refuse(w, r, fail)
		return
	}
	stream, err := d.dial(r.Context(), wanted)
	if err != nil {
		d.refuse(w, r, d.dialFailure(r, t, err))
		return
	}
	client, err := hijack(w)
	if err != nil {
		stream.Close()
		return
	}
	if err := establish(client); err != nil {
		stream.Close()
		client.Close()
		return
	}
	tunnel(r.Context(), client, stream)
}

// connectTarget judges everything about a CONNECT that can be judged before dialling.
func (d *door) connectTarget(r *http.Request) (t target, wanted Request, fail *failure) {
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		// Its bytes would be the tunnel's first ones to us, and a body to somebody who reads along.
		return t, wanted, badRequest("CONNECT with a body", errors.New("Content-Length or Transfer-Encoding stands in its head"))
	}
	t, err := parseTarget(r.RequestURI, 0)
	if err != nil {
		return t, wanted, badRequest("CONNECT wants HOST:PORT", err)
	}
	if d.ours(t) {
		return t, wanted, refuseOwn(t)
	}
	wanted.Target, wanted.Early = t.String(), d.Optimistic
	wanted.Isolation, wanted.User, fail = d.isolation(r)
	return t, wanted, fail
}

// establish tells the client that the tunnel stands.
func establish(client net.Conn) error {
	client.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return err
	}
	return client.SetDeadline(time.Time{})
}

// dial opens a stream. One that comes after ctx has ended is closed: nobody waits for it.
func (d *door) dial(ctx context.Context, wanted Request) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	stream, err := d.Dial(ctx, wanted)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		stream.Close()
		return nil, err
	}
	return stream, nil
}
