//go:build clients

package echo

import (
	"bytes"
	"context"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// runs runs a program and returns what it prints.
func runs(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is not installed: .ci/test installs it", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, &errs)
	}
	return out.String()
}

// curl and Chromium prove a password without sending it.
func TestClientsLogIn(t *testing.T) {
	s, _ := newServer(t)
	site := httptest.NewServer(s)
	defer site.Close()
	page := site.URL + "/secret"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--digest", "-u", "ann:" + secret}, "You know the password"},
		{[]string{"--anyauth", "-u", "ann:" + secret}, "You know the password"},
		{[]string{"--digest", "-u", "ann:wrong"}, "wrong user name or password"},
		{[]string{"-u", "ann:" + secret}, "everybody on the way would read the password"},
	} {
		contains(t, runs(t, "curl", append([]string{"-q", "-sS", page}, c.args...)...), c.want)
	}
	// Two pages of one connection: the second answers the same challenge.
	if out := runs(t, "curl", "-q", "-sS", "--digest", "-u", "ann:"+secret, page, page, page); strings.Count(out, "You know the password") != 3 {
		t.Errorf("three times: %s", out)
	}
	named, err := url.Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]string{secret: "You know the password", "wrong": ""} {
		named.User = url.UserPassword("ann", password)
		dom := runs(t, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(), "--dump-dom", named.String())
		if known := strings.Contains(dom, "You know the password"); known != (want != "") {
			t.Errorf("Chromium with %q: %s", password, dom)
		}
	}
}

// A browser follows the Refresh header of /open by itself, and the page needs nothing from elsewhere.
func TestChromiumOpens(t *testing.T) {
	s, _ := newServer(t)
	site := httptest.NewServer(s)
	defer site.Close()
	dom := runs(t, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(), "--virtual-time-budget=5000", "--dump-dom", site.URL+"/open")
	contains(t, dom, "somebody has opened it", "Chrome/")
}
