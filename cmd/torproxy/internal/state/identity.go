package state

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
)

// An identity's file is PEM: a "PRIVATE KEY" in PKCS #8, as other programs write it too, or that key
// sealed under a passphrase.
const (
	identityName  = "identity.pem"
	typePlain     = "PRIVATE KEY"
	maxIdentity   = 16 << 10 // bytes of the file
	identityLabel = "torproxy identity"
)

// ErrNoIdentity says that a directory has no identity; its callers may want to make one.
var ErrNoIdentity = errors.New("there is no identity key")

// Passphrase asks for the passphrase of a sealed key, once. Nil: sealed keys cannot be opened.
type Passphrase func() ([]byte, error)

// ErrSealed says that a key is sealed and nobody was there to be asked for its passphrase.
var ErrSealed = errors.New("the key is sealed under a passphrase")

// CreateIdentity makes a new identity. It never overwrites: fs.ErrExist if there is one. A nil passphrase
// leaves it unsealed.
func (d *Dir) CreateIdentity(passphrase []byte) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	data, err := encodeIdentity(key, passphrase)
	if err != nil {
		return nil, err
	}
	return key, Create(d.Path(identityName), data, 0o600)
}

// Identity returns the directory's identity. The error wraps ErrNoIdentity, ErrExposed, ErrSealed or
// ErrPassphrase where that is what is wrong.
func (d *Dir) Identity(ask Passphrase) (ed25519.PrivateKey, error) {
	name := d.Path(identityName)
	data, err := readSecret(name, maxIdentity)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, ErrNoIdentity)
	}
	if err != nil {
		return nil, err
	}
	key, err := decodeIdentity(data, ask)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// OpenIdentity returns the directory's identity, which it makes on the first call.
func (d *Dir) OpenIdentity(ask Passphrase) (key ed25519.PrivateKey, created bool, err error) {
	key, err = d.Identity(ask)
	if errors.Is(err, ErrNoIdentity) {
		key, err = d.CreateIdentity(nil)
		return key, true, err
	}
	return key, false, err
}

// SealIdentity replaces the identity's file by one that is sealed under a passphrase; the key stays the
// same. ask is for the passphrase that it is sealed under now, if it is.
func (d *Dir) SealIdentity(ask Passphrase, passphrase []byte) error {
	key, err := d.Identity(ask)
	if err != nil {
		return err
	}
	data, err := encodeIdentity(key, passphrase)
	if err != nil {
		return err
	}
	return Replace(d.Path(identityName), data, 0o600)
}

func encodeIdentity(key ed25519.PrivateKey, passphrase []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if passphrase == nil {
		return pem.EncodeToMemory(&pem.Block{Type: typePlain, Bytes: der}), nil
	}
	block, err := seal(identityLabel, der, passphrase, sealing)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(block), nil
}

// decodeIdentity reads what encodeIdentity wrote. No error holds any of it.
func decodeIdentity(data []byte, ask Passphrase) (ed25519.PrivateKey, error) {
	block, rest := pem.Decode(data)
	if block == nil || len(rest) > 0 {
		return nil, errors.New("it is not one key in PEM")
	}
	der := block.Bytes
	switch {
	case block.Type == typePlain && len(block.Headers) == 0:
	case block.Type != typeSealed:
		return nil, fmt.Errorf("it holds a %.40q and no private key", block.Type)
	case ask == nil:
		return nil, ErrSealed
	default:
		passphrase, err := ask()
		if err != nil {
			return nil, err
		}
		if der, err = unseal(identityLabel, block, passphrase); err != nil {
			return nil, err
		}
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("it holds no key in PKCS #8")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("its key is not an Ed25519 key")
	}
	return key, nil
}
