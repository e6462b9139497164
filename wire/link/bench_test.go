package link

import (
	"context"
	"net"
	"testing"

	"torproxy/wire"
)

// BenchmarkCells is one circuit's cells over loopback, from Write to ReadCells.
func BenchmarkCells(b *testing.B) {
	var nodes [2]*Node
	read := make(chan int, 1024)
	for i := range nodes {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		cfg := Config{Conn: conn}
		if i == 1 {
			cfg.Identity = testKey(1)
			cfg.Circuit = func(_ context.Context, s *Stream) {
				s.ReadCells(func(cells []byte) error { read <- len(cells); return nil })
			}
		}
		if nodes[i], err = NewNode(cfg); err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan struct{})
		go func() { defer close(done); nodes[i].Run(ctx) }()
		defer func() { cancel(); <-done }()
	}
	to := nodes[1].cfg.Conn.LocalAddr().(*net.UDPAddr).AddrPort()
	l, err := nodes[0].Dial(b.Context(), testID(1), to)
	if err != nil {
		b.Fatal(err)
	}
	s, err := l.Open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Reset(wire.ResetDestroyed)
	var cells cellBuffer
	sent, received := 0, 0
	b.SetBytes(int64(len(cells)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(cells[:]); err != nil {
			b.Fatal(err)
		}
		for sent += len(cells); received < sent-maxStreamWindow; {
			received += <-read
		}
	}
	for received < sent {
		received += <-read
	}
}
