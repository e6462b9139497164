package frontdoor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"torproxy/wire"
)

// requestOn is a request for / that came on a connection to local.
func requestOn(t *testing.T, local net.Addr, host string) *http.Request {
	r := httptest.NewRequestWithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, local), "GET", "/", nil)
	r.Host = host
	return r
}

// filled sets something in every field.
func filled(c *client) {
	at := time.Date(2026, 3, 1, 13, 0, 0, 5e6, time.FixedZone("CET", 3600))
	c.status = Status{
		Version: "1.2", PID: 42, Hops: 5, Bootstrap: Bootstrap{100, "ready"}, SOCKS: "127.0.0.1:9050", HTTP: c.status.HTTP,
		Network: Network{"test", true, 12, 4, 4, Time{at}, Time{at.Add(time.Second)}, Time{}},
	}
	id := wire.ID{0xab, 1}
	c.circuits = []Circuit{
		{
			ID: "7", State: Ready, Hops: []Hop{{id, "guard", "127.0.0.1:1"}, {wire.ID{2}, "exit", "[::1]:2"}},
			Streams: []Stream{{"5", "example.com:80", "3f", 12}}, BuiltMS: 34, AgeS: 5, BytesIn: 2048, BytesOut: 7,
		},
		{ID: "8", State: Building},
	}
	c.why = []Why{{"a.test:80", "3f", Time{at}, 80, "failed", "no such name", []string{"guard", "exit"}, []Step{{"open", "7", 3, "exit", 70, "DNS failure"}}}, {}}
	c.relays = []Relay{{id, "guard", "127.0.0.1:1", []string{"Exit", "Fast"}, 1 << 20, true}, {ID: wire.ID{2}}}
}

// The contract, byte for byte: users' scripts read this.
func TestJSON(t *testing.T) {
	f := start(t)
	f.client.change(filled)
	const ab, zz = "ab01000000000000000000000000000000000000000000000000000000000000", "0200000000000000000000000000000000000000000000000000000000000000"
	for path, want := range map[string]string{
		"/api/status": `{"version":"1.2","pid":42,"hops":5,"bootstrap":{"percent":100,"summary":"ready"},"socks":"127.0.0.1:9050","http":"` + f.addr + `",
			"network":{"name":"test","embedded":true,"relays":12,"exits":4,"authorities":4,
			"valid_after":"2026-03-01T12:00:00.005Z","fresh_until":"2026-03-01T12:00:01.005Z","valid_until":null}}`,
		"/api/circuits": `[{"id":"7","state":"ready","hops":[{"id":"` + ab + `","nickname":"guard","address":"127.0.0.1:1"},{"id":"` + zz + `","nickname":"exit","address":"[::1]:2"}],
			"streams":[{"id":"5","target":"example.com:80","isolation":"3f","opened_ms":12}],"built_ms":34,"age_s":5,"bytes_in":2048,"bytes_out":7},
			{"id":"8","state":"building","hops":[],"streams":[],"built_ms":0,"age_s":0,"bytes_in":0,"bytes_out":0}]`,
		"/api/why?host=a.test": `[{"target":"a.test:80","isolation":"3f","began":"2026-03-01T12:00:00.005Z","took_ms":80,"outcome":"failed","error":"no such name",
			"path":["guard","exit"],"steps":[{"what":"open","circuit":"7","hop":3,"relay":"exit","took_ms":70,"result":"DNS failure"}]},
			{"target":"","isolation":"","began":null,"took_ms":0,"outcome":"","error":"","path":[],"steps":[]}]`,
		"/api/relays": `[{"id":"` + ab + `","nickname":"guard","address":"127.0.0.1:1","flags":["Exit","Fast"],"weight":1048576,"running":true},
			{"id":"` + zz + `","nickname":"","address":"","flags":[],"weight":0,"running":false}]`,
	} {
		r, body := f.do("GET " + path + " HTTP/1.1\nHost: SELF\n\n")
		var compact bytes.Buffer
		json.Compact(&compact, []byte(want))
		if body != compact.String()+"\n" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v\n%s\nwant\n%s", path, r.Header, body, compact.String())
		}
		if r, body := f.do("HEAD " + path + " HTTP/1.1\nHost: SELF\n\n"); r.StatusCode != 200 || body != "" {
			t.Errorf("HEAD %s: %s %q", path, r.Status, body)
		}
	}
	f.client.change(func(c *client) { c.circuits, c.relays, c.why = nil, nil, nil })
	for _, path := range []string{"/api/circuits", "/api/relays", "/api/why", "/api/links"} {
		if _, body := f.do("GET " + path + " HTTP/1.1\nHost: SELF\n\n"); body != "[]\n" {
			t.Errorf("%s with nothing: %q", path, body)
		}
	}
}

func TestJSONReadsBack(t *testing.T) {
	c := readyClient()
	filled(c)
	for _, v := range []any{c.status, c.circuits, c.relays} {
		first, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var again any
		switch v.(type) {
		case Status:
			again = new(Status)
		case []Circuit:
			again = new([]Circuit)
		case []Relay:
			again = new([]Relay)
		}
		if err := json.Unmarshal(first, again); err != nil {
			t.Fatal(err)
		}
		if second, _ := json.Marshal(again); !bytes.Equal(first, second) {
			t.Errorf("%s\nread back as\n%s", first, second)
		}
	}
}

func TestRoutes(t *testing.T) {
	f := start(t)
	f.client.change(filled)
	for request, want := range map[string]struct {
		status int
		allow  string
	}{
		"GET /":                         {200, ""},
		"GET /?x=;":                     {200, ""},
		"GET /api/status?pretty":        {200, ""},
		"POST /api/newnym":              {200, ""},
		"DELETE /api/circuits/7":        {200, ""},
		"DELETE /api/circuits/nope":     {404, ""},
		"DELETE /api/circuits/":         {404, ""},
		"DELETE /api/circuits/7/8":      {404, ""},
		"DELETE /api/circuits/%37":      {200, ""},
		"GET /index.html":               {404, ""},
		"GET /api":                      {404, ""},
		"GET /api/":                     {404, ""},
		"GET /api/status/":              {404, ""},
		"GET //api/status":              {404, ""},
		"GET /x/../api/status":          {404, ""},
		"GET /API/status":               {404, ""},
		"GET //evil.test/":              {404, ""},
		"POST /":                        {405, "GET, HEAD"},
		"POST /proxy.pac":               {405, "GET, HEAD"},
		"PUT /api/status":               {405, "GET, HEAD"},
		"OPTIONS /api/status":           {405, "GET, HEAD"},
		"TRACE /api/relays":             {405, "GET, HEAD, POST"},
		"GET /api/why":                  {200, ""},
		"POST /api/why":                 {405, "GET, HEAD"},
		"GET /api/links":                {200, ""},
		"GET /api/links/1":              {405, "POST"},
		"POST /api/links/1":             {400, ""},
		"POST /api/links/":              {404, ""},
		"POST /api/links/1/2":           {404, ""},
		"HEAD /api/events":              {200, ""},
		"POST /api/events":              {405, "GET, HEAD"},
		"GET /metrics":                  {404, ""},
		"GET /api/relays/x/stop":        {405, "POST"},
		"POST /api/relays/x":            {404, ""},
		"POST /api/relays/x/destroy":    {404, ""},
		"POST /api/relays//stop":        {404, ""},
		"POST /api/relays/x/stop/now":   {404, ""},
		"DELETE /api/circuits":          {405, "GET, HEAD"},
		"GET /api/newnym":               {405, "POST"},
		"HEAD /api/newnym":              {405, "POST"},
		"GET /api/circuits/7":           {405, "DELETE"},
		"POST /api/circuits/7":          {405, "DELETE"},
		"connect /":                     {405, "GET, HEAD"},
		"OPTIONS *":                     {404, ""},
		"GET /api/circuits/..%2f":       {404, ""},
		"POST /api/newnym?identity=new": {200, ""},
	} {
		r, body := f.do(request + " HTTP/1.1\nHost: SELF\n\n")
		if r.StatusCode != want.status || r.Header.Get("Allow") != want.allow {
			t.Errorf("%s: %s, Allow %q, %q", request, r.Status, r.Header.Get("Allow"), body)
		}
		if r.StatusCode >= 400 && strings.Contains(request, " /api/") {
			var said struct{ Error string }
			if err := json.Unmarshal([]byte(body), &said); err != nil && body != "" || said.Error == "" && body != "" {
				t.Errorf("%s says %q, which is not {\"error\": ...}", request, body)
			}
		}
	}
	if n := f.client.newIdentities(); n != 2 {
		t.Errorf("%d new identities", n)
	}
	if want := []string{"7", "7", "nope"}; !slices.Equal(slices.Sorted(slices.Values(f.client.closedCircuits())), want) {
		t.Errorf("closed %q", f.client.closedCircuits())
	}
}

// The embedded network's relays: what is asked for arrives, and every refusal has its status and sentence.
func TestSteerRelays(t *testing.T) {
	f := start(t)
	id := strings.Repeat("ab", 32)
	requests := []string{"POST /api/relays", "POST /api/relays/" + id + "/stop", "POST /api/relays/" + id + "/start"}
	for _, request := range requests {
		r, body := f.do(request + " HTTP/1.1\nHost: SELF\n\n")
		if r.StatusCode/100 != 2 || !strings.HasPrefix(body, `{"id":"ee00`) && body != "{\"done\":true}\n" {
			t.Errorf("%s: %s %q", request, r.Status, body)
		}
	}
	for _, bad := range []string{"zz", id[:62], id + "ab", strings.ToUpper(id)} {
		r, _ := f.do("POST /api/relays/" + bad + "/stop HTTP/1.1\nHost: SELF\n\n")
		wantStatus(t, r, 404)
	}
	if got, want := f.client.wasAsked(), []string{"add", "stop abababab", "start abababab"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
	for err, status := range map[error]int{
		ErrNotEmbedded: 404, fmt.Errorf("x: %w", ErrNoRelay): 404, ErrTooMany: 409, errors.New("no\nport"): 500,
	} {
		f.client.change(func(c *client) { c.fails = err })
		for _, request := range requests {
			r, body := f.do(request + " HTTP/1.1\nHost: SELF\n\n")
			var said struct{ Error string }
			if json.Unmarshal([]byte(body), &said); r.StatusCode != status || said.Error != plain(err.Error()) {
				t.Errorf("%v: %s: %s %q", err, request, r.Status, body)
			}
		}
	}
}

func TestWhyAsksForTheHost(t *testing.T) {
	f := start(t)
	for query, want := range map[string]string{"": "why ", "?host=": "why ", "?host=a.test": "why a.test", "?host=%5B%3A%3A1%5D": "why [::1]"} {
		f.client.change(func(c *client) { c.asked = nil })
		f.do("GET /api/why" + query + " HTTP/1.1\nHost: SELF\n\n")
		if got := f.client.wasAsked(); !slices.Equal(got, []string{want}) {
			t.Errorf("%q asks for %q", query, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "torproxy_up 1\n") })
	})
	if _, body := f.do("GET /metrics HTTP/1.1\nHost: SELF\n\n"); body != "torproxy_up 1\n" {
		t.Errorf("%q", body)
	}
	r, _ := f.do("GET /metrics HTTP/1.1\nHost: evil.test\n\n")
	wantStatus(t, r, http.StatusMisdirectedRequest)
}

func TestPAC(t *testing.T) {
	f := start(t)
	for socks, want := range map[string]string{
		"127.0.0.1:9050": `return "PROXY ` + f.addr + `; SOCKS5 127.0.0.1:9050";`,
		"[::1]:9050":     `return "PROXY ` + f.addr + `; SOCKS5 [::1]:9050";`,
		"0.0.0.0:9050":   `return "PROXY ` + f.addr + `; SOCKS5 127.0.0.1:9050";`,
		"unix:/run/s":    `return "PROXY ` + f.addr + `";`,
		`"; evil("`:      `return "PROXY ` + f.addr + `; SOCKS5 \"; evil(\"";`,
	} {
		f.client.change(func(c *client) { c.status.SOCKS = socks })
		r, body := f.do("GET /proxy.pac HTTP/1.1\nHost: SELF\n\n")
		if want := "function FindProxyForURL(url, host) {\n  " + want + "\n}\n"; body != want {
			t.Errorf("%s\nwant\n%s", body, want)
		}
		if got := r.Header.Get("Content-Type"); got != "application/x-ns-proxy-autoconfig" {
			t.Errorf("Content-Type %q", got)
		}
	}
}

func TestPage(t *testing.T) {
	f := start(t)
	f.client.change(filled)
	f.client.change(func(c *client) { c.status.Network.Name = "<b>" })
	r, body := f.do("GET / HTTP/1.1\nHost: SELF\n\n")
	if got := r.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
	for _, want := range []string{
		"ready", "curl -x http://" + f.addr + " http://example.com/", "curl -x socks5h://127.0.0.1:9050 https://example.com/",
		"no anonymity", "&lt;b&gt;", "Add a relay", `data-embedded="true"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// The policy allows neither scripts nor styles in the page itself, nor anything of elsewhere.
	for _, never := range []string{"<style", "style=", "<script>", "onload", "onclick", "http-equiv", "ZgotmplZ", `src="http`, `href="http`} {
		if strings.Contains(body, never) {
			t.Errorf("the page has %q", never)
		}
	}
	f.client.change(func(c *client) {
		c.status = Status{Hops: 1, SOCKS: "unix:/run/s", HTTP: "0.0.0.0:" + f.port(), Bootstrap: Bootstrap{40, "asking the authorities"}}
	})
	_, body = f.do("GET / HTTP/1.1\nHost: SELF\n\n")
	for _, want := range []string{"starting, 40 %", "asking the authorities", "one relay sees", "socks5h://localhost/run/s", f.addr} {
		if !strings.Contains(body, want) {
			t.Errorf("the starting page lacks %q", want)
		}
	}
	for _, never := range []string{"Add a relay", "no anonymity"} {
		if strings.Contains(body, never) {
			t.Errorf("the page of another network has %q", never)
		}
	}
}

// What the page says of browsers that are set up by hand is what CLIENT.md says, word for word.
func TestPageSaysWhatTheGuideSays(t *testing.T) {
	guide, err := os.ReadFile("../../cmd/torproxy/CLIENT.md")
	if err != nil {
		t.Fatal(err)
	}
	f := start(t)
	_, body := f.do("GET / HTTP/1.1\nHost: SELF\n\n")
	page := strings.Join(strings.Fields(html.UnescapeString(body)), " ")
	said := 0
	for line := range strings.Lines(strings.ReplaceAll(string(guide), "127.0.0.1:8118", f.addr)) {
		pieces := strings.Split(strings.TrimSpace(line), "        ")
		if strings.HasPrefix(line, "    chromium ") {
			pieces = strings.Split(strings.TrimSpace(line), " --")
		} else if !strings.HasPrefix(line, "    network.") && !strings.HasPrefix(line, "    media.") {
			continue
		}
		for _, piece := range pieces {
			if said++; !strings.Contains(page, piece) {
				t.Errorf("the page lacks %q", piece)
			}
		}
	}
	if said < 15 {
		t.Errorf("CLIENT.md says %d things only", said)
	}
}

// Every file that the page asks for is there, with its type, and what they import is, too.
func TestPageFiles(t *testing.T) {
	f := start(t)
	_, page := f.do("GET / HTTP/1.1\nHost: SELF\n\n")
	for path, kind := range pageTypes {
		r, body := f.do("GET " + path + " HTTP/1.1\nHost: SELF\n\n")
		if r.StatusCode != 200 || r.Header.Get("Content-Type") != kind || body == "" {
			t.Errorf("%s: %s, %q, %d bytes", path, r.Status, r.Header.Get("Content-Type"), len(body))
		}
		if r.Header.Get("Content-Security-Policy") != contentPolicy {
			t.Errorf("%s lacks the policy", path)
		}
		page += body
	}
	for path := range pageTypes {
		if !strings.Contains(page, `"`+path+`"`) {
			t.Errorf("nothing asks for %s", path)
		}
	}
}
