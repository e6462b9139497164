package frontdoor

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// GET /api/events is a stream of server-sent events (WHATWG HTML section 9.2). It tells how one picture of
// the client differs from the one before; nothing is queued, so a reader that is slow gets coarser steps, and
// one that does not read at all is cut off.
//
//	start      {}           what was told before is void; the whole state follows
//	bootstrap  Bootstrap
//	consensus  Network
//	relay      Relay        of one that is no longer listed: {"id":...,"gone":true}
//	circuit    Circuit      of one that has ended: its last picture, with "state":"closed" and no streams
//	stream     Stream, and "circuit": its ID, "state": "open" or "closed"
//	link       Link         of one that is no longer listed: its last picture, with "state":"gone"
//	traffic    Traffic
const (
	changeInterval  = 100 * time.Millisecond // between two pictures: ten a second look smooth
	trafficInterval = time.Second            // between two that also compare byte counts, relays and the consensus
	maxWatchers     = 16                     // readers at once; each costs a comparison per picture. Beyond: 503
	eventTimeout    = 10 * time.Second       // for a reader to take what is written
	aliveInterval   = 15 * time.Second       // a comment when nothing else was sent, so that both ends notice the other's death
)

// event is one server-sent event.
type event struct {
	name string
	data any
}

// events serves GET /api/events until the client goes or Serve ends.
func (d *door) events(w http.ResponseWriter, r *http.Request) {
	defer d.watchers.Add(-1)
	if d.watchers.Add(1) > maxWatchers {
		writeError(w, r, http.StatusServiceUnavailable, "too many readers of events; close another page of the console")
		return
	}
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	send := func(list []event) error {
		c.SetWriteDeadline(time.Now().Add(eventTimeout))
		if _, err := w.Write(eventText(list)); err != nil {
			return err
		}
		return c.Flush()
	}
	if send([]event{{"start", struct{}{}}}) == nil {
		d.watch(r.Context(), send)
	}
}

// eventText is the stream's form of a list of events; of none it is a comment.
func eventText(list []event) []byte {
	var b bytes.Buffer
	if len(list) == 0 {
		b.WriteString(":\n\n")
	}
	for _, e := range list {
		data, err := json.Marshal(e.data) // one line: JSON escapes line ends
		if err != nil {
			continue
		}
		b.WriteString("event: " + e.name + "\ndata: ")
		b.Write(data)
		b.WriteString("\n\n")
	}
	return b.Bytes()
}

// watch sends every change until ctx ends or a send fails.
func (d *door) watch(ctx context.Context, send func([]event) error) {
	second := time.NewTicker(trafficInterval)
	defer second.Stop()
	seen := newPicture()
	quiet := time.Now()
	whole := true // this picture shows what changes slowly, too
	for {
		changed, asked := d.Backend.Changed(), d.links.watch()
		list := seen.update(d, whole)
		if len(list) > 0 || time.Since(quiet) >= aliveInterval {
			quiet = time.Now()
			if send(list) != nil {
				return
			}
		}
		if whole = d.await(ctx, second.C, changed, asked); ctx.Err() != nil {
			return
		}
	}
}

// await waits until another picture is due, and reports whether that is a whole one.
func (d *door) await(ctx context.Context, second <-chan time.Time, changed, asked <-chan struct{}) (whole bool) {
	pause := time.NewTimer(changeInterval)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-pause.C:
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-asked:
	case <-second:
		return true
	}
	return false
}
