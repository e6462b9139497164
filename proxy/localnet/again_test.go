package localnet_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
)

// TestExitDiesBeforeItsAnswer stops the exit that has a request of the front door before it has answered: a GET is
// made again by another exit, and whoever asked sees nothing of it; a POST, which may have been carried out,
// is told.
func TestExitDiesBeforeItsAnswer(t *testing.T) {
	n := startNetwork(t, localnet.Config{})
	c := startClient(t, n, proxy.Config{}).awaitReady(t)
	var asked atomic.Int64
	arrived, release := make(chan struct{}), make(chan struct{})
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1)%2 == 1 {
			arrived <- struct{}{}
			select {
			case <-r.Context().Done():
			case <-release:
			}
			return
		}
		io.WriteString(w, "the second time")
	}))
	defer site.Close()
	defer close(release)
	target := strings.TrimPrefix(site.URL, "http://")
	// stopExit stops the exit that has a stream to the site.
	stopExit := func() {
		<-arrived
		for _, circuit := range c.Circuits() {
			for _, s := range circuit.Streams {
				if s.Target == target {
					if err := n.StopRelay(circuit.Route[len(circuit.Route)-1].ID); err != nil {
						t.Error(err)
					}
					return
				}
			}
		}
		t.Error("no circuit has a stream to the site")
	}
	via := c.viaFrontDoor(t)
	go stopExit()
	answer, err := via.Get(site.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "the second time" {
		t.Errorf("%s %q, %v", answer.Status, body, err)
	}

	asked.Store(0)
	go stopExit()
	answer, err = via.Post(site.URL, "text/plain", strings.NewReader("once"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusBadGateway || asked.Load() != 1 {
		t.Errorf("%s, and the site was asked %d times", answer.Status, asked.Load())
	}
}
