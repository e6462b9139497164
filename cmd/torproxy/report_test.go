package main

import (
	"bytes"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"testing"

	"torproxy/proxy/frontdoor"
)

// told is what a person is told by a whole run, with every kind of report.
func told(o *output) {
	r := o.reporter()
	r.warning("it is a trial")
	r.bootstrap(10, "asking")
	r.bootstrap(100, "ready")
	r.ready(addresses{socks: "0.0.0.0:9050", http: "[::]:8118"})
	r.link(frontdoor.Link{ID: "7", URL: "http://xn--bcher-kva.test:81/a?b", Host: "xn--bcher-kva.test:81", From: "a.test:80"})
	r.bootstrap(10, "asking again")
	r.bootstrap(100, "ready")
	r.failed(&failure{code: codeFailed, what: "it broke", cause: "it was old", advice: "buy another"})
	r.stopped()
}

const readyText = `
torproxy is ready.

  SOCKS5     0.0.0.0:9050
  HTTP       [::]:8118
  console    http://127.0.0.1:8118/

Try it:

  curl --socks5-hostname 127.0.0.1:9050 http://example.com/
  curl -x http://127.0.0.1:8118 http://example.com/

Ctrl-C stops it.
`

const asks = "a reply of a.test:80 asks to open this link:\n  http://%s/a?b\n  answer at http://127.0.0.1:8118/\n"

func TestReports(t *testing.T) {
	const failed = "error: it broke\ncause: it was old\nto do: buy another\n"
	for _, c := range []struct {
		name                  string
		quiet, json, terminal bool
		stdout, stderr        string
	}{
		{
			name: "in a file", stdout: readyText,
			stderr: "warning: it is a trial\n 10%  asking\n100%  ready\n" + fmt.Sprintf(asks, "xn--bcher-kva.test:81") + " 10%  asking again\n100%  ready\n" + failed + "torproxy has stopped\n",
		},
		{name: "quiet", quiet: true, stderr: failed},
		{
			name: "terminal", terminal: true, stdout: strings.Replace(readyText, "torproxy is ready.", bold+"torproxy is ready."+plain, 1),
			stderr: yellow + "warning:" + plain + " it is a trial\n" +
				eraseLine + " 10%  asking" + eraseLine + fmt.Sprintf(asks, bold+"xn--bcher-kva.test:81"+plain) + eraseLine + " 10%  asking again" + eraseLine + "ready again\n" +
				eraseLine + red + "error:" + plain + strings.TrimPrefix(failed, "error:") + eraseLine + "torproxy has stopped\n",
		},
		{
			name: "json", json: true, stderr: failed,
			stdout: `{"event":"warning","message":"it is a trial"}
{"event":"bootstrap","percent":10,"summary":"asking"}
{"event":"bootstrap","percent":100,"summary":"ready"}
{"event":"ready","socks":"0.0.0.0:9050","http":"[::]:8118"}
{"event":"link","id":"7","url":"http://xn--bcher-kva.test:81/a?b","host":"xn--bcher-kva.test:81","from":"a.test:80"}
{"event":"bootstrap","percent":10,"summary":"asking again"}
{"event":"bootstrap","percent":100,"summary":"ready"}
{"event":"error","code":"failed","message":"it broke; it was old; buy another"}
{"event":"stopped"}
`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			o := &output{json: c.json, quiet: c.quiet}
			o.stdout = &screen{w: &stdout, fd: -1, terminal: c.terminal, colours: c.terminal}
			o.stderr = &screen{w: &stderr, fd: -1, terminal: c.terminal, colours: c.terminal}
			told(o)
			if stdout.String() != c.stdout {
				t.Errorf("stdout is\n%q, want\n%q", &stdout, c.stdout)
			}
			if stderr.String() != c.stderr {
				t.Errorf("stderr is\n%q, want\n%q", &stderr, c.stderr)
			}
		})
	}
}

// TestLogBesideProgress: a log line goes above the line that is rewritten.
func TestLogBesideProgress(t *testing.T) {
	var stderr bytes.Buffer
	s := &screen{w: &stderr, fd: -1, terminal: true}
	s.rewrite("10%")
	s.Write([]byte("news\n"))
	if want := eraseLine + "10%" + eraseLine + "news\n" + "10%"; stderr.String() != want {
		t.Errorf("got %q, want %q", &stderr, want)
	}
}

// TestNoColour: what is no terminal gets no colour.
func TestNoColour(t *testing.T) {
	if s := newScreen(new(bytes.Buffer)); s.terminal || s.colours || s.paint(red, "x") != "x" {
		t.Errorf("a buffer is a terminal: %+v", s)
	}
}

func TestLogLevels(t *testing.T) {
	for _, c := range []struct {
		name                    string
		output                  *output
		starting, later, embeds slog.Level // the least that is logged: at the start, when ready, by the network
	}{
		{"plain", &output{}, slog.LevelError, slog.LevelWarn, slog.LevelError},
		{"-q", &output{quiet: true}, slog.LevelError, slog.LevelError, slog.LevelError},
		{"-v", &output{verbose: 1}, slog.LevelInfo, slog.LevelInfo, slog.LevelInfo},
		{"-vv", &output{verbose: 2}, slog.LevelDebug, slog.LevelDebug, slog.LevelDebug},
	} {
		t.Run(c.name, func(t *testing.T) {
			said := new(bytes.Buffer)
			c.output.stderr = newScreen(said)
			client, network := c.output.log()
			least := func(l *slog.Logger) slog.Level {
				for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
					if l.Enabled(t.Context(), level) {
						return level
					}
				}
				return slog.LevelError
			}
			starting := least(client)
			c.output.attend()
			if later, embeds := least(client), least(network); starting != c.starting || later != c.later || embeds != c.embeds {
				t.Errorf("got %v, %v, %v", starting, later, embeds)
			}
			log.Print("from a library")
			if shown := strings.Contains(said.String(), "from a library"); shown != (c.later == slog.LevelDebug) {
				t.Errorf("what libraries print is shown: %v", shown)
			}
		})
	}
}
