//go:build clients && linux

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// This file and those beside it run the programs that people use with torproxy, as they use them.
//
//	world     an authority, relays and exits, and behind them web, git and SSH servers   programs_world_test.go
//	machine   a client, and every program; its resolver and its default route lie at the other end of a cable
//	cable     reads each packet that leaves the machine                                   programs_cable_test.go
//
// What leaves the machine may be the client's links to relays and nothing else: no question for a name, no
// packet to a destination. Programs that are set up wrongly show that the cable would see it.
//
// As with the hosts' test, all of it is in namespaces of the test's own: no packet leaves those.

// insidePrograms is the environment variable that tells the inner test so, and where the binary is;
// fetchVariable makes this binary the Go program that fetches a page.
const (
	insidePrograms = "TORPROXY_TEST_PROGRAMS"
	fetchVariable  = "TORPROXY_TEST_FETCH"
)

// programsNeeded are looked for before anything is started.
var programsNeeded = []string{
	"ip", "unshare", "nsenter", "curl", "tor-resolve", "torsocks", "proxychains4", "git", "ssh", "scp", "/usr/sbin/sshd",
	"nc.openbsd", "connect-proxy", "chromium", "firefox-esr",
}

// insideSetup gives the test files of its own in place of the machine's.
const insideSetup = `
mount -t tmpfs tmpfs /run
mkdir -p /run/etc /run/sshd /run/user/1000
cd /run/etc
echo nameserver 198.51.100.53 >resolv.conf
echo nameserver 127.0.0.1 >resolv.world
echo 127.0.0.1 localhost $(hostname) >hosts
echo hosts: files dns >nsswitch.conf
cat >passwd <<END
root:x:0:0::/:/bin/sh
tester:x:1000:1000::/:/bin/sh
END
for f in resolv.conf hosts nsswitch.conf passwd; do
	at=$(readlink -m /etc/$f)
	[ -e "$at" ] || { mkdir -p "$(dirname "$at")"; : >"$at"; }
	mount --bind $f "$at"
done
cd "$OLDPWD"
exec "$0" "$@"`

func TestPrograms(t *testing.T) {
	if url := os.Getenv(fetchVariable); url != "" {
		goFetch(t, url)
		return
	}
	if binary := os.Getenv(insidePrograms); binary != "" {
		runPrograms(t, binary)
		return
	}
	for _, program := range programsNeeded {
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
	args = append(args, "sh", "-ec", insideSetup, self, "-test.run=^TestPrograms$", "-test.v")
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), insidePrograms+"="+build(t))
	dieWithTest(cmd)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("after %v:\n%s", time.Since(began), out)
}

// goFetch is a Go program with the standard library's HTTP client, set up by its environment.
func goFetch(t *testing.T, url string) {
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		t.Fatal(err)
	}
}

func runPrograms(t *testing.T, binary string) {
	w := newWorld(&hosts{t: t, binary: binary, top: t.TempDir(), all: map[string]*host{}})
	w.machine.start("torproxy --network ../net/network.json --json")
	t.Run("plain", func(t *testing.T) { w.uses(t, plainUses) })
	t.Run("lookups", func(t *testing.T) { w.uses(t, lookupUses) })
	t.Run("isolation", w.testIsolation)
	t.Run("user names", func(t *testing.T) { w.uses(t, userNameUses) })
	t.Run("git", func(t *testing.T) { w.uses(t, gitUses) })
	t.Run("ssh", func(t *testing.T) { w.uses(t, sshUses) })
	t.Run("browsers", func(t *testing.T) { w.uses(t, browserUses) })
	t.Run("leaks", w.testLeaks)
	t.Run("CLIENT.md", func(t *testing.T) { w.uses(t, documentUses(t, "sh")) })
	w.restart("--optimistic --isolate dest --exit exit2,exit3 --exclude middle1,exit3")
	t.Run("flags", func(t *testing.T) { w.uses(t, flagUses) })
	w.restart("--socks unix:/run/user/1000/torproxy.sock")
	t.Run("unix socket", func(t *testing.T) { w.uses(t, append(socketUses, documentUses(t, "sh unix")...)) })
	w.machine.stop()
}

// restart stops the client and starts it with other flags.
func (w *world) restart(flags string) {
	w.t.Helper()
	w.machine.stop()
	w.machine.start("torproxy --network ../net/network.json --json " + flags)
}

// documentUses are the boxes of CLIENT.md of one kind: all their commands must succeed.
func documentUses(t *testing.T, kind string) (all []use) {
	page, err := os.ReadFile("CLIENT.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, box := range strings.Split(string(page), "```") {
		if info, commands, _ := strings.Cut(box, "\n"); i%2 == 1 && info == kind {
			all = append(all, use{name: fmt.Sprint(i/2 + 1), script: commands, says: `.`})
		}
	}
	if len(all) == 0 {
		t.Errorf("CLIENT.md has no boxes %q", kind)
	}
	return all
}

// use is one thing that somebody does with a program.
type use struct {
	name   string
	script string // for sh; $S is the SOCKS port, $H the HTTP port, $D a directory of the use's own, $TOP the world's
	says   string // a regular expression for what it prints
	code   int    // its exit code
}

// shell carries a use out on the machine and checks what it printed. It returns that, and what came out of
// the cable meanwhile.
func (w *world) shell(t *testing.T, u use) (string, escaped) {
	t.Helper()
	on := *w.machine
	at := *w.hosts
	at.t, on.hosts = t, &at // failures are this test's
	w.cable.since(&on, worldAddress)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := on.command("exec timeout -k 5 60 sh -ec \"$SCRIPT\"")
	cmd.Dir = t.TempDir()
	cmd.Env = append(cmd.Env, "S=127.0.0.1:9050", "H=127.0.0.1:8118", "D="+cmd.Dir, "TOP="+w.top, "GO="+self, "HOME="+cmd.Dir,
		"SSH=ssh -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i "+w.top+"/ssh/key",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "SCRIPT="+u.script)
	began := time.Now()
	b, err := cmd.CombinedOutput()
	out := string(b)
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != u.code || !regexp.MustCompile(u.says).MatchString(out) {
		t.Errorf("%s\nended with %d, want %d, after %v; it printed\n%swhich should be like %s", u.script, code, u.code, time.Since(began), out, u.says)
	}
	return out, w.cable.since(&on, worldAddress)
}

// uses carries out uses that must not leak anything.
func (w *world) uses(t *testing.T, all []use) {
	for _, u := range all {
		t.Run(u.name, func(t *testing.T) {
			_, seen := w.shell(t, u)
			if leaks := seen.leaks(); len(leaks) > 0 {
				t.Errorf("%d packets leaked: %s", len(leaks), strings.Join(leaks, "; "))
			}
		})
	}
}

// testLeaks uses programs wrongly, to see that the cable sees it.
func (w *world) testLeaks(t *testing.T) {
	for _, u := range []struct {
		use
		names, others bool // are seen
	}{
		{use{name: "curl resolves", script: `curl -q -sS --socks5 $S http://web.test/`, says: `^web\.test by exit`}, true, false},
		{use{name: "Firefox resolves", script: firefox("false", "http://browser.test/"), says: `Firefox/`}, true, false},
		{use{name: "Chromium calls", script: chromiumHeadless + `--proxy-server=socks5://$S --dump-dom http://call.test/ 2>log`, says: `the call is prepared`}, true, true},
		{use{name: "curl asks nobody", script: `curl -q -sS http://web.test/`, says: `^web\.test by nobody`}, true, true},
		{use{name: "curl connects", script: `curl -q -sS http://` + webAddress + `/`, says: `by nobody`}, false, true},
		{use{name: "IPv6", script: `curl -q -sS 'http://[` + sixAddress + `]/'`, says: `by nobody`}, false, true},
		{use{name: "another resolver", script: `echo query | nc.openbsd -u -w 1 192.0.2.53 53`}, true, false},
	} {
		t.Run(u.name, func(t *testing.T) {
			_, seen := w.shell(t, u.use)
			if (len(seen.names) > 0) != u.names || (len(seen.others) > 0) != u.others {
				t.Errorf("seen on the cable: %q and %q", seen.names, seen.others)
			}
		})
	}
}

// byExit is what the page says when it came through the network.
func byExit(host string) string { return `^` + regexp.QuoteMeta(host) + ` by exit[123], circuit ` }

// plainUses fetch pages.
var plainUses = []use{
	{name: "curl --socks5-hostname", script: `curl -q -sS --socks5-hostname $S http://a1.test/`, says: byExit("a1.test")},
	{name: "curl socks5h", script: `curl -q -sS -x socks5h://$S http://a2.test/`, says: byExit("a2.test")},
	{name: "curl ALL_PROXY", script: `ALL_PROXY=socks5h://$S curl -q -sS http://a3.test/`, says: byExit("a3.test")},
	{name: "curl, an address", script: `curl -q -sS --socks5 $S http://203.0.113.4/`, says: byExit("203.0.113.4")},
	{name: "curl, IPv6", script: `curl -q -sS -x socks5h://$S http://six.test/`, says: byExit("six.test")},
	{name: "curl, an IPv6 address", script: `curl -q -sS -x socks5h://$S 'http://[2001:db8::80]/'`, says: byExit("[2001:db8::80]")},
	{name: "curl, TLS", script: `curl -q -sS -k -x socks5h://$S https://a5.test/`, says: byExit("a5.test")},
	{name: "curl, a proxy behind it", script: `curl -q -sS --preproxy socks5h://$S -x http://a6.test:8081 http://web.test/`, says: `^web\.test by exit`},
	{name: "curl, front door", script: `curl -q -sS -x http://$H http://a7.test/`, says: byExit("a7.test")},
	{name: "curl http_proxy", script: `http_proxy=http://$H curl -q -sS http://a11.test/`, says: byExit("a11.test")},
	{name: "curl, front door, TLS", script: `curl -q -sS -k -x http://$H https://a8.test/`, says: byExit("a8.test")},
	{name: "curl, front door, CONNECT", script: `curl -q -sS --proxytunnel -x http://$H http://a9.test/`, says: byExit("a9.test")},
	{name: "curl, a large upload", script: `head -c 4000000 /dev/zero | curl -q -sS --data-binary @- -x socks5h://$S http://a10.test/`, says: byExit("a10.test")},
	{
		name:   "curl's exit codes",
		script: `for url in http://nx.test/ http://web.test:1/ http://203.0.113.99/ http://$H/; do curl -q -s -w '%{exitcode} %{errormsg}\n' --socks5-hostname $S $url || true; done`,
		says:   `^97 .* nx\.test\. \(4\)\n97 .* web\.test\. \(5\)\n97 .* 203\.0\.113\.99\. \(2\)\n97 .* 127\.0\.0\.1\. \(2\)\n$`,
	},
	{name: "curl speaks SOCKS4", script: `curl -q -sS -x socks4a://$S http://web.test/`, code: 97, says: `rejected or failed`},
	{name: "curl speaks HTTP", script: `curl -q -sS -x http://$S http://web.test/`, says: `SOCKS5 port`},
	{name: "curl speaks TLS", script: `curl -q -sS -x https://$S http://web.test/`, code: 35, says: `unexpected message`},
	{name: "Go", script: fetchVariable + `=http://a12.test/ HTTP_PROXY=socks5://$S $GO -test.run='^TestPrograms$'`, says: byExit("a12.test")},
	{name: "Go, socks5h, TLS", script: fetchVariable + `=https://a13.test/ HTTPS_PROXY=socks5h://$S $GO -test.run='^TestPrograms$'`, code: 1, says: `failed to verify certificate`},
	{name: "Go, front door", script: fetchVariable + `=http://a14.test/ HTTP_PROXY=http://$H $GO -test.run='^TestPrograms$'`, says: byExit("a14.test")},
	{
		name:   "UDP ASSOCIATE", // command not supported
		script: `printf '\005\001\000\005\003\000\001\000\000\000\000\000\000' | nc.openbsd 127.0.0.1 9050 | od -A n -t x1`,
		says:   `^ 05 00 05 07 00 01( 00){6}\n$`,
	},
	{name: "proxychains4", script: chains("") + `proxychains4 -q -f chains curl -q -sS http://a15.test/`, says: byExit("a15.test")},
	{name: "netcat", script: `printf 'GET / HTTP/1.0\r\nHost: a16.test\r\n\r\n' | nc.openbsd -X 5 -x $S a16.test 80`, says: `(?s)200 OK.*a16\.test by exit`},
}

// chains is the set-up of proxychains4, with credentials or without.
func chains(credentials string) string {
	return fmt.Sprintf("printf 'strict_chain\\nproxy_dns\\nremote_dns_subnet 224\\n[ProxyList]\\nsocks5 127.0.0.1 9050 %s\\n' >chains\n", credentials)
}

// lookupUses ask for names and addresses; torsocks does before it connects.
var lookupUses = []use{
	{name: "tor-resolve", script: `tor-resolve web.test $S`, says: `^203\.0\.113\.80\n$`},
	{name: "tor-resolve, IPv6", script: `tor-resolve six.test $S`, says: `^2001:db8::80\n$`},
	{name: "tor-resolve, by port", script: `tor-resolve -p 9050 a1.test`, says: `^203\.0\.113\.1\n$`},
	{name: "tor-resolve -x", script: `tor-resolve -x 203.0.113.80 $S`, says: `^web\.test\n$`},
	{name: "tor-resolve, no such name", script: `tor-resolve nx.test $S`, code: 1, says: `host is unreachable`},
	{name: "tor-resolve -x, no such address", script: `tor-resolve -x 203.0.113.7 $S`, code: 1, says: `host is unreachable`},
	{name: "torsocks curl", script: `torsocks curl -q -sS http://a31.test/`, says: byExit("a31.test")},
	{name: "torsocks git", script: `torsocks git ls-remote http://git.test/repo.git && echo listed`, says: `^listed\n$`},
	{name: "torsocks keeps UDP in", script: `torsocks nc.openbsd -u -w 1 203.0.113.80 53 </dev/null 2>&1 || echo refused`, says: `refused`},
}

// userNameUses choose relays by the user name.
var userNameUses = []use{
	{name: "exit", script: `curl -q -sS -x socks5h://ann+exit=exit1:any@$S http://a61.test/`, says: `^a61\.test by exit1, `},
	{name: "another exit", script: `curl -q -sS --socks5-hostname $S -U ann+exit=exit2:any http://a62.test/`, says: `^a62\.test by exit2, `},
	{name: "not these", script: `torsocks -u ann+exclude=exit1,exit2 -p any curl -q -sS http://a63.test/`, says: `^a63\.test by exit3, `},
	{name: "front door", script: `curl -q -sS -x http://ann+exit=exit3:any@$H http://a64.test/`, says: `^a64\.test by exit3, `},
	{name: "front door, TLS", script: `curl -q -sS -k -x http://ann+exit=exit1:any@$H https://a65.test/`, says: `^a65\.test by exit1, `},
	{name: "nobody", script: `curl -q -sS -x socks5h://ann+exit=nobody:any@$S http://a66.test/`, code: 97, says: `\([0-9]+\)`},
	{name: "misspelt", script: `curl -q -sS -x socks5h://ann+exti=exit1:any@$S http://web.test/`, code: 97, says: `User was rejected`},
	{name: "misspelt, front door", script: `curl -q -sS -w '%{http_code}' -x http://ann+exti=exit1:any@$H http://web.test/`, says: `user name .*(?s).*407$`},
}

// flagUses are with a client that is optimistic, and of whose two chosen exits one is excluded.
var flagUses = []use{
	{name: "curl", script: `curl -q -sS --socks5-hostname $S http://a71.test/`, says: `^a71\.test by exit2, circuit [^,]+, 1 streams`},
	{name: "front door", script: `curl -q -sS -x http://$H http://a72.test/`, says: `^a72\.test by exit2, `},
	{name: "another exit", script: `curl -q -sS -x socks5h://ann+exit=exit1:any@$S http://a73.test/`, says: `^a73\.test by exit1, `},
	{
		name:   "refused", // curl finds out while it sends its request, or behind that
		script: `curl -q -sS --socks5-hostname $S http://a74.test:1/ || echo "exit code $?"`,
		says:   `^curl: \((56\) .*reset.*\nexit code 56|55\) .*(not connected|reset|[Bb]roken pipe).*\nexit code 55)\n$`,
	},
	{name: "ssh", script: `$SSH -p 2222 -o 'ProxyCommand=nc.openbsd -X 5 -x 127.0.0.1:9050 %h %p' tester@a75.test echo hello`, says: `^hello\n$`},
	{name: "isolated", script: `for i in 6 7; do curl -q -sS --socks5-hostname $S http://a7$i.test/; done | sed 's/.*circuit \([^,]*\).*/\1/' | sort -u | wc -l`, says: `^2\n$`},
}

var gitUses = []use{
	{
		name: "push and clone",
		script: `export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@a.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@a.test
			git init -q -b main one && cd one
			head -c 3000000 /dev/urandom >file && git add file && git commit -q -m first
			git -c http.postBuffer=10000000 -c http.proxy=socks5h://gu:gp@$S push -q http://git.test/repo.git main
			cd .. && ALL_PROXY=socks5h://$S git clone -q http://git.test/repo.git two && cmp one/file two/file
			git -c http.proxy=http://$H clone -q http://git.test/repo.git three && cmp one/file three/file && echo same`,
		says: `^same\n$`,
	},
}

var sshUses = []use{
	{name: "ssh", script: `$SSH -p 2222 -o 'ProxyCommand=nc.openbsd -X 5 -x 127.0.0.1:9050 %h %p' tester@a41.test 'echo hello by $SSH_CONNECTION'`, says: `^hello by `},
	{
		name: "scp",
		script: `head -c 5000000 /dev/urandom >file
			set -- $SSH; shift
			scp -q "$@" -P 2222 -o 'ProxyCommand=nc.openbsd -X 5 -x 127.0.0.1:9050 %h %p' file tester@a42.test:$D/there
			scp -q "$@" -P 2222 -o 'ProxyCommand=nc.openbsd -X 5 -x 127.0.0.1:9050 %h %p' tester@a42.test:$D/there back
			cmp file back && echo same`,
		says: `^same\n$`,
	},
	{name: "connect-proxy", script: `SOCKS5_USER=su SOCKS5_PASSWORD=sp $SSH -p 2222 -o 'ProxyCommand=connect-proxy -S 127.0.0.1:9050 -R remote %h %p' tester@a43.test echo hello`, says: `^hello\n$`},
	{name: "torsocks ssh", script: `torsocks $SSH -p 2222 tester@a44.test echo hello`, says: `^hello\n$`},
}

var socketUses = []use{
	{name: "curl", script: `curl -q -sS -x socks5h://localhost/run/user/1000/torproxy.sock http://a51.test/`, says: byExit("a51.test")},
	{name: "curl, credentials", script: `curl -q -sS -x socks5h://u:p@localhost/run/user/1000/torproxy.sock http://a52.test/`, says: byExit("a52.test") + `.* label socks:`},
	{name: "permissions", script: `stat -c %A /run/user/1000/torproxy.sock`, says: `^srw-------\n$`},
}

var itsCircuit = regexp.MustCompile(`circuit (\S+), `)

// testIsolation: on one port the same credentials share a circuit whatever the program, and different ones
// never do.
func (w *world) testIsolation(t *testing.T) {
	circuitOf, ownerOf := map[string]string{}, map[string]string{}
	site := 100
	for _, program := range []struct{ name, port, script string }{
		{"curl, URL", "socks", `curl -q -sS -x socks5h://USER:PASS@$S http://SITE/`},
		{"curl --proxy-user", "socks", `curl -q -sS --socks5-hostname $S --proxy-user USER:PASS http://SITE/`},
		{"curl, front door", "http", `curl -q -sS -x http://USER:PASS@$H http://SITE/`},
		{"torsocks", "socks", `torsocks -u USER -p PASS curl -q -sS http://SITE/`},
		{"proxychains4", "socks", chains("USER PASS") + `proxychains4 -q -f chains curl -q -sS http://SITE/`},
		{"Go", "socks", fetchVariable + `=http://SITE/ HTTP_PROXY=socks5://USER:PASS@$S $GO -test.run='^TestPrograms$'`},
	} {
		t.Run(program.name, func(t *testing.T) {
			for _, as := range [][2]string{{"ann", "one"}, {"ann", "two"}, {"ben", "one"}, {"ann", "one"}} {
				site++
				host := fmt.Sprintf("a%d.test", site)
				script := strings.NewReplacer("USER", as[0], "PASS", as[1], "SITE", host).Replace(program.script)
				out, seen := w.shell(t, use{script: script, says: byExit(host)})
				if leaks := seen.leaks(); len(leaks) > 0 {
					t.Errorf("leaked: %q", leaks)
				}
				found := itsCircuit.FindStringSubmatch(out)
				if found == nil {
					continue
				}
				who, circuit := program.port+" "+as[0]+":"+as[1], found[1]
				if other, known := ownerOf[circuit]; known && other != who {
					t.Errorf("%s and %s share circuit %s", who, other, circuit)
				}
				if before, known := circuitOf[who]; known && before != circuit {
					t.Errorf("%s used circuit %s, and then %s", who, before, circuit)
				}
				circuitOf[who], ownerOf[circuit] = circuit, who
			}
		})
	}
	out, _ := w.shell(t, use{script: `for i in 1 2; do torsocks -i curl -q -sS http://a19$i.test/; done`, says: `(?s)a191.*a192`})
	if found := itsCircuit.FindAllStringSubmatch(out, -1); len(found) != 2 || found[0][1] == found[1][1] {
		t.Errorf("torsocks -i twice: %q", out)
	}
}
