package localnet_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
)

// A program embeds the client: all its requests travel through circuits of five relays. With the network
// file of a real network in the place of localnet's, nothing else changes.
func Example() {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello from the destination")
	}))
	defer site.Close()

	network, err := localnet.Start(localnet.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer network.Close()

	client, err := proxy.New(proxy.Config{Network: network.File(), Hops: 5})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- client.Run(ctx) }()

	// Connections of one label may share a circuit, those of different labels never do.
	dialer := client.Dialer("my program")
	browser := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	page, err := browser.Get(site.URL) // waits until the client is ready
	if err != nil {
		fmt.Println(err)
		return
	}
	body, err := io.ReadAll(page.Body)
	page.Body.Close()
	fmt.Println(string(body), err)

	cancel()
	fmt.Println(<-ended)
	// Output:
	// hello from the destination <nil>
	// <nil>
}
