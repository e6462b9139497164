package main

import (
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/term"
)

// screen is an output that may be a terminal, of which the last line can then be rewritten in place. It is
// safe for concurrent use; Write must be given whole lines.
type screen struct {
	w        io.Writer
	fd       int
	terminal bool // lines can be rewritten
	colours  bool

	mu   sync.Mutex
	line string // is shown, and not ended yet
}

const (
	eraseLine = "\r\x1b[K"
	red       = "\x1b[31m"
	yellow    = "\x1b[33m"
	bold      = "\x1b[1m"
	plain     = "\x1b[0m"
)

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok {
		s.fd = int(f.Fd())
		s.terminal = term.IsTerminal(s.fd) && understandsEscapes()
		s.colours = s.terminal && os.Getenv("NO_COLOR") == ""
	}
	return s
}

// understandsEscapes is about the terminal; the old console of Windows needs them switched on.
func understandsEscapes() bool {
	name := os.Getenv("TERM")
	if runtime.GOOS == "windows" {
		return os.Getenv("WT_SESSION") != "" || name != "" && name != "dumb"
	}
	return name != "dumb"
}

// paint gives text a colour if the screen has colours.
func (s *screen) paint(colour, text string) string {
	if !s.colours {
		return text
	}
	return colour + text + plain
}

// Write writes whole lines above the line that is rewritten.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.w.Write(p)
	}
	if _, err := io.WriteString(s.w, eraseLine); err != nil {
		return 0, err
	}
	n, err := s.w.Write(p)
	if err == nil {
		_, err = io.WriteString(s.w, s.line)
	}
	return n, err
}

// clear takes the rewritten line away, and what the terminal itself wrote on it, as ^C.
func (s *screen) clear() {
	if !s.terminal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = ""
	io.WriteString(s.w, eraseLine)
}

// rewrite puts line, cut to the terminal's width, in place of the one that it put there before. It is
// for terminals only.
func (s *screen) rewrite(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if width, _, err := term.GetSize(s.fd); err == nil && width > 1 {
		if r := []rune(line); len(r) >= width {
			line = string(r[:width-2]) + "…"
		}
	}
	s.line = line
	io.WriteString(s.w, eraseLine+line)
}

// printable makes one line of text that comes from elsewhere, without what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
