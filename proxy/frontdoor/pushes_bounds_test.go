package frontdoor

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Too many pushes of one page, or of all, are refused at once; two of one URL are one.
func TestPushesAreBounded(t *testing.T) {
	refused := 0
	push := func(r Request) {
		for i := range maxPagePushes + 5 {
			c := pushed(r)
			if write(c, fmt.Sprintf("GET http://page.test/%d HTTP/1.1\nHost: page.test\n\n", i)) != nil {
				refused++
			}
		}
	}
	withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		if refused != 5 {
			t.Errorf("%d of a page's pushes refused", refused)
		}
		for i := range maxPushes / maxPagePushes {
			b.get("http://page.test/", asPage+fmt.Sprintf("Proxy-Authorization: Basic %s\n", []string{"YToxCg==", "YToyCg==", "YTozCg==", "YTo0Cg=="}[i]))
		}
		if want := 5*(maxPushes/maxPagePushes) + maxPagePushes + 5; refused != want {
			t.Errorf("%d pushes refused, want %d", refused, want)
		}
		synctest.Wait()
		if s := server.Stats(); s.PushesRefused != int64(refused) || s.PushesHeld != maxPushes {
			t.Errorf("%+v", s)
		}
	})
	withPushes(t, func(r Request) {
		whole(r, pushedRequest+pushedReply)
		whole(r, pushedRequest+strings.Replace(pushedReply, "pushed", "second", 1))
	}, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		synctest.Wait()
		if s := server.Stats(); s.PushesRefused != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// endless answers a pushed request with a body without end and reports how much of it was taken.
func endless(c net.Conn, taken *int) {
	defer c.Close()
	write(c, pushedRequest+"HTTP/1.1 200 OK\n\n")
	piece := make([]byte, 1<<14)
	for {
		n, err := c.Write(piece)
		*taken += n
		if err != nil {
			return
		}
	}
}

// A large reply stays in its stream, beyond a bound, until it is asked for; then it flows as it is read, and
// ends with its reader.
func TestLargePush(t *testing.T) {
	taken := 0
	push := func(r Request) { go endless(pushed(r), &taken) }
	withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		synctest.Wait()
		if taken < maxReservoir || taken > maxReservoir+2*bufferSize {
			t.Errorf("%d bytes were taken without being asked for", taken)
		}
		in, c := p.dial("GET http://page.test/a HTTP/1.1\nHost: x\n\n")
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.CopyN(io.Discard, r.Body, 4<<20); err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		synctest.Wait()
		if taken < 4<<20 || taken > 4<<20+8*bufferSize {
			t.Errorf("%d bytes taken for 4 MiB", taken)
		}
		c.Close()
		synctest.Wait()
		if held := server.Stats().PushBytesHeld; held != 0 {
			t.Errorf("%d bytes are still held", held)
		}
		if s := server.Stats(); s.PushBytesUsed < 4<<20 || s.PushBytesWasted != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// All bodies together have a bound: what goes beyond is dropped, and what is dropped is free again.
func TestPushesMemory(t *testing.T) {
	const many = maxPushBytes/maxReservoir + 4
	taken := make([]int, many)
	push := func(r Request) {
		for i := range many {
			c := pushed(r)
			go func() {
				defer c.Close()
				write(c, fmt.Sprintf("GET http://page.test/%d HTTP/1.1\nHost: page.test\n\nHTTP/1.1 200 OK\n\n", i))
				for {
					n, err := c.Write(make([]byte, 1<<14))
					if taken[i] += n; err != nil {
						return
					}
				}
			}()
		}
	}
	withPushes(t, push, func(t *testing.T, e *pushingExit, b *browser, server *Server, p *pipes) {
		b.page()
		synctest.Wait()
		held := server.Stats().PushBytesHeld
		if held > maxPushBytes || held < maxPushBytes*3/4 {
			t.Errorf("%d bytes are held", held)
		}
		if n := server.Stats().PushesHeld; n >= many || n < many/2 {
			t.Errorf("%d of %d pushes are held", n, many)
		}
		<-time.After(pushLifetime)
		synctest.Wait()
		if held := server.Stats().PushBytesHeld; held != 0 {
			t.Errorf("%d bytes are still held", held)
		}
	})
}
