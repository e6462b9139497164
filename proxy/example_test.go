package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"

	"torproxy/proxy"
	"torproxy/proxy/localnet"
)

// start runs a client and, as there is no other here, a network for it. With the network file of a real
// network in the place of localnet's, nothing else changes.
func start() (client *proxy.Proxy, stop func()) {
	network, err := localnet.Start(localnet.Config{})
	if err != nil {
		panic(err)
	}
	client, err = proxy.New(proxy.Config{Network: network.File()})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- client.Run(ctx) }()
	<-client.Ready()
	return client, func() {
		cancel()
		<-ended
		network.Close()
	}
}

// A Dialer fits wherever a program takes a dial function: here into net/http. Connections of one label may
// share a circuit, those of different labels never do.
func ExampleDialer_DialContext() {
	client, stop := start()
	defer stop()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello from the destination")
	}))
	defer site.Close()

	alice := &http.Transport{DialContext: client.Dialer("alice").DialContext, DisableKeepAlives: true}
	page, err := (&http.Client{Transport: alice}).Get(site.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer page.Body.Close()
	body, err := io.ReadAll(page.Body)
	fmt.Println(string(body), err)
	// Output:
	// hello from the destination <nil>
}

// An Early connection is there before the exit has answered: what is written to it travels with the
// question, and saves a round trip of the whole circuit.
func ExampleProxy_Dial() {
	client, stop := start()
	defer stop()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "one round trip")
	}))
	defer site.Close()

	conn, err := client.Dial(context.Background(), proxy.Request{Target: site.Listener.Addr().String(), Isolation: "alice", Early: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	answer, err := io.ReadAll(conn)
	fmt.Println(string(answer[len(answer)-len("one round trip"):]), err)
	// Output:
	// one round trip <nil>
}

// Names are looked up by an exit, never on this machine.
func ExampleProxy_Resolve() {
	client, stop := start()
	defer stop()

	addrs, err := client.Resolve(context.Background(), proxy.Request{Target: "localhost", Isolation: "alice"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(addrs[0]) // IPv4 first
	// Output:
	// 127.0.0.1
}

// Why tells what became of each request: who failed, or how long each step took.
func ExampleProxy_Why() {
	client, stop := start()
	defer stop()
	nobody, _ := net.Listen("tcp", "127.0.0.1:0")
	nobody.Close()

	_, err := client.Dial(context.Background(), proxy.Request{Target: nobody.Addr().String()})
	if failed, ok := errors.AsType[*proxy.Error](err); ok {
		fmt.Println("hop", failed.Hop, "of", failed.Hops, "said:", failed.Reason)
	}
	record := client.Why("127.0.0.1")[0]
	last := record.Steps[len(record.Steps)-1]
	fmt.Println(record.Outcome, "at the step", last.What, "by hop", last.Hop)
	fmt.Println(last.Relay == record.Path[2])
	// Output:
	// hop 3 of 3 said: refused by the destination
	// failed at the step open by hop 3
	// true
}
