package frontdoor

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
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
	//go:embed page.css
	pageCSS string

	pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"bytes": byteCount}).Parse(pageHTML))
)

// contentPolicy lets a browser do nothing with our answers but show them in our own style, which is
// named by its hash: no script, no image, no frame, no form, no connection.
var contentPolicy = "default-src 'none'; style-src 'sha256-" + styleHash() + "'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func styleHash() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// page serves GET /: what this is, its state, and how to use it.
func (d *door) page(w http.ResponseWriter, r *http.Request) {
	status := d.Backend.Status()
	local := d.localAddr(r)
	var body bytes.Buffer
	err := pageTemplate.Execute(&body, map[string]any{
		"Style":    template.CSS(pageCSS),
		"Status":   status,
		"HTTP":     reachable(status.HTTP, local),
		"SOCKS":    curlSOCKS(reachable(status.SOCKS, local)),
		"Circuits": d.Backend.Circuits(),
	})
	if err != nil {
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(body.Bytes())
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

// byteCount writes n with a binary prefix.
func byteCount(n uint64) string {
	f, i := float64(n), 0
	for f >= 1024 && i < 4 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", f, "BKMGT"[i])
}
