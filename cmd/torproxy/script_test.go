package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"torproxy": main, "msedge": pretendBrowser})
}

// pretendBrowser stands for a browser in scripts: it asks for its last argument through the proxy that it was
// given, and then ends; for /fail as one that cannot run.
func pretendBrowser() {
	proxy := ""
	for _, arg := range os.Args {
		if p, ok := strings.CutPrefix(arg, "--proxy-server="); ok {
			proxy = p
		}
	}
	page := os.Args[len(os.Args)-1]
	if strings.HasSuffix(page, "/fail") {
		fmt.Fprintln(os.Stderr, "no display")
		os.Exit(7)
	}
	answer, err := through(proxy).Get(page)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	answer.Body.Close()
}

// TestScripts runs the sessions in testdata. Besides the usual commands they know
//
//	start torproxy ARGS...      start it in the background; one at a time
//	event NAME [REGEXP]         wait for this event on its stdout, which must match; ready sets $socks and $http
//	prints REGEXP               wait for a line like this on its stdout
//	says REGEXP                 wait for a line like this on its stderr
//	interrupt, terminate        send it SIGINT or SIGTERM
//	ends CODE                   wait until it has ended, with this exit code
//	hangup                      send it SIGHUP
//	ports NAME...               call free addresses of 127.0.0.1 $NAME
//	fetch URL FILE              get a page, which must be there, and write it to a file
//	occupy                      take a free port of 127.0.0.1 and call the address $taken
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Values[key{}] = new(*session)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":     start,
			"event":     event,
			"prints":    func(ts *testscript.TestScript, _ bool, args []string) { awaitLine(ts, &sessionOf(ts).stdout, args[0]) },
			"says":      func(ts *testscript.TestScript, _ bool, args []string) { awaitLine(ts, &sessionOf(ts).stderr, args[0]) },
			"interrupt": func(ts *testscript.TestScript, _ bool, _ []string) { signalTo(ts, os.Interrupt) },
			"terminate": func(ts *testscript.TestScript, _ bool, _ []string) { signalTo(ts, syscall.SIGTERM) },
			"hangup":    func(ts *testscript.TestScript, _ bool, _ []string) { signalTo(ts, syscall.SIGHUP) },
			"ends":      ends,
			"ports":     ports,
			"fetch":     fetch,
			"occupy":    occupy,
		},
	})
}

// patience is how long a script waits for anything; a failing test's only delay.
const patience = 30 * time.Second

// session is a torproxy in the background and what it has said.
type session struct {
	command *exec.Cmd
	stdout  transcript
	stderr  transcript
	read    chan struct{} // closed when both have ended
}

type key struct{} // of the script's latest session

func sessionOf(ts *testscript.TestScript) *session { return *ts.Value(key{}).(**session) }

// transcript is lines that come, each of which is looked at once.
type transcript struct {
	mu    sync.Mutex
	lines []string
	ended bool
	news  chan struct{} // closed at every change
}

func (tr *transcript) add(line string, ended bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.ended = tr.ended || ended; !ended {
		tr.lines = append(tr.lines, line)
	}
	if tr.news != nil {
		close(tr.news)
		tr.news = nil
	}
}

// next takes the next line; io.EOF: there will be none.
func (tr *transcript) next(timeout <-chan time.Time) (string, error) {
	for {
		tr.mu.Lock()
		if len(tr.lines) > 0 {
			line := tr.lines[0]
			tr.lines = tr.lines[1:]
			tr.mu.Unlock()
			return line, nil
		}
		ended := tr.ended
		if tr.news == nil {
			tr.news = make(chan struct{})
		}
		news := tr.news
		tr.mu.Unlock()
		if ended {
			return "", io.EOF
		}
		select {
		case <-news:
		case <-timeout:
			return "", fmt.Errorf("nothing more after %v", patience)
		}
	}
}

// rest is what has not been looked at.
func (tr *transcript) rest() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return strings.Join(tr.lines, "\n")
}

// await takes lines until one is what is wanted.
func (tr *transcript) await(wanted func(line string) (bool, error)) (string, error) {
	timeout := time.After(patience)
	for {
		line, err := tr.next(timeout)
		if err != nil {
			return "", err
		}
		if ok, err := wanted(line); ok || err != nil {
			return line, err
		}
	}
}

func start(ts *testscript.TestScript, _ bool, args []string) {
	s := &session{command: exec.Command(args[0], args[1:]...), read: make(chan struct{})}
	*ts.Value(key{}).(**session) = s
	s.command.Dir = ts.MkAbs(".")
	stdout, err := s.command.StdoutPipe()
	ts.Check(err)
	stderr, err := s.command.StderrPipe()
	ts.Check(err)
	ts.Check(s.command.Start())
	ts.Defer(func() {
		s.command.Process.Kill()
		<-s.read
	})
	var reading sync.WaitGroup
	reading.Go(func() { s.stdout.follow(stdout) })
	reading.Go(func() { s.stderr.follow(stderr) })
	go func() {
		reading.Wait()
		close(s.read)
	}()
}

func (tr *transcript) follow(r io.Reader) {
	defer tr.add("", true)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		tr.add(lines.Text(), false)
	}
}

func event(ts *testscript.TestScript, _ bool, args []string) {
	var e struct {
		Event, SOCKS, HTTP string
	}
	line, err := sessionOf(ts).stdout.await(func(line string) (bool, error) {
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return false, fmt.Errorf("stdout has a line that is no event: %q", line)
		}
		return e.Event == args[0], nil
	})
	if err != nil {
		ts.Fatalf("no event %q: %v", args[0], err)
	}
	ts.Logf("%s", line)
	if len(args) > 1 && !regexp.MustCompile(args[1]).MatchString(line) {
		ts.Fatalf("the event does not match %s", args[1])
	}
	if e.Event == "ready" {
		ts.Setenv("socks", e.SOCKS)
		ts.Setenv("http", e.HTTP)
	}
}

func awaitLine(ts *testscript.TestScript, tr *transcript, like string) {
	wanted := regexp.MustCompile(like)
	_, err := tr.await(func(line string) (bool, error) {
		ts.Logf("%s", line)
		return wanted.MatchString(line), nil
	})
	if err != nil {
		ts.Fatalf("no line like %s: %v", like, err)
	}
}

func signalTo(ts *testscript.TestScript, sig os.Signal) {
	ts.Check(sessionOf(ts).command.Process.Signal(sig))
}

func ends(ts *testscript.TestScript, _ bool, args []string) {
	s := sessionOf(ts)
	select {
	case <-s.read: // os/exec wants it before Wait
	case <-time.After(patience):
		ts.Fatalf("it has not ended after %v; it said:\n%s", patience, s.stderr.rest())
	}
	var exit *exec.ExitError
	if err := s.command.Wait(); err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	if code := fmt.Sprint(s.command.ProcessState.ExitCode()); code != args[0] {
		ts.Fatalf("ended with %s (%v), not %s; it said:\n%s", code, s.command.ProcessState, args[0], s.stderr.rest())
	}
}

// ports finds addresses for processes that are told each other's before they start.
func ports(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		address, release := freePort(ts)
		defer release() // all of them are different
		ts.Setenv(name, address)
	}
}

// freePort holds a port of 127.0.0.1 that is free for UDP and for TCP, until it is released.
func freePort(ts *testscript.TestScript) (address string, release func()) {
	for {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		ts.Check(err)
		address = conn.LocalAddr().String()
		if l, err := net.Listen("tcp", address); err == nil {
			return address, func() { l.Close(); conn.Close() }
		}
		conn.Close()
	}
}

func fetch(ts *testscript.TestScript, _ bool, args []string) {
	answer, err := direct().Get(args[0])
	ts.Check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	ts.Check(err)
	if answer.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s", args[0], answer.Status)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), body, 0o600))
}

func occupy(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("taken", l.Addr().String())
}
