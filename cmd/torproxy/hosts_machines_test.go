//go:build clients && linux

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dieWithTest makes a process end when the thread that starts it does: with the test, however that ends.
func dieWithTest(cmd *exec.Cmd) {
	runtime.LockOSThread() // until the test's goroutine ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// hosts is the network of the test.
type hosts struct {
	t      *testing.T
	binary string
	top    string // a directory, with one of each host below it
	blocks []block
	all    map[string]*host
}

// host is one machine.
type host struct {
	*hosts
	name, address string
	role          *role // its torproxy; nil: none runs
}

// role is a torproxy that runs.
type role struct {
	command *exec.Cmd
	stdout  transcript
	stderr  transcript
	ended   chan struct{}
}

// block is a block of commands on the page, and the hosts it is for.
type block struct {
	on       []string
	commands string
}

// pageBlocks reads the page's commands.
func pageBlocks(t *testing.T) (blocks []block) {
	page, err := os.ReadFile("OPERATORS.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range strings.Split(string(page), "```") {
		info, commands, found := strings.Cut(part, "\n")
		if i%2 == 0 || !found {
			continue
		}
		var b block
		for _, word := range strings.Fields(info)[1:] {
			key, names, _ := strings.Cut(word, "=")
			if key != "on" && key != "also" {
				t.Fatalf("OPERATORS.md has a block %q", info)
			}
			b.on = append(b.on, strings.Split(names, ",")...)
		}
		b.commands = strings.TrimSpace(commands)
		blocks = append(blocks, b)
	}
	return blocks
}

// forHost is the block as it is for another of its hosts: names and addresses end in the host's number.
func (b block) forHost(h *host) string {
	first := b.on[0]
	if h.name == first {
		return b.commands
	}
	number := func(name string) string { return name[len(name)-1:] }
	return strings.NewReplacer(
		first, h.name,
		"10.77.2."+number(first)+":", h.address+":",
	).Replace(b.commands)
}

func (n *hosts) sh(dir, script string) string {
	n.t.Helper()
	out, err := exec.Command("sh", "-ec", "cd "+dir+"\n"+script).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}

// add makes a host.
func (n *hosts) add(name, address string) *host {
	n.t.Helper()
	h := &host{hosts: n, name: name, address: address}
	n.all[name] = h
	n.sh(n.top, fmt.Sprintf(`
		mkdir %[1]s
		ip netns add %[1]s
		ip link add name %[1]s type veth peer name eth0 netns %[1]s
		ip link set %[1]s master switch up
		ip -n %[1]s addr add %[2]s/16 dev eth0
		ip -n %[1]s link set eth0 up
		ip -n %[1]s link set lo up`, name, address))
	n.t.Cleanup(func() { n.sh(n.top, "ip netns del "+name) })
	return h
}

// command is a shell command on the host, in its directory.
func (h *host) command(script string) *exec.Cmd {
	cmd := exec.Command("nsenter", "--net=/run/netns/"+h.name, "sh", "-ec", script)
	cmd.Dir = filepath.Join(h.top, h.name)
	cmd.Env = []string{"PATH=" + filepath.Dir(h.binary) + ":" + os.Getenv("PATH"), "HOME=" + cmd.Dir}
	dieWithTest(cmd)
	return cmd
}

// run carries out commands, which must succeed.
func (h *host) run(script string) string {
	h.t.Helper()
	cmd := h.command(script)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("on %s: %s\n%v\n%s%s", h.name, script, err, out, &stderr)
	}
	return string(out)
}

// start starts the host's torproxy and waits until it says on stdout that it runs.
func (h *host) start(script string) {
	h.t.Helper()
	r := &role{command: h.command("exec " + script), ended: make(chan struct{})}
	stdout, err := r.command.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	stderr, err := r.command.StderrPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := r.command.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.role = r
	said := make(chan struct{})
	go func() {
		defer close(said)
		r.stderr.follow(stderr)
	}()
	go func() {
		defer close(r.ended)
		r.stdout.follow(stdout)
		<-said
		r.command.Wait()
	}()
	h.t.Cleanup(func() {
		r.command.Process.Kill()
		<-r.ended
		if h.t.Failed() {
			h.t.Logf("%s:\n%s", h.name, r.stderr.rest())
		}
	})
	if _, err := r.stdout.await(func(line string) (bool, error) {
		return strings.Contains(line, " listens on ") || strings.Contains(line, `"ready"`), nil
	}); err != nil {
		h.t.Fatalf("on %s: %s: %v\n%s", h.name, script, err, r.stderr.rest())
	}
}

// kill ends the host's torproxy without a word, as a crash does.
func (h *host) kill() {
	h.role.command.Process.Kill()
	<-h.role.ended
}

// says waits for a line of the host's torproxy.
func (h *host) says(what string) {
	h.t.Helper()
	if _, err := h.role.stderr.await(func(line string) (bool, error) { return strings.Contains(line, what), nil }); err != nil {
		h.t.Fatalf("%s does not say %q: %v", h.name, what, err)
	}
}

func (h *host) running() bool {
	select {
	case <-h.role.ended:
		return false
	default:
		return true
	}
}

// stop ends it in order.
func (h *host) stop() {
	h.t.Helper()
	h.role.command.Process.Signal(syscall.SIGTERM)
	<-h.role.ended
	if code := h.role.command.ProcessState.ExitCode(); code != 0 {
		h.t.Errorf("%s ended with %d", h.name, code)
	}
}

// inside calls f on a thread of this process that is in the host's network: the sockets that f opens are
// the host's.
func (h *host) inside(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread is spoilt, and ends with the goroutine
		ns, err := os.Open("/run/netns/" + h.name)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// listen listens on a TCP address of the host, from this process.
func (h *host) listen(address string) (l net.Listener) {
	h.t.Helper()
	err := h.inside(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

// site is the web server: a page that says who asks, and one that never ends.
func (h *host) site() {
	l := h.listen(net.JoinHostPort(h.address, "8000"))
	handler := http.NewServeMux()
	handler.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s\n", r.RemoteAddr) })
	handler.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "begun")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	server := &http.Server{Handler: handler}
	go server.Serve(l)
	h.t.Cleanup(func() { server.Close() })
}

// eventually waits until something is so; it is looked at as often as it takes to look.
func (n *hosts) eventually(what string, ok func() bool) {
	n.t.Helper()
	began := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > 90*time.Second {
			n.t.Fatalf("%s: not after %v", what, time.Since(began))
		}
		<-tick.C
	}
	n.t.Logf("%s: after %v", what, time.Since(began).Round(100*time.Millisecond))
}

// show is what network show says on the client's host.
func (n *hosts) show() (s shownNetwork) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.all["client"].run("torproxy network show --network network.json --json")), &s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

func (s *shownNetwork) lists(relay string) bool {
	return slices.ContainsFunc(s.Relays, func(r shownRelay) bool { return r.Nickname == relay })
}

func (s *shownNetwork) signed() (n int) {
	for _, a := range s.Authorities {
		if a.Signed {
			n++
		}
	}
	return n
}

// fetches reports whether the client gets the page now, by the commands of OPERATORS.md.
func (n *hosts) fetches(commands string) bool {
	commands = strings.ReplaceAll(commands, "curl -sS", "curl -q -sS --max-time 10")
	out, err := n.all["client"].command(commands).Output()
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(out)) {
		exit, found := strings.CutPrefix(line, "hello ")
		if !found || !slices.Contains([]string{"10.77.2.6", "10.77.2.7", "10.77.2.8"}, strings.Split(exit, ":")[0]) {
			n.t.Errorf("the page says %q: it was asked for by no exit", line)
		}
	}
	return true
}
