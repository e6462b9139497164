package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"slices"
	"testing"

	"github.com/quic-go/quic-go"

	"torproxy/wire"
)

// ecdsaCertificate is a well-formed certificate of a kind that is no identity.
func ecdsaCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func identityCertificate(t *testing.T, key ed25519.PrivateKey) tls.Certificate {
	t.Helper()
	cert, err := certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// twoCertificates is an identity with another certificate behind it.
func twoCertificates(t *testing.T, key ed25519.PrivateKey) tls.Certificate {
	cert := identityCertificate(t, key)
	cert.Certificate = append(cert.Certificate, identityCertificate(t, testKey(99)).Certificate[0])
	return cert
}

// TestPinning: whoever answers with another identity is refused, by clients and relays, and gets no circuit.
func TestPinning(t *testing.T) {
	overBoth(t, 3, func(nw *network) {
		nw.relay(0, func(c *Config) {
			c.Circuit = func(context.Context, *Stream) { nw.Error("a circuit reached the wrong relay") }
			c.Directory = func(_ context.Context, conn *quic.Conn) { <-conn.Context().Done() }
		})
		for _, n := range []*testNode{nw.client(1), nw.relay(2, nil)} {
			if l, err := n.Link(nw.Context(), testID(77), nw.addrs(0)); !errors.Is(err, ErrIdentity) || l != nil {
				nw.Errorf("Link: %v", err)
			}
			if c, err := n.DialDirectory(nw.Context(), testID(78), nw.addrs(0)); !errors.Is(err, ErrIdentity) || c != nil {
				nw.Errorf("DialDirectory: %v", err)
			}
			if _, err := n.Link(nw.Context(), wire.ID{}, nw.addrs(0)); err == nil {
				nw.Error("dialled nobody and met somebody")
			}
		}
	})
}

// TestPeer: whom an accepted link counts as, and that a client shows no certificate.
func TestPeer(t *testing.T) {
	type accepted struct {
		peer  wire.ID
		certs int
	}
	for name, c := range map[string]struct {
		client bool
		known  func(wire.ID) bool
		want   accepted
	}{
		"client":                 {true, func(wire.ID) bool { return true }, accepted{}},
		"known relay":            {false, func(id wire.ID) bool { return id == testID(1) }, accepted{testID(1), 1}},
		"unknown relay":          {false, func(id wire.ID) bool { return id != testID(1) }, accepted{wire.ID{}, 1}},
		"relay, nobody is known": {false, nil, accepted{wire.ID{}, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, 2, func(nw *network) {
				got := make(chan accepted, 1)
				nw.relay(0, func(cfg *Config) {
					cfg.Known = c.known
					cfg.Circuit = func(ctx context.Context, s *Stream) {
						l := s.Link()
						got <- accepted{l.Peer(), len(l.conn.ConnectionState().TLS.PeerCertificates)}
						if l.RemoteAddr() != nw.addr(1) {
							nw.Errorf("peer's address is %v", l.RemoteAddr())
						}
						echo(ctx, s)
					}
				})
				var from *testNode
				if c.client {
					from = nw.client(1)
				} else {
					from = nw.relay(1, nil)
				}
				l := nw.link(from, 0)
				if l.Peer() != testID(0) {
					nw.Errorf("dialled %v", l.Peer())
				}
				nw.ping(nw.open(l))
				if g := <-got; g != c.want {
					nw.Errorf("accepted %v, want %v", g, c.want)
				}
			})
		})
	}
}

// TestBadClientCertificate: a certificate that is no identity is refused, not taken for a client's silence.
// Neither side's words about it cross the wire.
func TestBadClientCertificate(t *testing.T) {
	stolen := identityCertificate(t, testKey(1))
	stolen.PrivateKey = testKey(2) // shows one identity and signs with another key
	for name, cert := range map[string]tls.Certificate{
		"ECDSA": ecdsaCertificate(t), "two certificates": twoCertificates(t, testKey(1)), "stolen": stolen,
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, 2, func(nw *network) {
				nw.relay(0, func(c *Config) {
					c.Circuit = func(context.Context, *Stream) { nw.Error("a circuit was accepted") }
				})
				conn, err := nw.rawDial(nw.raw(1), 0, func(c *tls.Config) {
					c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
				})
				if err == nil { // the dialler is done before its certificate has been looked at
					<-conn.Context().Done()
					err = context.Cause(conn.Context())
				}
				saysNothing(nw.T, err)
			})
		})
	}
}

// TestBadServerCertificate likewise, with the dialler's alert looked at.
func TestBadServerCertificate(t *testing.T) {
	for name, cert := range map[string]tls.Certificate{
		"wrong identity":   identityCertificate(t, testKey(9)),
		"ECDSA":            ecdsaCertificate(t),
		"two certificates": twoCertificates(t, testKey(0)),
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, 2, func(nw *network) {
				ln, err := nw.raw(0).ListenEarly(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{wire.ALPN}}, nil)
				if err != nil {
					nw.Fatal(err)
				}
				nw.Cleanup(func() { ln.Close() })
				if _, err := nw.client(1).Link(nw.Context(), testID(0), nw.addrs(0)); !errors.Is(err, ErrIdentity) {
					nw.Errorf("dial: %v", err)
				}
				conn, err := ln.Accept(nw.Context())
				if err != nil {
					nw.Fatal(err)
				}
				<-conn.Context().Done()
				saysNothing(nw.T, context.Cause(conn.Context()))
			})
		})
	}
}

// saysNothing checks that err is the peer's refusal of a handshake, with an alert's number and no words.
func saysNothing(t *testing.T, err error) {
	t.Helper()
	var refusal *quic.TransportError
	if !errors.As(err, &refusal) || !refusal.Remote || !refusal.ErrorCode.IsCryptoError() {
		t.Fatalf("the peer did not refuse the handshake: %v", err)
	}
	if refusal.ErrorMessage != "" {
		t.Fatalf("the peer said %q", refusal.ErrorMessage)
	}
}

// TestKeyExchange: X25519MLKEM768 and nothing else, at both sides.
func TestKeyExchange(t *testing.T) {
	offers := map[tls.CurveID]bool{
		tls.X25519MLKEM768: true, tls.X25519: false, tls.CurveP256: false,
		tls.SecP256r1MLKEM768: false, tls.SecP384r1MLKEM1024: false,
	}
	for curve, ok := range offers {
		t.Run(curve.String(), func(t *testing.T) {
			overBoth(t, 4, func(nw *network) {
				nw.relay(0, nil)
				_, err := nw.rawDial(nw.raw(1), 0, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{curve} })
				if ok != (err == nil) {
					nw.Errorf("dialler that offers %v: %v", curve, err)
				}
				if !ok {
					saysNothing(nw.T, err)
				}
				ln, err := nw.raw(2).Listen(&tls.Config{
					Certificates: []tls.Certificate{identityCertificate(nw.T, testKey(2))},
					NextProtos:   []string{wire.ALPN}, CurvePreferences: []tls.CurveID{curve},
				}, nil)
				if err != nil {
					nw.Fatal(err)
				}
				nw.Cleanup(func() { ln.Close() })
				_, err = nw.relay(3, nil).Link(nw.Context(), testID(2), nw.addrs(2))
				if ok != (err == nil) {
					nw.Errorf("server that takes %v: %v", curve, err)
				}
			})
		})
	}
}

// TestClientHello: what a dialler shows to whoever watches the wire.
func TestClientHello(t *testing.T) {
	overBoth(t, 2, func(nw *network) {
		hello := make(chan *tls.ClientHelloInfo, 1)
		cert := identityCertificate(nw.T, testKey(0))
		ln, err := nw.raw(0).Listen(&tls.Config{
			NextProtos: []string{wire.ALPN},
			GetCertificate: func(info *tls.ClientHelloInfo) (*tls.Certificate, error) {
				hello <- info
				return &cert, nil
			},
		}, nil)
		if err != nil {
			nw.Fatal(err)
		}
		nw.Cleanup(func() { ln.Close() })
		nw.link(nw.client(1), 0)
		got := <-hello
		const serverName, preSharedKey, earlyData, sessionTicket = 0, 41, 42, 35
		for _, ext := range []uint16{serverName, preSharedKey, earlyData, sessionTicket} {
			if slices.Contains(got.Extensions, ext) {
				nw.Errorf("ClientHello has extension %d", ext)
			}
		}
		if got.ServerName != "" || !slices.Equal(got.SupportedCurves, []tls.CurveID{tls.X25519MLKEM768}) ||
			!slices.Equal(got.SupportedVersions, []uint16{tls.VersionTLS13}) || !slices.Equal(got.SupportedProtos, []string{wire.ALPN}) {
			nw.Errorf("ClientHello: name %q, curves %v, versions %x, protocols %q",
				got.ServerName, got.SupportedCurves, got.SupportedVersions, got.SupportedProtos)
		}
	})
}

// tickets counts the session tickets that a server gives out.
type tickets struct{ tls.ClientSessionCache }

func (c tickets) Put(key string, s *tls.ClientSessionState) {
	panic("a session ticket was given out")
}

// TestNoResumption: a dialler that would like a session ticket gets none.
func TestNoResumption(t *testing.T) {
	overBoth(t, 2, func(nw *network) {
		nw.relay(0, nil)
		tr := nw.raw(1)
		for range 2 {
			conn, err := nw.rawDial(tr, 0, func(c *tls.Config) { c.ClientSessionCache = tickets{tls.NewLRUClientSessionCache(1)} })
			if err != nil {
				nw.Fatal(err)
			}
			s, err := conn.OpenStream()
			if err != nil {
				nw.Fatal(err)
			}
			s.Write([]byte{1})
			if _, err := io.ReadFull(s, make([]byte, 1)); err != nil { // behind any ticket
				nw.Fatal(err)
			}
			if state := conn.ConnectionState(); state.TLS.DidResume || state.Used0RTT {
				nw.Error("session was resumed")
			}
		}
	})
}
