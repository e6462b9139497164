//go:build clients && linux

package browser

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file opens links in the real browsers, in a network namespace whose only way out is a tun device
// that leads nowhere: every packet that a browser would send past the proxy is seen, and none escapes.
//
// The test runs itself again in the namespaces, so that nothing of the machine's is touched.

// insideNamespace is the environment variable that tells the inner test so.
const insideNamespace = "TORPROXY_TEST_BROWSER"

// inNamespace runs the test again, alone, in a network and a mount namespace. It reports whether this is the
// inner run.
func inNamespace(t *testing.T, programs ...string) bool {
	t.Helper()
	if os.Getenv(insideNamespace) != "" {
		return true
	}
	for _, p := range append(programs, "unshare", "ip") {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is not installed: .ci/test installs it", p)
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
	cmd := exec.Command("unshare", append(args, self, "-test.run=^"+t.Name()+"$", "-test.v")...)
	cmd.Env = append(os.Environ(), insideNamespace+"=1")
	runtime.LockOSThread() // the process ends with the thread that started it, however the test ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
	return false
}

// wire is the namespace's network: what is sent on it but to the proxy.
type wire struct {
	mu     sync.Mutex
	leaked map[string]int // packets by protocol and destination
	proxy  uint16         // port
}

// newWire makes the network: lo, and a tun device with routes for everything and a resolver behind it.
func newWire(t *testing.T, proxy netip.AddrPort) *wire {
	t.Helper()
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal("/dev/net/tun: ", err)
	}
	request, err := unix.NewIfreq("way-out")
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(tun, unix.TUNSETIFF, request); err != nil {
		t.Fatal("make a tun device: ", err)
	}
	device := os.NewFile(uintptr(tun), "tun")
	go io.Copy(io.Discard, device) // a device that nobody reads from has no carrier
	resolver := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolver, []byte("nameserver 192.0.2.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{
		"ip link set lo up",
		"ip link set way-out addrgenmode none", // else the kernel sends packets of its own
		"ip link set way-out up",
		"ip addr add 192.0.2.1/24 dev way-out",
		"ip addr add 2001:db8::1/64 dev way-out nodad",
		"ip route add default dev way-out",
		"ip -6 route add default dev way-out",
		"mount --bind " + resolver + " /etc/resolv.conf",
	} {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
	w := &wire{leaked: map[string]int{}, proxy: proxy.Port()}
	every := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff}) // in network order
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(every))
	if err != nil {
		t.Fatal("listen to the devices: ", err)
	}
	go w.listen(socket) // both end with the inner test's process
	return w
}

// listen notes every packet that is sent, on every device.
func (w *wire) listen(socket int) {
	packet := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(socket, packet, 0)
		if err != nil {
			return
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
			w.note(packet[:n])
		}
	}
}

// note counts a packet unless it is one between a browser and the proxy.
func (w *wire) note(p []byte) {
	var src, dst netip.Addr
	var protocol byte
	var body []byte
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		src, dst = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
		protocol, body = p[9], p[min(len(p), int(p[0]&15)*4):]
	case len(p) >= 40 && p[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
		protocol, body = p[6], p[40:]
	}
	var from, to uint16
	if len(body) >= 4 && (protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_UDP) {
		from, to = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	}
	if protocol == unix.IPPROTO_TCP && src.IsLoopback() && dst.IsLoopback() && (from == w.proxy || to == w.proxy) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leaked[fmt.Sprintf("protocol %d to %v", protocol, netip.AddrPortFrom(dst, to))]++
}

func (w *wire) leaks() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]int{}
	for k, n := range w.leaked {
		all[k] = n
	}
	return all
}

// probes is a page that tries every way out that a page has, and then waits for what the browser does by
// itself. It says when it is done.
const probes = `<!doctype html><title>probes</title>
<link rel=dns-prefetch href="//prefetch.site.test"><link rel=preconnect href="http://preconnect.site.test">
<link rel=prefetch href="http://next.site.test/"><img src="http://localhost:7777/localhost.png"><img src="http://[::1]:7777/loopback6.png">
<img src="http://192.0.2.9/address.png"><img src="ftp://ftp.site.test/ftp.png">
<script>
(async () => {
	let said = [];
	try {
		const pc = new RTCPeerConnection({iceServers: [{urls: "stun:192.0.2.19:3478"}, {urls: "stun:stun.site.test:3478"}]});
		pc.createDataChannel("x");
		pc.onicecandidate = e => { if (e.candidate) said.push(e.candidate.candidate) };
		await pc.setLocalDescription(await pc.createOffer());
	} catch (e) { said.push("" + e) }
	try { new WebSocket("ws://socket.site.test/") } catch (e) { said.push("" + e) }
	try { navigator.sendBeacon("http://beacon.site.test/", "x") } catch (e) { said.push("" + e) }
	await new Promise(done => setTimeout(done, 15000));
	fetch("/done?" + encodeURIComponent(said.join("|")));
})();
</script>`

// answers is the proxy: it is every site by itself.
type answers struct {
	mu       sync.Mutex
	requests []string
	done     chan string
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.requests = append(a.requests, r.Method+" "+r.RequestURI)
	a.mu.Unlock()
	switch {
	case r.Method == http.MethodConnect:
		http.Error(w, "no", http.StatusBadGateway)
	case r.URL.Path == "/done":
		select {
		case a.done <- r.URL.RawQuery:
		default:
		}
	case r.URL.Path == "/probes":
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Alt-Svc", `h3=":443"; ma=86400`)
		io.WriteString(w, probes)
	default:
		http.NotFound(w, r)
	}
}

func (a *answers) all() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

func newAnswers(t *testing.T, address string) (*answers, netip.AddrPort) {
	t.Helper()
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	a := &answers{done: make(chan string, 1)}
	server := &http.Server{Handler: a}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return a, netip.MustParseAddrPort(l.Addr().String())
}

// wrap makes a command of a browser's name that adds arguments which a test needs, and no user does: there
// is no display here, and tests may be run by root.
func wrap(t *testing.T, name string, args ...string) string {
	t.Helper()
	real, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: .ci/test installs it", name)
	}
	path := filepath.Join(t.TempDir(), name)
	script := "#!/bin/sh\nexec " + real + " " + strings.Join(args, " ") + " \"$@\"\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// keepsToTheProxy opens a page of this machine's own, which browsers like to reach without a proxy, and
// judges everything that was sent until the page is done.
func keepsToTheProxy(t *testing.T, program, address string) {
	a, proxy := newAnswers(t, address)
	w := newWire(t, proxy)
	link, err := ParseLink("http://127.0.0.1:7777/probes")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	window, err := Start(ctx, Config{Proxy: proxy, Program: program}, link)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case said := <-a.done:
		t.Logf("the page said %s", said)
	case <-window.Ended():
		t.Fatalf("it has ended: %v", window.Wait())
	case <-time.After(time.Minute):
		t.Errorf("the page was not done in a minute")
	}
	requests := a.all()
	t.Logf("requests: %q", requests)
	end()
	if err := window.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(window.profile.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the profile is still there: %v", err)
	}
	if leaks := w.leaks(); len(leaks) > 0 {
		t.Errorf("packets that were not for the proxy: %v", leaks)
	}
	for _, want := range []string{"GET http://127.0.0.1:7777/probes", "GET http://localhost:7777/localhost.png", "GET http://192.0.2.9/address.png", "CONNECT socket.site.test:80"} {
		if !slices.Contains(requests, want) {
			t.Errorf("%s did not come through the proxy", want)
		}
	}
	for _, r := range requests {
		if !strings.Contains(r, "site.test") && !strings.Contains(r, "//127.0.0.1:7777/") && !strings.Contains(r, "//localhost:7777/") &&
			!strings.Contains(r, "//[::1]:7777/") && !strings.Contains(r, "//192.0.2.9/") {
			t.Errorf("the browser asked by itself: %s", r)
		}
	}
}

func TestChromiumKeepsToTheProxy(t *testing.T) {
	if inNamespace(t, "chromium") {
		keepsToTheProxy(t, wrap(t, "chromium", "--headless", "--no-sandbox"), "[::1]:0")
	}
}

func TestFirefoxKeepsToTheProxy(t *testing.T) {
	if inNamespace(t, "firefox-esr") {
		keepsToTheProxy(t, wrap(t, "firefox-esr", "--headless"), "127.0.0.1:0")
	}
}

// TestPacketsAreSeen makes sure that the tests above can fail: Chromium with the proxy and nothing more sends
// packets past it.
func TestPacketsAreSeen(t *testing.T) {
	if !inNamespace(t, "chromium") {
		return
	}
	a, proxy := newAnswers(t, "127.0.0.1:0")
	w := newWire(t, proxy)
	cmd := exec.Command(wrap(t, "chromium", "--headless", "--no-sandbox"),
		"--user-data-dir="+t.TempDir(), "--no-first-run", "--proxy-server=http://"+proxy.String(), "http://site.test/probes")
	group(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer endGroup(cmd)
	select {
	case said := <-a.done:
		t.Logf("the page said %s", said)
	case <-time.After(time.Minute):
		t.Fatal("the page was not done in a minute")
	}
	leaks := w.leaks()
	t.Logf("packets: %v", leaks)
	for _, want := range []string{"protocol 17 to 192.0.2.19:3478", "protocol 17 to 192.0.2.53:53"} {
		if leaks[want] == 0 {
			t.Errorf("no packet was seen: %s", want)
		}
	}
}
