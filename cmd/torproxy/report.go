package main

import (
	"log/slog"

	"github.com/lmittmann/tint"

	"torproxy/proxy/frontdoor"
)

// reporter tells whoever started the client what happens. Its methods may be called concurrently.
type reporter interface {
	bootstrap(percent int, summary string) // 0 to 100; may go back
	warning(message string)                // one sentence
	ready(at addresses)                    // once
	link(l frontdoor.Link)                 // a reply asks to open one, which waits for an answer
	failed(f *failure)                     // at the end
	stopped()                              // at the end, after an orderly stop
}

// addresses are where the client listens: HOST:PORT really bound, or unix:/path.
type addresses struct {
	socks, http string
}

// output is where and how things are said: the streams, and the flags about them.
type output struct {
	stdout, stderr *screen
	json           bool
	verbose        int
	quiet          bool

	chosen reporter
	level  slog.LevelVar // of the client's parts
}

// reporter returns the one that the flags ask for, always the same. It is called when they are known, and
// from one goroutine.
func (o *output) reporter() reporter {
	if o.chosen == nil {
		p := &person{stdout: o.stdout, stderr: o.stderr, quiet: o.quiet}
		o.chosen = p
		if o.json {
			o.chosen = &events{w: o.stdout, person: p}
		}
	}
	return o.chosen
}

// log returns the logger of the client's parts, and that of an embedded network's. Only debug level, the
// second -v, has destinations and addresses. Without -v the network is silent unless something breaks, and
// so are the client's parts until attend: what they miss at the start is what bootstrap tells.
func (o *output) log() (client, network *slog.Logger) {
	level := slog.LevelError
	switch o.verbose {
	case 0:
	case 1:
		level = slog.LevelInfo
	default:
		level = slog.LevelDebug
	}
	o.level.Set(level)
	return o.forLibraries(o.logger(&o.level)), o.logger(level)
}

// forLibraries makes l also the logger of what libraries print with package log, at debug level: net/http
// prints there what a destination has sent unasked.
func (o *output) forLibraries(l *slog.Logger) *slog.Logger {
	slog.SetLogLoggerLevel(slog.LevelDebug)
	slog.SetDefault(l)
	return l
}

// attend lets warnings of the client's parts be logged too.
func (o *output) attend() {
	if o.verbose == 0 && !o.quiet {
		o.level.Set(slog.LevelWarn)
	}
}

// roleLog returns the logger of a relay or an authority, whose log is what it has to say: changes, and
// with -v every step.
func (o *output) roleLog() *slog.Logger {
	level := slog.LevelInfo
	switch {
	case o.quiet:
		level = slog.LevelError
	case o.verbose > 0:
		level = slog.LevelDebug
	}
	return o.forLibraries(o.logger(level))
}

func (o *output) logger(level slog.Leveler) *slog.Logger {
	return slog.New(tint.NewTextHandler(o.stderr, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: !o.stderr.colours}))
}
