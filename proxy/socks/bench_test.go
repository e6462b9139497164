package socks

import (
	"io"
	"net"
	"testing"
)

// BenchmarkThroughput moves 1 MiB per operation over loopback: the sockets' own way and, as with a
// circuit's stream, through pooled buffers.
func BenchmarkThroughput(b *testing.B) {
	wraps := map[string]func(net.Conn) net.Conn{
		"sockets": func(c net.Conn) net.Conn { return c },
		"stream":  func(c net.Conn) net.Conn { return halfCloser{c, c.(*net.TCPConn)} },
	}
	for name, wrap := range wraps {
		b.Run(name+"/up", func(b *testing.B) {
			client, dest := benchTunnel(b, wrap)
			benchCopy(b, dest, client)
		})
		b.Run(name+"/down", func(b *testing.B) {
			client, dest := benchTunnel(b, wrap)
			benchCopy(b, client, dest)
		})
	}
}

func benchTunnel(b *testing.B, wrap func(net.Conn) net.Conn) (client, server net.Conn) {
	addr, dest := serveTo(b, wrap)
	client, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	send(b, client, greetNone+connect("web.test", 80))
	expect(b, client, choseNone+connected)
	server, err = dest.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return client, server
}

func benchCopy(b *testing.B, to, from net.Conn) {
	chunk := make([]byte, 1<<20)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	go func() {
		for {
			if _, err := from.Write(chunk); err != nil {
				return
			}
		}
	}()
	for b.Loop() {
		if _, err := io.CopyN(io.Discard, to, int64(len(chunk))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect is one connection from accept to end, without the network.
func BenchmarkConnect(b *testing.B) {
	s := New(Config{Dial: dialEcho})
	in, out := greetLogin+login+connect("web.test", 80), choseLogin+connected
	b.ReportAllocs()
	for b.Loop() {
		near, far := memoryPipe()
		send(b, near, in)
		near.CloseWrite()
		s.serveConn(b.Context(), far)
		expect(b, near, out)
		near.Close()
	}
}
