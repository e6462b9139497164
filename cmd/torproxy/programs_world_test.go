//go:build clients && linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"torproxy/proxy/frontdoor"
)

// The addresses of the world. Names end in .test: a7.test is at 203.0.113.7, six.test at sixAddress, all
// others, and example.com, at webAddress; nx.test does not exist. The exits may connect to everything but refusedAddress.
const (
	worldAddress    = "10.77.0.1"
	machineAddress  = "10.77.0.2"
	webAddress      = "203.0.113.80"
	sixAddress      = "2001:db8::80"
	refusedAddress  = "203.0.113.99"
	machineResolver = "198.51.100.53:53" // that the machine is set up to ask, and never should
	worldResolver   = "127.0.0.1:53"     // of the exits
)

// world is everything outside the machine.
type world struct {
	*hosts
	machine *host
	outside *host // the exits, and what they lead to
	cable   *cable
}

// newWorld lays the cable and starts the servers and a network.
func newWorld(n *hosts) *world {
	n.t.Helper()
	n.sh(n.top, "ip link add name switch type bridge\nip link set switch up")
	w := &world{hosts: n}
	w.outside = n.add("world", worldAddress)
	w.outside.run(`
		ip addr add ` + machineResolver[:len("198.51.100.53")] + `/32 dev lo
		ip route add local 203.0.113.0/24 dev lo
		ip addr add ` + sixAddress + `/128 dev lo
		ip addr add fd77::1/64 dev eth0 nodad`)
	w.machine = n.add("machine", machineAddress)
	w.machine.run(`
		ip addr add fd77::2/64 dev eth0 nodad
		ip route add default via ` + worldAddress + `
		ip -6 route add default via fd77::1`)
	w.serve()
	w.startNetwork()
	return w
}

// startNetwork starts an authority, five relays and three exits. The latter ask another resolver than what
// the machine's /etc/resolv.conf says.
func (w *world) startNetwork() {
	authority, middles := w.add("authority", "10.77.1.1"), w.add("middles", "10.77.1.2")
	relays := []netip.Addr{netip.MustParseAddr(authority.address), netip.MustParseAddr(middles.address), netip.MustParseAddr(worldAddress)}
	w.cable = watchCable(w.t, "machine", func(to netip.AddrPort) bool {
		return slices.Contains(relays, to.Addr()) && to.Port() >= 7000 && to.Port() < 7100
	})
	w.sh(w.top, w.binary+" network new --out net --authority 10.77.1.1:7000")
	authority.start("torproxy dirauth --dir ../net/authority1")
	middles.start("torproxy relay --network ../net/network.json --listen 10.77.1.2:7010 --nickname middle --count 5 --data-dir relay")
	w.outside.start(`unshare --mount sh -ec 'mount --bind /run/etc/resolv.world "$(readlink -m /etc/resolv.conf)"
		exec torproxy relay --network ../net/network.json --listen ` + worldAddress + `:7020 --nickname exit --count 3 --data-dir relay \
			--exit-policy "reject ` + refusedAddress + `:*,accept private:*,accept *:*"'`)
}

// serve starts everything that programs connect to.
func (w *world) serve() {
	w.replies(machineResolver, answerName)
	w.replies(worldResolver, answerName)
	w.replies(net.JoinHostPort(webAddress, "3478"), answerCaller)
	w.git()
	w.ssh()
	pages := http.HandlerFunc(w.page)
	hosts := http.NewServeMux()
	hosts.Handle("/", pages)
	hosts.HandleFunc("browser.test/", browserPage)
	hosts.HandleFunc("script.test/", browserScript)
	hosts.Handle("ran.test/", &runs{})
	hosts.Handle("call.test/", callPage{make(chan struct{}, 1)})
	git := &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend", Root: "/",
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(w.top, "git"), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1"},
	}
	hosts.Handle("git.test/", git)
	hosts.Handle("example.com/repo.git/", git)
	for address, handler := range map[string]http.Handler{":80": hosts, ":8081": pages} {
		site := &httptest.Server{Listener: w.outside.listen(address), Config: &http.Server{Handler: handler}}
		site.Start()
		w.t.Cleanup(site.Close)
	}
	secure := &httptest.Server{Listener: w.outside.listen(":443"), Config: &http.Server{Handler: hosts}}
	secure.StartTLS()
	w.t.Cleanup(secure.Close)
}

// git makes an empty repository.
func (w *world) git() {
	w.sh(w.top, `
		mkdir git
		git init -q --bare git/repo.git
		git -C git/repo.git config http.receivepack true
		git -C git/repo.git symbolic-ref HEAD refs/heads/main`)
}

// ssh starts a server on port 2222 that lets in who has the key, as user "tester".
func (w *world) ssh() {
	w.sh(w.top, `
		mkdir ssh
		cd ssh
		ssh-keygen -q -t ed25519 -N '' -f host
		ssh-keygen -q -t ed25519 -N '' -f key
		cat >config <<-END
			Port 2222
			HostKey $PWD/host
			AuthorizedKeysFile $PWD/key.pub
			StrictModes no
			UsePAM no
			PidFile none
			Subsystem sftp internal-sftp
		END`)
	// As an ordinary user: its own change of user wants a machine's real root.
	server := w.outside.command(`exec unshare --user --map-user=1000 --map-group=1000 /usr/sbin/sshd -D -e -f ` + filepath.Join(w.top, "ssh/config"))
	var said transcript
	stderr, err := server.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		said.follow(stderr)
		server.Wait()
	}()
	w.t.Cleanup(func() {
		server.Process.Kill()
		<-ended
	})
	if _, err := said.await(func(line string) (bool, error) { return strings.Contains(line, "listening on"), nil }); err != nil {
		w.t.Fatalf("sshd: %v", err)
	}
}

// replies answers each packet that comes to an address of the world; nil is no answer.
func (w *world) replies(address string, answer func(packet []byte) []byte) {
	w.t.Helper()
	var conn net.PacketConn
	if err := w.outside.inside(func() (err error) {
		conn, err = net.ListenPacket("udp", address)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if reply := answer(b[:n]); reply != nil {
				conn.WriteTo(reply, from)
			}
		}
	}()
	w.t.Cleanup(func() {
		conn.Close()
		<-ended
	})
}

// answerCaller says to who prepares a call that he has the address 192.0.2.1:9 (RFC 8489 section 14.1).
func answerCaller(packet []byte) []byte {
	if len(packet) < 20 {
		return nil
	}
	id := packet[4:20]
	return slices.Concat([]byte{1, 1, 0, 12}, id, []byte{0, 1, 0, 8, 0, 1, 0, 9, 192, 0, 2, 1})
}

var numbered = regexp.MustCompile(`^a([0-9]+)\.test\.$`)

// answerName is the answer to a question for a name, by the rules beside worldAddress.
func answerName(packet []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(packet) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := strings.ToLower(q.Name.String())
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true}
	m.Additionals = nil
	header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
	add := func(body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: body})
	}
	address := webAddress
	if found := numbered.FindStringSubmatch(name); found != nil {
		address = "203.0.113." + found[1]
	}
	switch {
	case q.Type == dnsmessage.TypePTR && name == "80.113.0.203.in-addr.arpa.":
		add(&dnsmessage.PTRResource{PTR: dnsmessage.MustNewName("web.test.")})
	case !strings.HasSuffix(name, ".test.") && name != "example.com." || name == "nx.test.":
		m.Header.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA && name != "six.test.":
		add(&dnsmessage.AResource{A: netip.MustParseAddr(address).As4()})
	case q.Type == dnsmessage.TypeAAAA && name == "six.test.":
		add(&dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(sixAddress).As16()})
	}
	reply, err := m.Pack()
	if err != nil {
		return nil
	}
	return reply
}

// page says what was asked for, and what carried it there: the circuit of the client that has a stream to
// the name, or, for programs that ask for the address first, to that.
func (w *world) page(rw http.ResponseWriter, r *http.Request) {
	local := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	port := fmt.Sprint(local.Port)
	targets := []string{net.JoinHostPort(strings.Trim(r.Host, "[]"), port), local.String()}
	if ip := local.IP.To4(); ip != nil {
		targets = append(targets, fmt.Sprintf("a%d.test:%s", ip[3], port))
	}
	circuits, err := w.clientCircuits()
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	for _, c := range circuits {
		for _, s := range c.Streams {
			if slices.Contains(targets, s.Target) {
				fmt.Fprintf(rw, "%s by %s, circuit %s, %d streams, label %s\n", r.Host, c.Hops[len(c.Hops)-1].Nickname, c.ID, len(c.Streams), s.Isolation)
				return
			}
		}
	}
	fmt.Fprintf(rw, "%s by nobody\n", r.Host)
}

// clientCircuits asks the client on the machine.
func (w *world) clientCircuits() (circuits []frontdoor.Circuit, err error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, address string) (conn net.Conn, err error) {
			err = w.machine.inside(func() (err error) {
				conn, err = net.Dial(network, address)
				return err
			})
			return conn, err
		},
	}}
	answer, err := client.Get("http://127.0.0.1:8118/api/circuits")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return circuits, json.NewDecoder(answer.Body).Decode(&circuits)
}
