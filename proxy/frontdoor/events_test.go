package frontdoor

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
)

// told reads one event: its name and data, on one line. Comments are left out.
func readEvent(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	var lines []string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("the events end: %v", err)
		}
		switch line = strings.TrimSuffix(line, "\n"); {
		case strings.HasPrefix(line, ":"):
		case line != "":
			lines = append(lines, line)
		case len(lines) > 0:
			return strings.Join(lines, " ")
		}
	}
}

// listen opens /api/events in a bubble.
func listenEvents(t *testing.T, p *pipes) (*bufio.Reader, func()) {
	t.Helper()
	in, c := p.dial("GET /api/events HTTP/1.1\nHost: localhost:8118\n\n")
	r, err := http.ReadResponse(in, nil)
	if err != nil || r.StatusCode != 200 || r.Header.Get("Content-Type") != "text/event-stream" || r.Header.Get("Cache-Control") != "no-store" {
		t.Fatal(r, err)
	}
	return bufio.NewReader(r.Body), func() { c.Close() }
}

func wantEvents(t *testing.T, in *bufio.Reader, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := readEvent(t, in); got != "event: "+strings.Replace(w, " ", " data: ", 1) {
			t.Errorf("event\n%s\nwant\n%s", got, w)
		}
	}
}

func TestEvents(t *testing.T) {
	serveInBubble(t, Config{Dial: noDial, ParseLink: parseAny}, func(t *testing.T, p *pipes, server *Server, stop func() time.Duration) {
		backend := server.cfg.Backend.(*client)
		in, hangUp := listenEvents(t, p)
		wantEvents(t, in, `start {}`, `bootstrap {"percent":100,"summary":"ready"}`,
			`consensus {"name":"","embedded":false,"relays":0,"exits":0,"authorities":0,"valid_after":null,"fresh_until":null,"valid_until":null}`,
			`traffic {"bytes_in":0,"bytes_out":0}`)

		<-time.After(3 * changeInterval / 2)
		before := time.Now()
		circuit := Circuit{ID: "7", State: Ready, Streams: []Stream{{ID: "1", Target: "a.test:80"}}}
		backend.change(func(c *client) {
			c.status.Bootstrap.Percent = 75
			c.circuits = []Circuit{circuit}
		})
		wantEvents(t, in, `bootstrap {"percent":75,"summary":"ready"}`,
			`circuit {"id":"7","state":"ready","hops":[],"streams":[{"id":"1","target":"a.test:80","isolation":"","opened_ms":0}],"built_ms":0,"age_s":0,"bytes_in":0,"bytes_out":0}`,
			`stream {"id":"1","target":"a.test:80","isolation":"","opened_ms":0,"circuit":"7","state":"open"}`)
		if d := time.Since(before); d != 0 {
			t.Errorf("a change after a quiet time is told after %v", d)
		}

		server.links.ask("http://b.test/", "a.test:80")
		if e := readEvent(t, in); !strings.HasPrefix(e, `event: link data: {"id":"1","url":"http://b.test/","host":"b.test","from":"a.test:80","asked":"`) || !strings.HasSuffix(e, `","state":"waiting","error":""}`) {
			t.Errorf("%s", e)
		}
		if d := time.Since(before); d != changeInterval {
			t.Errorf("the next one after %v", d)
		}
		server.links.renew()
		if e := readEvent(t, in); !strings.Contains(e, `"state":"gone"`) {
			t.Errorf("%s", e)
		}

		backend.change(func(c *client) { c.circuits = nil })
		wantEvents(t, in, `circuit {"id":"7","state":"closed","hops":[],"streams":[],"built_ms":0,"age_s":0,"bytes_in":0,"bytes_out":0}`,
			`stream {"id":"1","target":"a.test:80","isolation":"","opened_ms":0,"circuit":"7","state":"closed"}`)
		hangUp()
		stop()
	})
}

// Bytes, relays and the consensus are told once a second, without anybody saying that they have changed, and
// only if they have.
func TestEventsEverySecond(t *testing.T) {
	serveInBubble(t, Config{Dial: noDial}, func(t *testing.T, p *pipes, server *Server, stop func() time.Duration) {
		backend := server.cfg.Backend.(*client)
		backend.circuits = []Circuit{{ID: "7"}}
		id := wire.ID{1}
		backend.relays = []Relay{{ID: id, Running: true}}
		in, hangUp := listenEvents(t, p)
		for range 6 { // start, bootstrap, consensus, relay, circuit, traffic
			readEvent(t, in)
		}
		quietly := func(set func(c *client)) {
			backend.mu.Lock()
			defer backend.mu.Unlock()
			set(backend)
		}
		before := time.Now()
		quietly(func(c *client) {
			c.circuits = []Circuit{{ID: "7", AgeS: 1, BytesIn: 5}}
			c.relays = []Relay{{ID: id, Running: false}}
			c.traffic.BytesIn = 5
			c.status.Network.Relays = 1
		})
		var names []string
		for range 4 {
			names = append(names, strings.Fields(readEvent(t, in))[1])
		}
		if want := []string{"consensus", "relay", "circuit", "traffic"}; !slices.Equal(names, want) {
			t.Errorf("events %q, want %q", names, want)
		}
		if d := time.Since(before); d > trafficInterval {
			t.Errorf("told after %v", d)
		}
		quietly(func(c *client) { c.circuits, c.relays = []Circuit{{ID: "7", AgeS: 60, BytesIn: 5}}, nil })
		if e := readEvent(t, in); e != `event: relay data: {"id":"`+id.String()+`","gone":true}` {
			t.Errorf("%s", e)
		}
		before = time.Now()
		if line, err := in.ReadString('\n'); line != ":\n" || err != nil {
			t.Errorf("in quiet times: %q, %v", line, err)
		}
		if d := time.Since(before); d < aliveInterval-trafficInterval || d > aliveInterval+trafficInterval {
			t.Errorf("the sign of life came after %v", d)
		}
		hangUp()
		stop()
	})
}

// Changes without end are told ten times a second, each time the newest.
func TestEventsAreCoalesced(t *testing.T) {
	serveInBubble(t, Config{Dial: noDial}, func(t *testing.T, p *pipes, server *Server, stop func() time.Duration) {
		backend := server.cfg.Backend.(*client)
		in, hangUp := listenEvents(t, p)
		for range 4 {
			readEvent(t, in)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				backend.change(func(c *client) { c.status.Bootstrap.Percent++ })
				<-time.After(time.Millisecond)
			}
		}()
		before := time.Now()
		var told []int
		for time.Since(before) < time.Second {
			_, data, _ := strings.Cut(readEvent(t, in), "data: ")
			var b Bootstrap
			json.Unmarshal([]byte(data), &b)
			told = append(told, b.Percent)
		}
		if len(told) < 9 || len(told) > 11 || told[len(told)-1] < 900 {
			t.Errorf("told %v", told)
		}
		cancel()
		<-done
		hangUp()
		stop()
	})
}

// A reader that does not read is cut off, one too many is refused, and Serve waits for none.
func TestEventReadersAreBounded(t *testing.T) {
	inVirtualTime(t, Config{Dial: noDial}, func(t *testing.T, p *pipes, stop func() time.Duration) {
		var ends []func()
		for range maxWatchers {
			_, hangUp := listenEvents(t, p)
			ends = append(ends, hangUp)
		}
		one := func() int {
			in, c := p.dial("GET /api/events HTTP/1.1\nHost: localhost:8118\n\n")
			defer c.Close()
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			return r.StatusCode
		}
		if status := one(); status != http.StatusServiceUnavailable {
			t.Errorf("one too many: %d", status)
		}
		<-time.After(eventTimeout + time.Second)
		synctest.Wait()
		if status := one(); status != http.StatusOK {
			t.Errorf("after those that do not read were cut off: %d", status)
		}
		for _, end := range ends {
			end()
		}
		_, hangUp := listenEvents(t, p)
		if d := stop(); d > time.Second {
			t.Errorf("Serve took %v to return", d)
		}
		hangUp()
	})
}
