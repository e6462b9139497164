package socks

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
)

var errPanic = errors.New("socks: panic")

// rescue, deferred, turns a panic of the function that defers it into an error, and logs it.
func (c *client) rescue(err *error) {
	if v := recover(); v != nil {
		logPanic(c.cfg.Log, v)
		*err = errPanic
	}
}

// logPanic logs where a panic came from. Its value is shown only if it is the runtime's own: another
// could hold a destination or a password; nor are arguments shown, as a stack dump would.
func logPanic(l *slog.Logger, v any) {
	text := fmt.Sprintf("%T", v)
	if e, ok := v.(runtime.Error); ok {
		text = e.Error()
	}
	var where strings.Builder
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		f, more := frames.Next()
		fmt.Fprintf(&where, "%s:%d ", f.Function, f.Line)
		if !more {
			break
		}
	}
	l.Error("panic while serving a SOCKS connection; it is closed", "panic", text, "stack", strings.TrimSpace(where.String()))
}
