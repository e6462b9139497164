package localnet_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
)

// endless is a site with a page that never ends, and a small one.
func endless(t *testing.T) *httptest.Server {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			io.WriteString(w, "small")
			return
		}
		block := make([]byte, 4096)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	site.Config.SetKeepAlivesEnabled(false) // each page has a connection of its own, and that a record
	t.Cleanup(site.Close)
	return site
}

// TestRelayStops stops each relay of a circuit in the middle of a transfer, by every way through the client:
// the application gets an error and no end of file, Why says what happened, and the next request works.
func TestRelayStops(t *testing.T) {
	n := startNetwork(t, localnet.Config{Params: shortRounds})
	c := startClient(t, n, proxy.Config{}).awaitReady(t)
	site := endless(t)
	direct := &http.Transport{DialContext: c.Dialer("").DialContext}
	ways := []struct {
		name string
		via  *http.Client
	}{{"dialled", &http.Client{Transport: direct}}, {"SOCKS", c.viaSOCKS(t)}, {"front door", c.viaFrontDoor(t)}}
	for hop := range c.Hops() {
		for _, way := range ways {
			t.Run(fmt.Sprintf("hop %d/%s", hop+1, way.name), func(t *testing.T) {
				page, err := way.via.Get(site.URL + "/endless")
				if err != nil {
					t.Fatal(err)
				}
				defer page.Body.Close()
				if _, err := io.CopyN(io.Discard, page.Body, 1<<20); err != nil {
					t.Fatal(err)
				}
				dead := newest(c.Proxy).Route[hop].ID
				if err := n.StopRelay(dead); err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, page.Body); err == nil {
					t.Error("the page looks complete")
				}
				if got := get(t, way.via, site.URL+"/small"); got != "small" {
					t.Errorf("the next request got %q", got)
				}
				if r := brokenRecord(c); r == nil || r.Err == "" || len(r.Path) != c.Hops() {
					t.Errorf("nothing tells of it: %+v", c.Why(""))
				}
				if err := n.StartRelay(dead); err != nil {
					t.Fatal(err)
				}
				c.NewIdentity() // forget the record, and do not mistake one circuit for another
			})
		}
	}
}

// brokenRecord returns the newest record of a connection that was cut.
func brokenRecord(c *client) *proxy.Record {
	for _, r := range c.Why("") {
		if r.Outcome == proxy.OutcomeBroken {
			return &r
		}
	}
	return nil
}

// newest returns the circuit that carries the newest stream.
func newest(p *proxy.Proxy) (found proxy.CircuitInfo) {
	age := time.Duration(math.MaxInt64)
	for _, c := range p.Circuits() {
		for _, s := range c.Streams {
			if s.Age < age {
				found, age = c, s.Age
			}
		}
	}
	return found
}
