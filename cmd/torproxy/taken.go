package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"
)

// habits says which program usually listens on a port that is also somebody's choice for torproxy.
var habits = map[uint16]string{
	1080: "another SOCKS proxy (dante, ssh -D)",
	3128: "squid",
	7890: "clash",
	8000: "a web server for development",
	8080: "a web server or another HTTP proxy",
	8118: "privoxy",
	8888: "tinyproxy or Jupyter",
	9050: "tor",
	9051: "tor, for its control port",
	9150: "Tor Browser",
	9151: "Tor Browser, for its control port",
}

const (
	askTimeout  = 300 * time.Millisecond // for a program on this machine to answer
	maxAnswer   = 64 << 10               // bytes of it that are read
	defaultHTTP = "127.0.0.1:8118"
)

// explainTaken completes a failure to listen: who probably has the port. The other addresses are those at
// which another torproxy may say that it has it.
func explainTaken(ctx context.Context, f *failure, flag string, a listenAddress, others ...string) {
	port := a.port()
	for _, addr := range others {
		other, ok := askStatus(ctx, addr)
		if ok && (portOf(other.SOCKS) == port || portOf(other.HTTP) == port) {
			f.cause = fmt.Sprintf("another torproxy seems to run (process %d, its page is http://%s/)", other.PID, addr)
			f.advice = "use that one, or stop it, or give this one other ports: --socks 127.0.0.1:0 --http 127.0.0.1:0"
			return
		}
	}
	f.cause = "another program listens there"
	if habit, ok := habits[port]; ok {
		f.cause = fmt.Sprintf("port %d is habitually that of %s", port, habit)
	}
	f.advice = fmt.Sprintf("stop that program, or choose another port with --%s; port 0 picks a free one", flag)
}

// status is what another torproxy says of itself.
type status struct {
	PID   int    `json:"pid"`
	SOCKS string `json:"socks"`
	HTTP  string `json:"http"`
}

// askStatus asks whoever listens at addr whether it is a torproxy. What answers may be anything.
func askStatus(ctx context.Context, addr string) (s status, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/api/status", nil)
	if err != nil {
		return status{}, false
	}
	client := &http.Client{
		Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true, MaxResponseHeaderBytes: maxAnswer},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(req)
	if err != nil {
		return status{}, false
	}
	defer answer.Body.Close()
	err = json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&s)
	return s, err == nil && answer.StatusCode == http.StatusOK && s.PID > 0
}

// portOf is the port of HOST:PORT, 0 of anything else.
func portOf(addr string) uint16 {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return 0
	}
	return a.Port()
}
