package link

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/quic-go/quic-go"

	"torproxy/wire"
)

// h3 is HTTP/3's application protocol, for directory requests.
const h3 = "h3"

// ErrIdentity is wrapped by every dial that reached somebody else than it meant to reach.
var ErrIdentity = errors.New("link: the peer is not who was dialled")

// certificate makes the self-signed certificate that carries an identity. Nothing in it but the key is
// ever looked at, so it says nothing else: one serial, no name, all of time.
func certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5: no end
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("link: make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// resetKey makes the key of stateless resets from the identity, so that it outlives a restart: the peers of
// a relay that was restarted learn at once that their links are dead, and need not wait out the idle time.
func resetKey(key ed25519.PrivateKey) (*quic.StatelessResetKey, error) {
	raw, err := hkdf.Key(sha256.New, key.Seed(), nil, "torproxy/1 stateless reset", len(quic.StatelessResetKey{}))
	if err != nil {
		return nil, fmt.Errorf("link: derive reset key: %w", err)
	}
	return (*quic.StatelessResetKey)(raw), nil
}

// peerID reads the identity out of a finished handshake; ok is false if the peer showed no certificate.
// TLS has verified by then that the peer holds the key.
func peerID(state tls.ConnectionState) (id wire.ID, ok bool, err error) {
	if len(state.PeerCertificates) == 0 {
		return wire.ID{}, false, nil
	}
	if len(state.PeerCertificates) != 1 {
		return wire.ID{}, false, fmt.Errorf("%w: %d certificates", ErrIdentity, len(state.PeerCertificates))
	}
	key, isEd := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !isEd || len(key) != len(id) {
		return wire.ID{}, false, fmt.Errorf("%w: certificate without an Ed25519 key", ErrIdentity)
	}
	return wire.ID(key), true, nil
}

// baseTLS is common to both sides: TLS 1.3, one hybrid key exchange, no tickets, so no resumption and no
// early data.
func baseTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		SessionTicketsDisabled: true,
		// The default verification asks about names and authorities that do not exist here;
		// VerifyConnection asks what matters.
		InsecureSkipVerify: true,
	}
}

// serverTLS accepts clients, which show no certificate, and relays, which show theirs.
func serverTLS(cert tls.Certificate, protocols []string) *tls.Config {
	c := baseTLS()
	c.NextProtos = protocols
	c.Certificates = []tls.Certificate{cert}
	c.ClientAuth = tls.RequestClientCert
	c.VerifyConnection = func(state tls.ConnectionState) error {
		_, _, err := peerID(state)
		return err
	}
	return c
}

// dialTLS requires exactly the identity want at the other end. cert is nil for a client.
func dialTLS(cert *tls.Certificate, want wire.ID, protocol string) *tls.Config {
	c := baseTLS()
	c.NextProtos = []string{protocol}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	c.VerifyConnection = func(state tls.ConnectionState) error {
		got, ok, err := peerID(state)
		if err != nil {
			return err
		}
		if !ok || got != want {
			return fmt.Errorf("%w: wanted %s, met %s", ErrIdentity, want.Short(), got.Short())
		}
		return nil
	}
	return c
}
