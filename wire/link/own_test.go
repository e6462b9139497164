package link

import (
	"testing"
	"time"
)

// TestDialOfItsOwn: Dial takes neither a live link nor a remembered failure for an answer, and its link is
// given to nobody else.
func TestDialOfItsOwn(t *testing.T) {
	inBubble(t, 3, func(nw *network) {
		client := nw.client(2)
		if _, err := client.Link(nw.Context(), testID(0), nw.addrs(0)); err == nil {
			nw.Fatal("a link to nobody")
		}
		relay := nw.relay(0, nil)
		if _, err := client.Link(nw.Context(), testID(0), nw.addrs(0)); err == nil {
			nw.Fatal("a failed dial was not remembered")
		}
		own, err := client.Dial(nw.Context(), testID(0), nw.addr(0))
		if err != nil {
			nw.Fatal(err)
		}
		nw.ping(nw.open(own))
		<-time.After(dialMemory)
		pooled := nw.link(client, 0)
		again, err := client.Dial(nw.Context(), testID(0), nw.addr(0))
		if err != nil || pooled == own || again == own || again == pooled || nw.link(client, 0) != pooled {
			nw.Error("links are shared:", err)
		}
		// Another address of the relay where nobody is, while a link to the first is alive.
		if _, err := client.Dial(nw.Context(), testID(0), nw.addr(1)); err == nil {
			nw.Error("a link to an address where nobody is")
		}
		relay.stop()
		<-again.Done() // dies with its relay, like any other
	})
}

// TestClose ends a link with its circuits, and only it.
func TestClose(t *testing.T) {
	overBoth(t, 2, func(nw *network) {
		nw.relay(0, nil)
		client := nw.client(1)
		own, err := client.Dial(nw.Context(), testID(0), nw.addr(0))
		if err != nil {
			nw.Fatal(err)
		}
		first := nw.link(client, 0)
		broken, whole := nw.open(own), nw.open(first)
		nw.ping(broken)
		nw.ping(whole)
		own.Close()
		own.Close()
		if _, err := broken.Read(make([]byte, 1)); err == nil {
			nw.Error("the circuit of a closed link goes on")
		}
		if _, err := own.Open(nw.Context()); err == nil {
			nw.Error("a circuit on a closed link")
		}
		nw.ping(whole)
		first.Close()
		if second := nw.link(client, 0); second == first {
			nw.Error("a closed link was given out")
		}
		client.stop() // waits for all of them
		if _, err := client.Dial(nw.Context(), testID(0), nw.addr(0)); err == nil {
			nw.Error("a link of a closed node")
		}
	})
}
