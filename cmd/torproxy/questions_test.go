package main

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"torproxy/proxy/frontdoor"
)

// linkDesk is a linkSource with the links of a test.
type linkDesk struct {
	mu      sync.Mutex
	links   []frontdoor.Link
	changed chan struct{}
	answers []string
}

func (d *linkDesk) Links() []frontdoor.Link {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]frontdoor.Link{}, d.links...)
}

func (d *linkDesk) LinksChanged() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

func (d *linkDesk) AnswerLink(id string, open bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers = append(d.answers, map[bool]string{true: "open ", false: "refuse "}[open]+id)
	for i := range d.links {
		if d.links[i].ID == id {
			d.links[i].State = map[bool]frontdoor.LinkState{true: frontdoor.LinkOpening, false: frontdoor.LinkRefused}[open]
		}
	}
	if id == "late" {
		return errors.New("too late")
	}
	return nil
}

// becomes lets something become of a link elsewhere.
func (d *linkDesk) becomes(i int, state frontdoor.LinkState, problem string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.links[i].State, d.links[i].Error = state, problem
	close(d.changed)
	d.changed = make(chan struct{})
}

// terminal is what somebody types and reads.
type terminal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

// shown returns what was written since the last call.
func (t *terminal) shown() string {
	synctest.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.text.Reset()
	return t.text.String()
}

func TestQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		desk := &linkDesk{changed: make(chan struct{})}
		for _, id := range []string{"1", "2", "3", "4", "late", "last"} {
			desk.links = append(desk.links, frontdoor.Link{ID: id, URL: "http://a.test/" + id, Host: "a.test", From: "b.test:80", State: frontdoor.LinkWaiting})
		}
		screenText := &terminal{}
		in, typed := io.Pipe()
		p := &person{stderr: &screen{w: screenText, fd: -1}, console: "http://door/"}
		q := &questions{in: in, person: p, reporter: p, links: make(chan frontdoor.Link, maxQuestions)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- q.run(ctx, desk) }()
		for _, l := range desk.links {
			q.add(l)
		}
		step := func(what func(), want ...string) {
			t.Helper()
			what()
			text := screenText.shown()
			for _, w := range want {
				if !strings.Contains(text, w) {
					t.Errorf("the terminal shows %q, which lacks %q", text, w)
				}
			}
		}
		write := func(s string) func() { return func() { io.WriteString(typed, s) } }
		step(func() {}, "a reply of b.test:80 asks to open this link:\n  http://a.test/1\n", "yes or no, and Enter:\n")
		step(write("\nperhaps\n"), "yes or no, and Enter:\n  open it")
		step(write("YES\n"), "a browser is being started")
		step(func() { desk.becomes(0, frontdoor.LinkFailed, "there is no \x1bdisplay") }, "  there is no  display\n", "http://a.test/2\n")
		step(func() { desk.becomes(3, frontdoor.LinkRefused, "") }) // another link
		step(write(" n \n"), "it stays closed", "http://a.test/3\n")
		step(write("y\n"), "a browser is being started")
		step(func() { desk.becomes(2, frontdoor.LinkOpened, "") }, "it is open", "http://a.test/4\n", "answered elsewhere", "http://a.test/late\n")
		step(write("y\n"), "too late", "http://a.test/last\n")
		step(func() { typed.Close() }, "answer at http://door/")
		if got := strings.Join(desk.answers, ", "); got != "open 1, refuse 2, open 3, open late" {
			t.Errorf("answers: %s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Who does not sit at a terminal, wants to hear only of failures, or is a program, is told and not asked.
func TestQuestionsNeedATerminal(t *testing.T) {
	for name, want := range map[string]string{"json": `{"event":"link","id":"1"`, "quiet": "", "no terminal": "asks to open this link:\n  http://a.test/\n  answer at"} {
		text := &strings.Builder{}
		out := &output{json: name == "json", quiet: name == "quiet"}
		out.stdout, out.stderr = &screen{w: text}, &screen{w: text, fd: -1, terminal: true}
		q := newQuestions(strings.NewReader("yes\n"), out)
		for range maxQuestions + 1 { // the last finds no room, and is not waited for
			q.add(frontdoor.Link{ID: "1", URL: "http://a.test/", Host: "a.test"})
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- q.run(ctx, nil) }()
		for len(q.links) > 0 {
			runtime.Gosched()
		}
		cancel()
		if err := <-done; err != nil || !strings.Contains(text.String(), want) || (text.Len() == 0) != (want == "") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}
