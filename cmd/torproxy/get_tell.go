package main

import (
	"context"
	"mime"
	"net/http"
	"strings"
	"time"

	"torproxy/proxy/frontdoor"
)

// tell says how the page came: its status, the circuit that carried it, and the times.
func (g *getting) tell(ctx context.Context, answer *http.Response, bytes int64) {
	if g.output.quiet {
		return
	}
	g.say("%s, %d bytes of %s", printable(answer.Status), bytes, printable(contentType(answer)))
	all, err := g.api.why(ctx, g.url.Hostname())
	if err == nil {
		if circuit, path := carrier(all, siteOf(g.url).target(), g.started); circuit != "" {
			g.say("through circuit %s: %s", printable(circuit), printable(strings.Join(append(append([]string{"this machine"}, path...), g.url.Host), ", ")))
		}
	}
	g.say("first byte after %v, all after %v", g.headed.Sub(g.began).Round(time.Millisecond), time.Since(g.began).Round(time.Millisecond))
}

// carrier finds the circuit of the newest connection to a target that began after get did, and its relays. The
// times are of one machine's clock, those of the API in milliseconds.
func carrier(all []frontdoor.Why, target string, began time.Time) (circuit string, path []string) {
	for _, w := range all {
		if w.Target != target || w.Began.Before(began.Truncate(time.Millisecond)) {
			continue
		}
		for _, s := range w.Steps {
			if s.Circuit != "" {
				circuit = s.Circuit
			}
		}
		return circuit, w.Path
	}
	return "", nil
}

// contentType is what a body is, without parameters.
func contentType(answer *http.Response) string {
	kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || kind == "" {
		return "unknown type"
	}
	return kind
}
