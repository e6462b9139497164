//go:build clients && linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
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

	"torproxy/proxy/frontdoor"
)

// This file runs a network on machines of its own: each authority, relay, client and web server is a
// network namespace with one address, joined to the others by a bridge, and runs the built binary. The
// commands are those of OPERATORS.md, word for word.
//
// The test runs itself again inside a network and a mount namespace, whose own network is the bridge's: so
// nothing of the machine's is touched, and nothing is left behind, however it ends.

// insideHosts is the environment variable that tells the inner test so, and where the binary is.
const insideHosts = "TORPROXY_TEST_HOSTS"

func TestHosts(t *testing.T) {
	if binary := os.Getenv(insideHosts); binary != "" {
		runHosts(t, binary)
		return
	}
	for _, program := range []string{"ip", "unshare", "nsenter", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is not installed: .ci/test installs it", program)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--net", "--mount"}
	if os.Geteuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	args = append(args, "sh", "-c", `mount -t tmpfs tmpfs /run && exec "$0" "$@"`, self, "-test.run=^TestHosts$", "-test.v")
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), insideHosts+"="+build(t))
	dieWithTest(cmd)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("after %v:\n%s", time.Since(began), out)
}

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

func runHosts(t *testing.T, binary string) {
	n := &hosts{t: t, binary: binary, top: t.TempDir(), blocks: pageBlocks(t), all: map[string]*host{}}
	n.sh(n.top, "mkdir admin\nip link add name switch type bridge\nip link set switch up")
	for i := 1; i <= 4; i++ {
		n.add(fmt.Sprintf("authority%d", i), fmt.Sprintf("10.77.1.%d", i))
	}
	for i := 1; i <= 8; i++ {
		n.add(fmt.Sprintf("relay%d", i), fmt.Sprintf("10.77.2.%d", i))
	}
	n.add("client", "10.77.3.1")
	n.add("web", "10.77.4.1").site()
	fetch, starts := n.followPage()
	n.testClientRestarts(fetch, starts)
	n.testAuthorityKilled(fetch, starts)
	n.testMiddleKilled(fetch, starts)
	n.testHostCutOff(fetch)
	n.testSecondSignal()
	began := time.Now()
	n.all["client"].stop()
	for name, h := range n.all {
		if h.role != nil && name != "client" && h.running() {
			h.stop()
		}
	}
	t.Logf("all have stopped: after %v", time.Since(began).Round(100*time.Millisecond))
	for i := 1; i <= 8; i++ {
		mark, err := os.ReadFile(filepath.Join(n.top, fmt.Sprintf("relay%d/relay/session", i)))
		if err != nil || string(mark) != "clean\n" {
			t.Errorf("relay%d has not ended in order: %q, %v", i, mark, err)
		}
	}
}

// followPage carries out the page from top to bottom. It returns the client's commands that fetch the
// page of the web server, and what started each host's torproxy.
func (n *hosts) followPage() (fetch string, starts map[string]string) {
	starts = map[string]string{}
	for _, b := range n.blocks {
		for _, name := range b.on {
			if name == "admin" {
				n.distribute(b.commands)
				continue
			}
			h := n.all[name]
			script := b.forHost(h)
			switch {
			case strings.HasPrefix(script, "torproxy dirauth --dir "), strings.Contains(script, "--data-dir"), strings.HasPrefix(script, "torproxy --network"):
				h.start(script)
				starts[name] = script
			case strings.HasPrefix(script, "curl "):
				fetch = script
				n.eventually("the client fetches pages", func() bool { return n.fetches(fetch) })
			default:
				n.t.Logf("on %s:\n%s", name, h.run(script))
			}
		}
	}
	n.eventually("all authorities sign, all relays are listed", func() bool {
		s := n.show()
		return s.signed() == 4 && len(s.Relays) == 8
	})
	return fetch, starts
}

// distribute makes the network's files and takes each to its host.
func (n *hosts) distribute(script string) {
	n.sh(filepath.Join(n.top, "admin"), "PATH="+filepath.Dir(n.binary)+":$PATH\n"+script)
	n.sh(n.top, `
		for i in 1 2 3 4; do cp -r admin/net/authority$i authority$i/; done
		echo correct horse battery staple >authority4/passphrase
		for h in relay? client; do cp admin/net/network.json $h/; done`)
}

// testAuthorityKilled kills an authority: the others go on without it, and with it when it is back.
func (n *hosts) testAuthorityKilled(fetch string, starts map[string]string) {
	before := n.show()
	n.all["authority2"].kill()
	n.eventually("consensuses of three authorities, two rounds on", func() bool {
		s := n.show()
		return s.signed() == 3 && !s.Authorities[1].Signed && s.ValidAfter.Sub(before.ValidAfter) >= 10*time.Second
	})
	n.eventually("the client fetches pages", func() bool { return n.fetches(fetch) })
	n.all["authority2"].start(starts["authority2"])
	n.eventually("all authorities sign", func() bool { s := n.show(); return s.signed() == 4 })
}

// testMiddleKilled kills the middle of a circuit that carries a stream.
func (n *hosts) testMiddleKilled(fetch string, starts map[string]string) {
	client := n.all["client"]
	download := client.command("exec curl -q -sS -N --socks5-hostname 127.0.0.1:9050 http://10.77.4.1:8000/endless")
	stdout, err := download.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := download.Start(); err != nil {
		n.t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "begun\n" {
		n.t.Fatalf("the download begins with %q, %v", line, err)
	}
	middle := n.all[n.middle()]
	n.t.Logf("the middle is %s", middle.name)
	middle.kill()
	killed := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { download.Process.Kill() })
	io.Copy(io.Discard, stdout)
	if err := download.Wait(); err == nil || !stop() {
		n.t.Errorf("the download through a dead relay ended with %v", err)
	}
	n.t.Logf("the download has ended: after %v", time.Since(killed).Round(100*time.Millisecond))
	n.eventually("the client fetches pages", func() bool { return n.fetches(fetch) })
	n.eventually("the dead relay is not listed", func() bool { s := n.show(); return !s.lists(middle.name) })
	before := n.identity(middle)
	middle.start(starts[middle.name])
	n.eventually("the relay is listed again", func() bool { s := n.show(); return s.lists(middle.name) })
	if n.identity(middle) != before {
		n.t.Errorf("%s came back with other keys", middle.name)
	}
}

// testClientRestarts stops the client and starts it again: it enters the network by the same guard, which it has
// read from --data-dir. A new one would be the same by chance once in eight times.
func (n *hosts) testClientRestarts(fetch string, starts map[string]string) {
	client, before := n.all["client"], n.guard()
	client.stop()
	client.start(starts["client"])
	n.eventually("the client fetches pages", func() bool { return n.fetches(fetch) })
	n.eventually("the client enters by "+before+" again", func() bool { return n.guard() == before })
}

// guard is the first hop of most circuits.
func (n *hosts) guard() (nickname string) {
	n.t.Helper()
	n.eventually("a circuit stands", func() bool {
		count := map[string]int{}
		for _, c := range n.circuits() {
			if first := c.Hops[0].Nickname; c.State == frontdoor.Ready {
				if count[first]++; count[first] > count[nickname] {
					nickname = first
				}
			}
		}
		return nickname != ""
	})
	return nickname
}

// testSecondSignal stops a relay that has a circuit: by the first signal it waits, by the second it ends.
func (n *hosts) testSecondSignal() {
	n.t.Helper()
	var used *host
	n.eventually("a circuit stands", func() bool {
		for _, c := range n.circuits() {
			if c.State == frontdoor.Ready {
				used = n.all[c.Hops[0].Nickname]
				return true
			}
		}
		return false
	})
	used.role.command.Process.Signal(syscall.SIGTERM)
	used.says("stopping: new circuits are turned away")
	used.stop()
	used.says("circuits that had not ended are cut off")
}

// identity is a relay's identity and onion keys.
func (n *hosts) identity(h *host) string {
	return n.sh(filepath.Join(n.top, h.name), "cat relay/identity.pem relay/onion.json")
}

// circuits are the client's.
func (n *hosts) circuits() (circuits []frontdoor.Circuit) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.all["client"].run("curl -q -sS http://127.0.0.1:8118/api/circuits")), &circuits); err != nil {
		n.t.Fatal(err)
	}
	return circuits
}

// middle is the nickname of the second hop of the circuit that the endless download uses.
func (n *hosts) middle() string {
	n.t.Helper()
	for _, c := range n.circuits() {
		for _, s := range c.Streams {
			if s.Isolation != "http" { // what the front door keeps open for the next request
				return c.Hops[1].Nickname
			}
		}
	}
	n.t.Fatal("no circuit has a stream")
	return ""
}

// testHostCutOff pulls a relay's cable and puts it back.
func (n *hosts) testHostCutOff(fetch string) {
	cut := n.all["relay3"]
	n.sh(n.top, "ip link set relay3 down")
	n.eventually("the relay that is cut off is not listed", func() bool { s := n.show(); return !s.lists(cut.name) })
	n.eventually("the client fetches pages", func() bool { return n.fetches(fetch) })
	n.sh(n.top, "ip link set relay3 up")
	n.eventually("the relay is listed again", func() bool { s := n.show(); return s.lists(cut.name) })
	n.eventually("the client fetches pages", func() bool { return n.fetches(fetch) })
}
