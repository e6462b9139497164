//go:build clients && linux

package main

import (
	"fmt"
	"net/http"
	"sync"
)

// browserPage has what makes browsers look names up: a script and a picture of other sites, and hints to
// look up and connect ahead of need.
func browserPage(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "text/html")
	fmt.Fprint(rw, `<!DOCTYPE html>
<title>page</title>
<link rel="dns-prefetch" href="//ahead.test">
<link rel="preconnect" href="http://connected.test">
<body>
<img src="http://picture.test/">
<script src="http://script.test/"></script>
`)
}

// browserScript writes into the page, and lets the site ran.test know that it ran.
func browserScript(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "text/javascript")
	fmt.Fprint(rw, `document.body.append("the script " + "has run");
		let known = new Image();
		known.src = "http://ran.test/";
		document.body.append(known);`)
}

// runs is the site ran.test: /last tells which browser was there last.
type runs struct {
	mu   sync.Mutex
	last string
}

func (s *runs) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/last" {
		fmt.Fprintln(rw, s.last)
		return
	}
	s.last = r.UserAgent()
}

// callPage is a page that prepares a call, for which browsers look for ways around the proxy. It is loaded
// when they have looked everywhere.
type callPage struct{ looked chan struct{} }

func (s callPage) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/looked":
		select {
		case s.looked <- struct{}{}:
		default:
		}
	case "/wait":
		select {
		case <-s.looked:
		case <-r.Context().Done():
		}
	default:
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprint(rw, `<!DOCTYPE html>
<title>call</title>
<body>
<img src="/wait">
<script>
	let call = new RTCPeerConnection({iceServers: [{urls: "stun:`+webAddress+`:3478"}]});
	call.onicegatheringstatechange = () => {
		if (call.iceGatheringState == "complete") {
			document.body.append("the call " + "is prepared");
			fetch("/looked");
		}
	};
	call.createDataChannel("data");
	call.createOffer().then(offer => call.setLocalDescription(offer));
</script>
`)
	}
}

const chromiumHeadless = `chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir=$D/chromium `

// firefox draws a page with a profile that leaves names to the proxy or not.
func firefox(remoteNames, url string) string {
	return fmt.Sprintf(`mkdir profile
		cat >profile/user.js <<-END
			user_pref("network.proxy.type", 1);
			user_pref("network.proxy.socks", "127.0.0.1");
			user_pref("network.proxy.socks_port", 9050);
			user_pref("network.proxy.socks_version", 5);
			user_pref("network.proxy.socks_remote_dns", %[1]s);
			user_pref("network.proxy.socks5_remote_dns", %[1]s);
			user_pref("network.proxy.failover_direct", false);
			user_pref("network.proxy.allow_bypass", false);
			user_pref("network.proxy.allow_hijacking_localhost", true);
			user_pref("media.peerconnection.enabled", false);
			user_pref("network.http.http3.enable", false);
			user_pref("network.trr.mode", 5);
		END
		timeout -k 1 40 firefox-esr --headless --no-remote --profile $D/profile --window-size 400,300 --screenshot $D/page.png %[2]s >log 2>&1 || cat log
		[ -s page.png ] && curl -q -sS -x socks5h://$S http://ran.test/last`, remoteNames, url)
}

var browserUses = []use{
	{name: "Chromium, SOCKS", script: chromiumHeadless + `--proxy-server=socks5://$S --dump-dom http://browser.test/ 2>log`, says: `the script has run`},
	{name: "Chromium, front door", script: chromiumHeadless + `--proxy-server=http://$H --dump-dom http://browser.test/ 2>log`, says: `the script has run`},
	{name: "Chromium, proxy.pac", script: chromiumHeadless + `--proxy-pac-url=http://$H/proxy.pac --dump-dom http://browser.test/ 2>log`, says: `the script has run`},
	{name: "Chromium, a call", script: chromiumHeadless + `--proxy-server=http://$H --disable-quic --proxy-bypass-list="<-loopback>" --webrtc-ip-handling-policy=disable_non_proxied_udp --dump-dom http://call.test/ 2>log`, says: `the call is prepared`},
	{name: "Firefox", script: firefox("true", "http://browser.test/"), says: `Firefox/`},
}
