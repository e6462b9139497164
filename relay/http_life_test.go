package relay

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"torproxy/wire"
	"torproxy/wire/mux"
)

// TestHTTPPool checks that requests of one circuit share a connection, that another circuit has its own, and
// that they end with their circuits.
func TestHTTPPool(t *testing.T) {
	server := serveRaw(t, ok)
	onLoopback(t, nil, func(b *bed) {
		first, second := b.session(0, 1), b.session(0, 1)
		for range 3 {
			b.get(first, server.addr(), "/", "").page("GET")
			b.get(second, server.addr(), "/", "").page("GET")
		}
		if heads, conns := server.seen(); len(heads) != 6 || conns != 2 {
			t.Errorf("%d requests over %d connections, want 6 over 2", len(heads), conns)
		}
		first.Close(nil)
		second.Close(nil)
		server.open.Wait() // the server's ends have ended
		if n := b.relays[1].exits.Load(); n != 0 {
			t.Errorf("%d connections are counted", n)
		}
	})
}

// TestHTTPKnowsNoProxy: the proxy that TestMain has put into the environment is not asked.
func TestHTTPKnowsNoProxy(t *testing.T) {
	var asked []string
	configure := func(i int, c *Config) {
		exitTo(t, func(_ *destination, there net.Conn) { go answerOnce(there) })(i, c)
		if dial := c.Dial; dial != nil {
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				asked = append(asked, address)
				return dial(ctx, network, address)
			}
		}
	}
	onBed(t, 2, configure, func(b *bed) {
		b.get(b.session(0, 1), "198.41.0.4:80", "/", "").page("GET")
	})
	if len(asked) != 1 || asked[0] != "198.41.0.4:80" {
		t.Errorf("connected to %q", asked)
	}
}

// TestHTTPIdle checks, in virtual time, how long and how many connections wait for another request.
func TestHTTPIdle(t *testing.T) {
	var all []*destination
	answer := func(there net.Conn) {
		in := bufio.NewReader(there)
		for {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			<-time.After(time.Second)
			io.WriteString(there, ok)
		}
	}
	configure := exitTo(t, func(d *destination, there net.Conn) {
		all = append(all, d)
		go answer(there)
	})
	onBed(t, 2, configure, func(b *bed) {
		s := b.session(0, 1)
		var visits []*visit
		for range maxIdle + 3 {
			visits = append(visits, b.get(s, "198.41.0.4:80", "/", ""))
			<-time.After(100 * time.Millisecond) // the simulated destinations are made one by one
		}
		for _, v := range visits {
			v.page("GET")
		}
		idle := func() (n int) {
			for _, d := range all {
				select {
				case <-d.closed:
				default:
					n++
				}
			}
			return n
		}
		<-time.After(time.Second)
		if got := idle(); got != maxIdle {
			t.Errorf("%d connections wait, want %d", got, maxIdle)
		}
		<-time.After(idleTimeout)
		if got, counted := idle(), b.relays[1].exits.Load(); got != 0 || counted != 0 {
			t.Errorf("%d connections wait after %v, %d are counted", got, idleTimeout, counted)
		}
	})
}

// TestHTTPBothWays sends a body and reads the answer at the same time, more than every buffer holds, with
// trailers in both directions.
func TestHTTPBothWays(t *testing.T) {
	const size = 8 << 20
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(200)
		n, err := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", fmt.Sprint(n, err, r.Trailer))
	})
	onLoopback(t, nil, func(b *bed) {
		v := b.visit(b.session(0, 1), server, "POST / HTTP/1.1\r\nHost: "+server+"\r\nTransfer-Encoding: chunked\r\nTrailer: X-End, Via\r\n\r\n")
		sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		go func() {
			for rest := sent; len(rest) > 0; {
				n := min(len(rest), 100000)
				fmt.Fprintf(v.stream, "%x\r\n%s\r\n", n, rest[:n])
				rest = rest[n:]
			}
			io.WriteString(v.stream, "0\r\nX-End: yes\r\nVia: me\r\n\r\n")
		}()
		resp, body := v.page("POST")
		if body != string(sent) {
			t.Errorf("%d bytes came back of %d", len(body), len(sent))
		}
		if got, want := resp.Trailer.Get("X-Sum"), fmt.Sprint(size, "<nil>map[X-End:[yes]]"); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("trailer %q, want %q", got, want)
		}
	})
}

// TestHTTPUpload sends a body that is larger than the first credit to a destination that answers at its end.
func TestHTTPUpload(t *testing.T) {
	const size = 1 << 20
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, " ", err)
	})
	onLoopback(t, nil, func(b *bed) {
		v := b.visit(b.session(0, 1), server, fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", server, size))
		go v.stream.Write(make([]byte, size))
		if _, body := v.page("POST"); body != fmt.Sprint(size, " <nil>") {
			t.Errorf("the destination got %s", body)
		}
	})
}

// TestHTTPFlow lets a client read nothing: the exit stops reading the destination.
func TestHTTPFlow(t *testing.T) {
	wrote := make(chan int, 1)
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		total := 0
		for r.Context().Err() == nil && total < 64<<20 {
			n, err := w.Write(make([]byte, 64<<10))
			if total += n; err != nil {
				break
			}
		}
		wrote <- total
	})
	onLoopback(t, nil, func(b *bed) {
		v := b.get(b.session(0, 1), server, "/", "")
		v.head("GET")
		v.stream.Close()
		if total := <-wrote; total >= 64<<20 {
			t.Errorf("the destination wrote all of its %d bytes", total)
		}
	})
}

// TestHTTPGivenUp ends the stream, or the circuit, while the destination works: its request ends.
func TestHTTPGivenUp(t *testing.T) {
	for name, end := range map[string]func(v *visit, s *mux.Session){
		"stream":  func(v *visit, _ *mux.Session) { v.stream.Close() },
		"circuit": func(_ *visit, s *mux.Session) { s.Close(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			began, gone := make(chan struct{}), make(chan struct{})
			server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
				close(began)
				<-r.Context().Done()
				close(gone)
			})
			onLoopback(t, nil, func(b *bed) {
				s := b.session(0, 1)
				v := b.get(s, server, "/", "")
				<-began
				end(v, s)
				<-gone
			})
		})
	}
}

// TestHTTPExpect checks that a body waits for 100, and is not sent when another reply comes.
func TestHTTPExpect(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		body, _ := io.ReadAll(r.Body) // which says 100
		w.Write(body)
	})
	onLoopback(t, nil, func(b *bed) {
		s := b.session(0, 1)
		const lines = "Content-Length: 4\r\nExpect: 100-Continue\r\n\r\n"
		v := b.visit(s, server, "PUT / HTTP/1.1\r\nHost: "+server+"\r\n"+lines)
		if resp := v.head("PUT"); resp.StatusCode != http.StatusContinue {
			t.Errorf("got %s, want 100", resp.Status)
		}
		io.WriteString(v.stream, "body")
		if _, body := v.page("PUT"); body != "body" {
			t.Errorf("got %q", body)
		}
		v = b.visit(s, server, "PUT /no HTTP/1.1\r\nHost: "+server+"\r\n"+lines)
		if resp, _ := v.page("PUT"); resp.StatusCode != http.StatusExpectationFailed {
			t.Errorf("got %s, want 417", resp.Status)
		}
	})
}

// TestHTTPEarlyReply lets a destination answer and close while the request's body still comes.
func TestHTTPEarlyReply(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "too large")
	})
	onLoopback(t, nil, func(b *bed) {
		v := b.visit(b.session(0, 1), server, "POST / HTTP/1.1\r\nHost: "+server+"\r\nContent-Length: 100000000\r\n\r\n")
		go v.stream.Write(make([]byte, 100000000))
		resp := v.head("POST")
		if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusRequestEntityTooLarge || string(body) != "too large" {
			t.Errorf("got %s, %q, %v", resp.Status, body, err)
		}
		v.stream.Close()
	})
}

// TestHTTPDialGivenUp ends a stream while its connection is being made: that ends too, at once.
func TestHTTPDialGivenUp(t *testing.T) {
	ended := make(chan error, 1)
	configure := func(i int, c *Config) {
		c.Policy = policy(t, "accept *:*")
		c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}
	}
	onBed(t, 2, configure, func(b *bed) {
		v := b.get(b.session(0, 1), "198.41.0.4:80", "/", "")
		<-time.After(time.Second)
		v.stream.Close()
		<-time.After(time.Second)
		select {
		case err := <-ended:
			if err != context.Canceled {
				t.Errorf("the dial ended with %v", err)
			}
		default:
			t.Error("the dial goes on")
		}
		if n := b.relays[1].exits.Load(); n != 0 {
			t.Errorf("%d connections are counted", n)
		}
	})
}

// changing is a resolver whose name moves to a private address after the first look.
type changing struct {
	zone
	asked map[string]int
	mu    sync.Mutex
}

func (c *changing) LookupNetIP(_ context.Context, network, _ string) ([]netip.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked[network]++; network == "ip6" {
		return nil, &net.DNSError{IsNotFound: true}
	}
	if c.asked[network] > 1 {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	return []netip.Addr{netip.MustParseAddr("198.41.0.4")}, nil
}

// TestHTTPSecondLookup lets a name point to a private address when it is looked up again: the circuit's next
// connection is refused like a first one.
func TestHTTPSecondLookup(t *testing.T) {
	configure := func(i int, c *Config) {
		exitTo(t, func(_ *destination, there net.Conn) { go answerOnce(there) })(i, c)
		c.Resolver = &changing{asked: map[string]int{}}
	}
	onBed(t, 2, configure, func(b *bed) {
		s := b.session(0, 1)
		for range 2 {
			if resp, _ := b.get(s, "moving.test:80", "/", "").page("GET"); resp.StatusCode != http.StatusNoContent {
				t.Errorf("got %s", resp.Status)
			}
		}
		<-time.After(nameLife)
		b.get(s, "moving.test:80", "/", "").fails("after its name has moved", wire.ReasonPolicy)
	})
}

// answerOnce answers one request and closes.
func answerOnce(there net.Conn) {
	defer there.Close()
	if _, err := http.ReadRequest(bufio.NewReader(there)); err == nil {
		io.WriteString(there, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	}
}
