package browser

import (
	_ "embed"
	"encoding/base64"
	"fmt"
	"net/netip"
)

// firefoxPreferences are those of every profile; the PAC comes after them.
//
//go:embed firefox.js
var firefoxPreferences string

// pac is what Firefox is told of proxies: pages go through the front door, and there is no other way for
// them; whatever else there may be goes to a port at which nobody listens.
func pac(proxy netip.AddrPort) string {
	return fmt.Sprintf(`function FindProxyForURL(url, host) {
	if (/^(https?|wss?):/i.test(url)) return "PROXY %v";
	return "PROXY 127.0.0.1:1";
}
`, proxy)
}

// firefoxFiles are the files of a fresh profile.
func firefoxFiles(proxy netip.AddrPort) map[string][]byte {
	data := "data:application/x-ns-proxy-autoconfig;base64," + base64.StdEncoding.EncodeToString([]byte(pac(proxy)))
	return map[string][]byte{
		"user.js": []byte(firefoxPreferences + fmt.Sprintf("user_pref(%q, %q);\n", "network.proxy.autoconfig_url", data)),
	}
}

// firefoxArguments are Firefox's, and the link.
func firefoxArguments(dir string, link Link) []string {
	return []string{"--no-remote", "--new-instance", "--profile", dir, link.String()}
}

// firefoxEnvironment lets services.settings.server in firefox.js have an effect: without it Firefox fetches
// Mozilla's settings within a second of its start, whatever the preferences say.
const firefoxEnvironment = "MOZ_REMOTE_SETTINGS_DEVTOOLS=1"
