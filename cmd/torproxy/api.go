package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"torproxy/proxy/frontdoor"
)

// What the commands about a running client have in common: they ask it at its front door.

const (
	apiTimeout = 5 * time.Second // for an answer; it comes from memory
	maxAPI     = 16 << 20        // bytes of an answer; one of a thousand relays has a quarter of a megabyte
)

// api is the front door of a running client.
type api struct {
	at   string // HOST:PORT to connect to
	http *http.Client
}

func newAPI(a listenAddress) *api {
	return &api{
		at: reachable(a.address),
		http: &http.Client{
			Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// addDoorFlag adds --http to a command that talks to a running client.
func addDoorFlag(cmd *cobra.Command, a *listenAddress) {
	*a = listenAddress{network: "tcp", address: defaultHTTP, tcpOnly: true}
	cmd.Flags().Var(a, "http", "the running client's HTTP `ADDRESS`, IP:PORT")
	cmd.RegisterFlagCompletionFunc("http", cobra.NoFileCompletions)
}

// checkDoor finds an address that nobody can be at.
func checkDoor(cmd *cobra.Command, a listenAddress) error {
	if a.anyPort() {
		return wrongUsage(cmd.CommandPath(), "--http: port 0 is for listening; say where the client listens")
	}
	return nil
}

// read asks for a path and decodes the answer. Its errors are failures.
func (a *api) read(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.at+path, nil)
	if err != nil {
		return err
	}
	answer, err := a.http.Do(req)
	if err != nil {
		return a.noClient(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAPI))
	if err != nil {
		return a.noClient(err)
	}
	if answer.StatusCode != http.StatusOK {
		return a.noTorproxy(fmt.Errorf("it answers %s", answer.Status))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return a.noTorproxy(err)
	}
	return nil
}

// status asks how the client is. Whatever else listens there is told from it by its process number.
func (a *api) status(ctx context.Context) (frontdoor.Status, error) {
	var s frontdoor.Status
	err := a.read(ctx, "/api/status", &s)
	if err == nil && s.PID <= 0 {
		err = a.noTorproxy(errors.New("its status is no torproxy's"))
	}
	return s, err
}

// why asks what became of the last requests to a host.
func (a *api) why(ctx context.Context, host string) ([]frontdoor.Why, error) {
	var all []frontdoor.Why
	err := a.read(ctx, "/api/why?host="+url.QueryEscape(host), &all)
	return all, err
}

// noClient says that nobody has answered.
func (a *api) noClient(err error) *failure {
	f := &failure{
		code: codeNoClient, err: err, what: fmt.Sprintf("there is no answer from a torproxy at %s: %v", a.at, systemError(innermost(err))),
		cause: "it is busy, or another program listens there", advice: "look at what runs there, or say with --http where the client listens",
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		f.what = fmt.Sprintf("no torproxy runs at %s", a.at)
		f.cause, f.advice = "the client was not started, has stopped, or listens elsewhere", "start it with torproxy, or say with --http where it listens"
	}
	return f
}

// noTorproxy says that somebody else has answered.
func (a *api) noTorproxy(err error) *failure {
	return &failure{
		code: codeNoClient, err: err, what: fmt.Sprintf("what listens at %s is not torproxy: %v", a.at, err),
		cause: "another program has that port, or another version of torproxy", advice: "say with --http where the client listens",
	}
}

// innermost is an error of package http without the URL, which the sentence around it has.
func innermost(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// errSaidNo ends a command with exit code 1 that has said on stdout all there is to say.
var errSaidNo = errors.New("the answer is no")
