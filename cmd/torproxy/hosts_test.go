//go:build clients && linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
