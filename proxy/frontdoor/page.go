package frontdoor

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css page.js picture.js icon.svg
	pageFiles embed.FS

	pageTemplate = template.Must(template.New("page").Parse(pageHTML))
)

// contentPolicy lets a browser do nothing with our answers but show them in our own style, run our own
// scripts, which are files of this listener, and let these ask this listener: nothing of elsewhere, nothing
// that stands in the page itself, no frame, no form that goes out.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page serves GET /: the console. What is in it at first is what does not change; page.js shows the rest.
func (d *door) page(w http.ResponseWriter, r *http.Request) {
	status := d.Backend.Status()
	local := d.localAddr(r)
	socks := reachable(status.SOCKS, local)
	host, port, _ := net.SplitHostPort(socks) // "" of a unix socket
	var body bytes.Buffer
	err := pageTemplate.Execute(&body, map[string]any{
		"Status":    status,
		"HTTP":      reachable(status.HTTP, local),
		"SOCKS":     curlSOCKS(socks),
		"SOCKSHost": host,
		"SOCKSPort": port,
	})
	if err != nil {
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(body.Bytes())
}

// pageTypes are the media types of the files that belong to the page.
var pageTypes = map[string]string{
	"/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8",
	"/picture.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml",
}

// pageFile serves a file that belongs to the page.
func (d *door) pageFile(w http.ResponseWriter, r *http.Request) {
	body, err := pageFiles.ReadFile(r.URL.Path[1:])
	if err != nil {
		http.Error(w, "the file cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", pageTypes[r.URL.Path])
	w.Write(body)
}

// pac serves GET /proxy.pac, the browsers' automatic proxy configuration. It never says DIRECT: when the
// proxy is gone a browser shows an error, not the page by another way.
func (d *door) pac(w http.ResponseWriter, r *http.Request) {
	status := d.Backend.Status()
	local := d.localAddr(r)
	proxies := "PROXY " + reachable(status.HTTP, local)
	if !strings.HasPrefix(status.SOCKS, "unix:") { // which no PAC file can name
		proxies += "; SOCKS5 " + reachable(status.SOCKS, local)
	}
	quoted, err := json.Marshal(proxies) // JSON strings are JavaScript strings
	if err != nil {
		http.Error(w, "the configuration cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-ns-proxy-autoconfig")
	fmt.Fprintf(w, "function FindProxyForURL(url, host) {\n  return %s;\n}\n", quoted)
}

// reachable is a bound address as a client writes it: one bound to every address is reached at the one that
// the client has just used.
func reachable(bound string, local netip.Addr) string {
	a, err := netip.ParseAddrPort(bound)
	if err != nil || !a.Addr().IsUnspecified() || !local.IsValid() {
		return bound
	}
	return netip.AddrPortFrom(local, a.Port()).String()
}

// curlSOCKS is the SOCKS address as curl -x takes it, names left to the proxy.
func curlSOCKS(addr string) string {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "socks5h://localhost" + path
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return ""
	}
	return "socks5h://" + addr
}
