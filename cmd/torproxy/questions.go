package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"torproxy/proxy/frontdoor"
)

// maxQuestions is how many links may wait for their turn here. The front door lets no more wait; of more, the
// console would still ask.
const maxQuestions = 16

// questions tells whoever started the client of links that replies ask to open, one after the other. If that is
// a person at a terminal it asks, and a link that is answered elsewhere, or has waited too long, is no longer
// asked about.
type questions struct {
	reporter reporter
	links    chan frontdoor.Link

	in     io.Reader // the terminal, or nil
	person *person   // at it
}

// linkSource is what questions needs of the front door.
type linkSource interface {
	Links() []frontdoor.Link
	LinksChanged() <-chan struct{}
	AnswerLink(id string, open bool) error
}

func newQuestions(stdin io.Reader, out *output) *questions {
	q := &questions{reporter: out.reporter(), links: make(chan frontdoor.Link, maxQuestions)}
	p, ok := q.reporter.(*person)
	if _, terminal := terminalOf(stdin); terminal && ok && !p.quiet && p.stderr.terminal {
		q.in, q.person = stdin, p
	}
	return q
}

// add puts a link in the queue, and returns at once: whoever reads what is told may be slow.
func (q *questions) add(l frontdoor.Link) {
	select {
	case q.links <- l:
	default:
	}
}

// run tells and asks until ctx ends. Nothing is read before there is a question: a shell's next lines are its
// own.
func (q *questions) run(ctx context.Context, door linkSource) error {
	var lines chan string
	for {
		select {
		case <-ctx.Done():
			return nil
		case l := <-q.links:
			if q.in == nil {
				q.reporter.link(l)
				continue
			}
			if lines == nil {
				lines = q.read(ctx)
			}
			q.ask(ctx, door, l, lines)
		}
	}
}

// read reads lines until the terminal ends, or is no longer this program's to read. A read of a terminal cannot
// be called off: the goroutine ends with the process if nothing more is typed.
func (q *questions) read(ctx context.Context) chan string {
	leaveTerminalQuietly()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(q.in); in.Scan(); {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// ask asks about one link until there is an answer.
func (q *questions) ask(ctx context.Context, door linkSource, l frontdoor.Link, lines <-chan string) {
	const prompt = "  open it in a browser that has no way past the proxy? yes or no, and Enter:"
	out := q.person.stderr
	fmt.Fprintln(out, q.person.describe(l))
	fmt.Fprintln(out, prompt)
	for {
		changed := door.LinksChanged()
		if !waits(door, l.ID) {
			fmt.Fprintln(out, "  (that was answered elsewhere, or has waited too long)")
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case line, more := <-lines:
			switch answer := strings.ToLower(strings.TrimSpace(line)); {
			case !more:
				q.person.link(l)
				return
			case answer == "y" || answer == "yes" || answer == "n" || answer == "no":
				q.answer(ctx, door, l, answer[0] == 'y')
				return
			}
			fmt.Fprintln(out, prompt)
		}
	}
}

// answer passes an answer on, and tells what comes of it.
func (q *questions) answer(ctx context.Context, door linkSource, l frontdoor.Link, open bool) {
	out := q.person.stderr
	switch err := door.AnswerLink(l.ID, open); {
	case err != nil:
		fmt.Fprintf(out, "  %v\n", err)
		return
	case !open:
		fmt.Fprintln(out, "  it stays closed")
		return
	}
	fmt.Fprintln(out, "  a browser is being started")
	switch now := opened(ctx, door, l.ID); now.State {
	case frontdoor.LinkOpened:
		fmt.Fprintln(out, "  it is open")
	case frontdoor.LinkFailed:
		fmt.Fprintf(out, "  %s\n", printable(now.Error))
	}
}

// opened waits until a link is no longer being opened, and returns what has become of it.
func opened(ctx context.Context, door linkSource, id string) frontdoor.Link {
	for {
		changed := door.LinksChanged()
		l := find(door, id)
		if l.State != frontdoor.LinkOpening {
			return l
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return l
		}
	}
}

// waits reports whether a link waits for an answer.
func waits(door linkSource, id string) bool { return find(door, id).State == frontdoor.LinkWaiting }

// find returns a link, or the zero one if it is gone.
func find(door linkSource, id string) frontdoor.Link {
	for _, l := range door.Links() {
		if l.ID == id {
			return l
		}
	}
	return frontdoor.Link{}
}
