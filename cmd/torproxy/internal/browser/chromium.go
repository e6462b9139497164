package browser

import (
	"encoding/json"
	"net/netip"
	"strings"
)

// What Chromium does by itself in a fresh profile was measured with version 156, in a network namespace in
// which every packet is seen: without these switches it asks five hosts of Google's, and sends STUN, mDNS and
// DNS by UDP past the proxy for a page that uses WebRTC. With them two minutes show the page's own requests
// and nothing else (TestChromiumKeepsToTheProxy).

// chromiumOff are features that talk to somebody by themselves.
var chromiumOff = []string{
	"DialMediaRouteProvider", "MediaRouter", // looks for televisions by multicast
	"NetworkTimeServiceQuerying", // asks Google for the time
	"OptimizationHints", "OptimizationHintsFetching", "OptimizationGuideModelDownloading",
	"WebRtcHideLocalIpsWithMdns", // joins a multicast group; no address is offered in the first place
	"AutofillServerCommunication", "CertificateTransparencyComponentUpdater", "InterestFeedContentSuggestions", "Translate",
}

// nowhere is an address at which nobody listens: the one that services of Google's are given.
const nowhere = "http://127.0.0.1:1/"

// chromiumArguments are the switches of Chromium, Chrome and Edge, and the link.
//
// The proxy is given as --proxy-server and not in a PAC: what a PAC says does not hold for localhost, which
// Chromium then connects to directly, past the proxy, for any page that asks. "<-loopback>" is what takes
// that exception away, and it works without a PAC only.
func chromiumArguments(dir string, proxy netip.AddrPort, link Link) []string {
	return []string{
		"--user-data-dir=" + dir,
		"--proxy-server=http://" + proxy.String(), // for every scheme
		"--proxy-bypass-list=<-loopback>",
		"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE " + proxy.Addr().String(), // no name is looked up here, whatever asks
		"--disable-quic",
		"--webrtc-ip-handling-policy=disable_non_proxied_udp",
		"--dns-prefetch-disable",
		"--no-pings",
		"--no-first-run",
		"--no-default-browser-check",
		"--no-service-autorun",
		"--disable-background-networking",
		"--disable-breakpad",
		"--disable-client-side-phishing-detection",
		"--disable-component-update",
		"--component-updater=url-source=" + nowhere,
		"--disable-default-apps",
		"--disable-domain-reliability",
		"--disable-extensions",
		"--disable-search-engine-choice-screen",
		"--disable-sync",
		"--gaia-url=" + nowhere,
		"--password-store=basic",
		"--use-mock-keychain",
		"--disable-features=" + strings.Join(chromiumOff, ","),
		"--new-window",
		"--",
		link.String(),
	}
}

// tree is JSON to be.
type tree map[string]any

// chromiumFiles are the files of a fresh profile: settings that there are no switches for, and those that
// matter once more.
func chromiumFiles() (map[string][]byte, error) {
	preferences := tree{
		"alternate_error_pages":      tree{"enabled": false},
		"autofill":                   tree{"credit_card_enabled": false, "profile_enabled": false},
		"browser":                    tree{"check_default_browser": false, "has_seen_welcome_page": true},
		"credentials_enable_service": false,
		"dns_prefetching":            tree{"enabled": false},
		"enable_do_not_track":        false,
		"net":                        tree{"network_prediction_options": 2}, // never
		"payments":                   tree{"can_make_payment_enabled": false},
		"profile":                    tree{"password_manager_enabled": false, "default_content_setting_values": tree{"geolocation": 2, "notifications": 2}},
		"safebrowsing":               tree{"enabled": false, "enhanced": false, "scout_reporting_enabled": false},
		"search":                     tree{"suggest_enabled": false},
		"signin":                     tree{"allowed": false, "allowed_on_next_startup": false},
		"spellcheck":                 tree{"use_spelling_service": false},
		"translate":                  tree{"enabled": false},
		"webrtc":                     tree{"ip_handling_policy": "disable_non_proxied_udp", "multiple_routes_enabled": false, "nonproxied_udp_enabled": false},
	}
	local := tree{
		"background_mode":         tree{"enabled": false},
		"dns_over_https":          tree{"mode": "off", "templates": ""},
		"user_experience_metrics": tree{"reporting_enabled": false},
	}
	files := map[string][]byte{}
	for name, t := range map[string]tree{"Default/Preferences": preferences, "Local State": local} {
		data, err := json.Marshal(t)
		if err != nil {
			return nil, err
		}
		files[name] = data
	}
	return files, nil
}
