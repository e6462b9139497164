package relay

import (
	"maps"
	"net"
	"net/http"
	"testing"
	"time"

	"torproxy/wire"
)

// TestStats does one of each and checks every count of both relays.
func TestStats(t *testing.T) {
	configure := func(i int, c *Config) {
		exitTo(t, func(_ *destination, there net.Conn) { go answerOnce(there) })(i, c)
		c.Resolver = book
		if i == 2 {
			c.Nickname = "unlisted"
		}
	}
	onBed(t, 3, configure, func(b *bed) {
		first, last := b.relays[0], b.relays[1]
		s := b.session(0, 1)
		b.begin(s).Close()
		for _, ask := range []struct {
			kind   wire.Kind
			target string
			reason wire.Reason
		}{
			{wire.KindTCP, "10.0.0.1:80", wire.ReasonPolicy},
			{wire.KindTCP, "missing.test:80", wire.ReasonDNS},
			{wire.KindResolve, "private.test", wire.ReasonPolicy},
			{wire.KindDirectory, "x", wire.ReasonUnsupported},
			{77, "x", wire.ReasonUnsupported},
			{wire.KindEcho, wire.EchoTarget, wire.ReasonUnsupported},
		} {
			_, err := b.ask(s, ask.kind, ask.target)
			wantEnd(t, ask.target, err, ask.reason)
		}
		if resp, _ := b.get(s, "public.test:80", "/", "").page("GET"); resp.StatusCode != http.StatusNoContent {
			t.Errorf("got %s", resp.Status)
		}
		if st, err := b.ask(s, wire.KindResolve, "public.test"); err != nil {
			t.Error(err)
		} else {
			st.Close()
		}
		packet, _ := b.create(0, 1)
		packet[100] ^= 1
		_, _, err := b.send(0, packet)
		wantReset(t, err, wire.ResetCreate)
		packet, _ = b.create(0, 2)
		if _, _, err := b.send(0, packet); err != nil {
			t.Error(err)
		}
		<-time.After(time.Second)
		check := func(what string, same bool, got any) {
			t.Helper()
			if !same {
				t.Errorf("%s: %v", what, got)
			}
		}
		f, l := first.Stats(), last.Stats()
		check("first, answered", maps.Equal(f.Answered, map[wire.Status]uint64{wire.StatusForwarded: 1, wire.StatusUnknownNext: 1}), f.Answered)
		check("first, reset", maps.Equal(f.Reset, map[wire.ResetCode]uint64{wire.ResetCreate: 1}), f.Reset)
		check("first, streams and dials", len(f.Streams) == 0 && len(f.Dials) == 0, f)
		check("last, answered", maps.Equal(l.Answered, map[wire.Status]uint64{wire.StatusReady: 1}), l.Answered)
		check("last, reset", len(l.Reset) == 0, l.Reset)
		check("last, streams", maps.Equal(l.Streams, map[StreamCount]uint64{
			{wire.KindTCP, 0}: 1, {wire.KindTCP, wire.ReasonPolicy}: 1, {wire.KindTCP, wire.ReasonDNS}: 1,
			{wire.KindHTTP, 0}: 1, {wire.KindResolve, 0}: 1, {wire.KindResolve, wire.ReasonPolicy}: 1,
			{wire.KindDirectory, wire.ReasonUnsupported}: 1, {0, wire.ReasonUnsupported}: 1, {wire.KindEcho, wire.ReasonUnsupported}: 1,
		}), l.Streams)
		check("last, dials", maps.Equal(l.Dials, map[wire.Reason]uint64{0: 2, wire.ReasonPolicy: 1, wire.ReasonDNS: 1}), l.Dials)
		check("cells", f.CellsOutward > 9 && f.CellsOutward == l.CellsOutward && f.CellsInward > 9 && f.CellsInward == l.CellsInward, [][2]uint64{
			{f.CellsOutward, f.CellsInward}, {l.CellsOutward, l.CellsInward},
		})
		check("now", l.Now.Circuits == 1 && l.Now.Connections == 0 && l.Now.Lookups == 0 && l.Now.Unread == 0, l.Now)
	})
}
