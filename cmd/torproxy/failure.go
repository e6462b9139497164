package main

import (
	"errors"
	"strings"
)

// Exit codes; the package comment says which is which.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// The codes of failures, which programs find in --json's "error" event.
const (
	codeUsage    = "usage"        // the command line is wrong
	codeTaken    = "port_taken"   // somebody else listens on --socks or --http
	codeListen   = "listen"       // it can't be listened on for another reason
	codeNetwork  = "network_file" // --network names a file that is missing, unreadable or invalid
	codeState    = "state"        // a directory or a key can't be used or written
	codeNoClient = "no_client"    // nobody, or somebody else, listens where the running client should
	codeNotReady = "not_ready"    // it is not ready
	codeUnknown  = "unknown"      // it knows nothing of what it was asked for
	codeLink     = "link"         // a link can't be opened
	codeStatus   = "status"       // a page was not got: the destination or the proxy says so
	codeFailed   = "failed"       // anything else
)

// failure is an error as a person is told it. Everything but what may be empty.
type failure struct {
	code   string
	what   string // failed
	cause  string // the probable one
	advice string // what to do
	err    error  // for errors.Is; not shown
}

// Error joins the sentences in one line.
func (f *failure) Error() string {
	said := []string{f.what}
	for _, s := range []string{f.cause, f.advice} {
		if s != "" {
			said = append(said, s)
		}
	}
	return strings.Join(said, "; ")
}

func (f *failure) Unwrap() error { return f.err }

// exit is the exit code that the failure ends the process with.
func (f *failure) exit() int {
	if f.code == codeUsage {
		return exitUsage
	}
	return exitFailed
}

// failureOf gives an error that nobody has explained its plain form.
func failureOf(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return &failure{code: codeFailed, what: err.Error(), err: err}
}

// wrongUsage is a command line that makes no sense; command is the one to ask for help.
func wrongUsage(command, what string) *failure {
	return &failure{code: codeUsage, what: what, advice: command + " --help says what there is"}
}
